//! A manager in one file, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::cold_readers::{ColdReaders, cold_node, serve, value};
use crate::harness::requirement::trials;
use crate::harness::{Area, Site};

trials! {
    needs [Mount, Age];
    a_backup_of_a_serving_manager_is_restored_and_read,
    a_backup_is_of_no_use_to_others,
}

/// A pair of keys as `age-keygen` makes them: the file of the one, and the other.
fn key_pair(area: &Area, name: &str) -> (PathBuf, String) {
    let file = area.directory("keys").join(name);
    let made = Command::new("age-keygen").arg("-o").arg(&file).output().expect("age-keygen");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = Command::new("age-keygen").arg("-y").arg(&file).output().expect("age-keygen");
    (file, String::from_utf8(public.stdout).expect("text").trim().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

fn a_backup_of_a_serving_manager_is_restored_and_read() {
    let area = Area::new();
    let (identity, recipient) = key_pair(&area, "backup.txt");
    let mut site = Site::sealed_by(&["--shares", "3", "--threshold", "2"]);
    let names: Vec<_> = (0..8).map(|number| format!("secret-{number}")).collect();
    serve(&site, "web-1", "web", &names);
    site.operator.ok(&["key", "rotate"]);
    site.create_secret("late", b"under the second version");
    let node = cold_node(&site, "web-1");

    let readers = ColdReaders::start(&node, "web", &names);
    let backup = area.directory("backups").join("manager.age");
    let made = site.manager.command(&["backup", "--recipient", &recipient, "--output", text(&backup)], b"");
    assert_eq!(made.code, 0, "{}", made.stderr);
    readers.go_round();
    assert_eq!(readers.end(), [""; 0], "nobody notices");
    let again = site.manager.command(&["backup", "-r", &recipient, "-o", text(&backup)], b"");
    assert_eq!(again.code, 1, "a backup is never replaced");
    // What happens afterwards is not in it.
    site.rotate("secret-0", b"changed after the backup");
    node.wait_for("web/secret-0", b"changed after the backup");

    site.manager.stop();
    let there = site.manager.command(&["restore", "-i", text(&identity), text(&backup)], b"");
    assert_eq!(there.code, 1, "a manager is never replaced");
    assert!(there.stderr.contains("has a manager already"), "{}", there.stderr);
    fs::remove_dir_all(site.manager.data()).expect("the disk is lost");
    let restored = site.manager.command(&["restore", "-i", text(&identity), text(&backup)], b"");
    assert_eq!(restored.code, 0, "{}", restored.stderr);

    site.manager.run_sealed();
    let lines = site.manager.unlock_lines();
    let unlocked = site.manager.command(&["unlock"], lines.as_bytes());
    assert_eq!(unlocked.code, 0, "{}", unlocked.stderr);
    site.manager.wait_until_it_serves();
    for name in &names {
        node.wait_for(&format!("web/{name}"), &value(name));
    }
    let keys = site.operator.json(&["key", "ls"]);
    let versions = keys[0]["versions"].as_array().expect("versions");
    let counts: Vec<_> = versions.iter().map(|version| version["data_keys"].as_u64()).collect();
    assert_eq!(counts, [Some(1), Some(8)], "{keys}");
    assert!(versions.iter().all(|version| version["created"].as_str().is_some_and(|at| at > "2020")));
    site.rotate("secret-1", b"it goes on");
    node.wait_for("web/secret-1", b"it goes on");
}

fn a_backup_is_of_no_use_to_others() {
    const CANARY: &[u8] = b"canary in the coal mine";
    let area = Area::new();
    let (identity, recipient) = key_pair(&area, "backup.txt");
    let (stranger, _) = key_pair(&area, "stranger.txt");
    let mut site = Site::start();
    site.create_secret("canary-name", CANARY);
    let backup = area.directory("backups").join("manager.age");
    let wrong = site.manager.command(&["backup", "--recipient", "age1nobody"], b"");
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("not an age recipient"), "{}", wrong.stderr);
    let made = site.manager.command(&["backup", "-r", &recipient, "-o", text(&backup)], b"");
    assert_eq!(made.code, 0, "{}", made.stderr);
    let encrypted = fs::read(&backup).expect("a backup");
    assert!(!contains(&encrypted, CANARY) && !contains(&encrypted, b"canary-name"), "all of it is encrypted");

    // Whoever has the recipient's key still has nothing that opens by itself: no value, no key file.
    let inside = Command::new("age").arg("-d").arg("-i").arg(&identity).arg(&backup).output().expect("age");
    assert!(inside.status.success(), "it is an age file: {}", String::from_utf8_lossy(&inside.stderr));
    assert!(contains(&inside.stdout, b"canary-name"), "names are in the store");
    assert!(!contains(&inside.stdout, CANARY) && !contains(&inside.stdout, b"unlock.key"));

    site.manager.stop();
    fs::remove_dir_all(site.manager.data()).expect("the disk is lost");
    let refused = |site: &Site, identity: &Path, backup: &Path| {
        let outcome = site.manager.command(&["restore", "-i", text(identity), text(backup)], b"");
        assert_eq!(outcome.code, 1, "{}", outcome.stdout);
        assert!(!site.manager.data().exists(), "nothing is left behind");
        let left = fs::read_dir(site.manager.data().parent().expect("a parent")).expect("a directory");
        let left = left.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        assert_eq!(left.filter(|name| name.starts_with(".backup")).count(), 0);
        outcome.stderr
    };
    let said = refused(&site, &stranger, &backup);
    assert!(said.contains("cannot decrypt"), "{said}");
    let damaged = area.directory("backups").join("damaged.age");
    for position in [encrypted.len() / 2, encrypted.len() - 1] {
        let mut bytes = encrypted.clone();
        bytes[position] ^= 1;
        fs::write(&damaged, bytes).expect("written");
        refused(&site, &identity, &damaged);
    }
    fs::write(&damaged, &encrypted[..encrypted.len() - 100]).expect("written");
    refused(&site, &identity, &damaged);
    fs::write(&damaged, b"not a backup").expect("written");
    refused(&site, &identity, &damaged);
    let restored = site.manager.command(&["restore", "-i", text(&identity), text(&backup)], b"");
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert!(!site.manager.data().join("unlock.key").exists());
    site.manager.run_sealed();
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
