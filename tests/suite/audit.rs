//! What is on record, and that nobody can bend it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::harness::pki::Credential;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Area, Site, deadline};

trials! {
    needs [Mount, Sqlite, Age];
    a_rotation_is_seen_as_it_happens_and_the_log_is_verified_elsewhere,
    whoever_changes_the_log_is_found_and_nothing_is_done_any_more,
    a_full_disk_stops_what_has_to_be_recorded_until_there_is_room,
    a_restored_manager_begins_a_chain_that_follows_the_old_one,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Changes the log as somebody does who is root on the manager.
fn sql(site: &Site, statements: &str) {
    let ended = Command::new("sqlite3")
        .args(["-cmd", ".timeout 5000"])
        .arg(site.manager.data().join("audit.db"))
        .arg(format!(
            "DROP TRIGGER IF EXISTS records_stay; DROP TRIGGER IF EXISTS records_are_final; {statements}"
        ))
        .output()
        .expect("sqlite3");
    assert!(ended.status.success(), "{statements}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// How the manager says that it does, to an operator.
fn health(site: &Site) -> Option<(u16, serde_json::Value)> {
    let roots = certificates(&site.operator.directory().join("ca.pem"));
    let credential = Credential::of_operator(&site.operator);
    let mut connection = Connection::open(site.manager.address(), &roots, Some(credential)).ok()?;
    let reply = connection.request("GET", "/v1/sys/health", "").ok()?;
    Some((reply.status, serde_json::from_str(&reply.body).ok()?))
}

/// The lines of a program that does not end by itself.
fn lines_of(mut command: Command) -> (std::process::Child, Receiver<String>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    (child, lines)
}

fn await_line(lines: &Receiver<String>, words: &[&str]) -> String {
    loop {
        let line =
            lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("no line with {words:?}"));
        if words.iter().all(|word| line.contains(word)) {
            return line;
        }
    }
}

fn a_rotation_is_seen_as_it_happens_and_the_log_is_verified_elsewhere() {
    const CANARY: &[u8] = b"a canary of a coal mine in the south";
    let mut site = Site::start();
    site.serve("web-1", "web", &[("db", CANARY)]);
    let (mut tail, lines) = lines_of(site.operator.command(&["audit", "tail", "-f"]));
    await_line(&lines, &["done", "service.attach", "secret db", "file web/db"]);
    site.rotate("db", b"another canary of a coal mine");
    await_line(&lines, &["begun", "secret.rotate", "operator/admin", "secret db"]);
    await_line(&lines, &["done", "secret.rotate", "secret db:2", "from 127.0.0.1"]);
    let token = site.token(&[]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/db").expect("a value"), b"another canary of a coal mine");
    await_line(&lines, &["done", "node.join", "node web-1"]);
    await_line(&lines, &["done", "node.fetch", "node/web-1", "secret db:2", "file web/db"]);

    let kept = site.area().directory("kept");
    let (checkpoint, export) = (kept.join("checkpoint.jsonl"), kept.join("export.jsonl"));
    fs::write(&checkpoint, site.manager.operator().ok(&["audit", "checkpoint"])).expect("kept");
    // It is opened again where it was.
    site.manager.stop();
    site.manager.run();
    site.rotate("db", b"a third one");
    await_line(&lines, &["done", "secret.rotate", "secret db:3"]);
    tail.kill().expect("killed");
    tail.wait().expect("ended");

    let whole = site.operator.ok(&["audit", "verify"]);
    assert!(whole.contains("whole: records 1 to "), "{whole}");
    let went_on = site.operator.json(&["audit", "verify", "--from", text(&checkpoint)]);
    assert!(went_on["first"].as_u64() > Some(1) && went_on["records"].as_u64() > Some(1), "{went_on}");
    for _ in 0..2 {
        // The second time it goes on where the file ends.
        site.operator.ok(&["audit", "export", "--to", text(&export)]);
        site.operator.ok(&["audit", "rotate-key"]);
    }
    let ca = site.operator.directory().join("ca.pem");
    let offline = |options: &[&str]| {
        let mut command = crate::harness::process::secretfs();
        command.args(["audit", "verify", "--json", "--ca", text(&ca), text(&export)]).args(options);
        command.env("SECRETFS_CONFIG", "/dev/null").output().expect("secretfs")
    };
    for options in [&[][..], &["--from", text(&checkpoint)]] {
        let verified = offline(options);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        let verified: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
        assert_eq!((&verified["first"], verified["keys"].as_array().map(Vec::len)), (&1.into(), Some(2)));
        assert_eq!(verified["unsigned"].as_u64() > Some(0), !verified["unsigned_since"].is_null());
    }
    let whole = fs::read_to_string(&export).expect("an export");
    let unsigned: String =
        whole.lines().filter(|line| !line.contains("\"signature\"")).flat_map(|line| [line, "\n"]).collect();
    for (forged, why) in [(unsigned.as_str(), "no checkpoint"), ("", "there is no record")] {
        fs::write(&export, forged).expect("forged");
        let found = offline(&[]);
        assert_eq!(found.status.code(), Some(1));
        let said = String::from_utf8_lossy(&found.stderr).into_owned();
        assert!(said.contains(why), "{said}");
    }
    fs::write(&export, whole.replacen("\"secret.rotate\"", "\"secret.remove\"", 1)).expect("bent");
    let found = offline(&[]);
    assert_eq!(found.status.code(), Some(1));
    let said = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(said.contains("was changed"), "{said}");

    let syslog = site.operator.ok(&["audit", "export", "--format", "syslog"]);
    assert!(syslog.lines().all(|line| line.starts_with("<1") && line.contains(" secretfs - ")), "{syslog}");
    // Names and numbers, and nothing else.
    for file in ["audit.db", "audit.db-wal"] {
        let bytes = fs::read(site.manager.data().join(file)).unwrap_or_default();
        for canary in [&b"canary"[..], token.as_bytes()] {
            assert!(!bytes.windows(canary.len()).any(|window| window == canary), "{file}");
        }
    }
}

fn whoever_changes_the_log_is_found_and_nothing_is_done_any_more() {
    let mut site = Site::start();
    site.serve("web-1", "web", &[("db", b"value")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/db").expect("a value"), b"value");
    site.operator.ok(&["audit", "verify"]);
    sql(&site, "UPDATE records SET record = replace(record, '\"admin\"', '\"eve\"') WHERE sequence = 5;");
    let found = site.operator.run(&["audit", "verify"]);
    assert_eq!(found.code, 1, "{}", found.stdout);
    assert!(found.stderr.contains("record 5 was changed"), "{}", found.stderr);

    site.manager.stop();
    site.manager.launch();
    deadline::poll("the broken chain is noticed", || {
        health(&site).filter(|(status, health)| {
            *status == 503
                && health["reason"].as_str().is_some_and(|reason| reason.contains("record 5 was changed"))
        })
    });
    let refused = site.operator.run_with(&["secret", "rotate", "db", "-"], b"unrecorded");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("does nothing without a record"), "{}", refused.stderr);
    assert_eq!(node.read("web/db").expect("what is cached"), b"value", "reads go on");

    // Whoever opens the seal may begin another one. What is left of the old one says what was wrong.
    let running = site.manager.command(&["begin-audit"], b"");
    assert_eq!(running.code, 1, "a manager runs: {running:?}");
    site.manager.stop();
    let begun = site.manager.command(&["begin-audit", "--json"], b"");
    assert_eq!(begun.code, 0, "{begun:?}");
    let begun: serde_json::Value = serde_json::from_str(&begun.stdout).expect("JSON");
    assert!(
        begun["reason"].as_str().is_some_and(|reason| reason.contains("record 5 was changed")),
        "{begun}"
    );
    let whole = site.manager.command(&["begin-audit"], b"");
    assert!(whole.code == 1 && whole.stderr.contains("is whole"), "{whole:?}");
    site.manager.run();
    site.rotate("db", b"recorded");
    node.wait_for("web/db", b"recorded");
    site.operator.ok(&["audit", "verify"]);
    let all = site.operator.ok(&["audit", "tail", "-n", "1000", "--all-environments"]);
    assert!(
        all.lines().any(|line| line.contains("set aside: ") && line.contains("record 5 was changed")),
        "{all}"
    );
    let ca = site.operator.directory().join("ca.pem");
    let files = begun["files"].as_array().expect("files").iter().filter_map(serde_json::Value::as_str);
    let old = files.filter(|file| file.ends_with(".jsonl")).collect::<Vec<_>>();
    let found = site.operator.run(&["audit", "verify", "--ca", text(&ca), old[0]]);
    assert!(found.code == 1 && found.stderr.contains("record 5 was changed"), "{found:?}");
}

/// A small disk of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Self {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&at).status();
        assert!(mounted.expect("mount").success());
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn a_full_disk_stops_what_has_to_be_recorded_until_there_is_room() {
    let area = Area::new();
    let disk = SmallDisk::mount(area.directory("disk"));
    let home = disk.0.join("hosts");
    fs::create_dir(&home).expect("a directory");
    let site = Site::start_in(area, &home, "");
    site.serve("web-1", "web", &[("db", b"value"), ("cold", b"not read yet")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/db").expect("a value"), b"value");

    let ballast = disk.0.join("ballast");
    let mut file = fs::File::create(&ballast).expect("a file");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    drop(file);
    // What SQLite has allocated already takes some more.
    let refused = deadline::poll("a refusal", || {
        let outcome = site.operator.run(&["secret", "ls"]);
        (outcome.code != 0).then_some(outcome)
    });
    assert!(refused.stderr.contains("cannot record this"), "{}", refused.stderr);
    let (status, said) = health(&site).expect("an answer");
    assert_eq!(status, 503);
    assert_eq!(said["reason"], "the audit log cannot be written: the disk is full");
    let refused = site.operator.run_with(&["secret", "rotate", "db", "-"], b"unrecorded");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert_eq!(node.read("web/db").expect("what is cached"), b"value", "reads go on");
    node.read("web/cold").expect_err("nothing is delivered without a record");

    fs::remove_file(&ballast).expect("room");
    deadline::poll("it goes on", || health(&site).filter(|(status, _)| *status == 200));
    site.rotate("db", b"recorded");
    node.wait_for("web/db", b"recorded");
    node.wait_for("web/cold", b"not read yet");
    site.operator.ok(&["audit", "verify"]);
    let all = site.manager.operator().ok(&["audit", "tail", "-n", "1000"]);
    assert!(all.lines().any(|line| line.contains("audit.gap") && line.contains(" times")), "{all}");
}

fn a_restored_manager_begins_a_chain_that_follows_the_old_one() {
    let area = Area::new();
    let identity = area.directory("keys").join("backup.txt");
    let made = Command::new("age-keygen").arg("-o").arg(&identity).output().expect("age-keygen");
    assert!(made.status.success());
    let public = Command::new("age-keygen").arg("-y").arg(&identity).output().expect("age-keygen");
    let recipient = String::from_utf8(public.stdout).expect("text").trim().to_owned();

    let mut site = Site::sealed_by(&[]);
    site.create_secret("db", b"value");
    let kept = area.directory("kept");
    let (old, backup) = (kept.join("old.jsonl"), kept.join("manager.age"));
    let keep = |site: &Site, name: &str| {
        fs::write(kept.join(name), site.operator.ok(&["audit", "checkpoint"])).expect("kept");
    };
    keep(&site, "before.jsonl");
    let made = site.manager.command(&["backup", "-r", &recipient, "-o", text(&backup)], b"");
    assert_eq!(made.code, 0, "{}", made.stderr);
    // The original goes on for a while.
    site.rotate("db", b"not in the backup");
    let last = site.operator.json(&["audit", "verify"])["last"].as_u64();
    deadline::poll("it is signed", || {
        keep(&site, "after.jsonl");
        let kept = fs::read_to_string(kept.join("after.jsonl")).expect("a checkpoint");
        let signed: serde_json::Value = serde_json::from_str(kept.lines().nth(1)?).ok()?;
        (signed["checkpoint"]["sequence"].as_u64() >= last).then_some(())
    });
    site.operator.ok(&["audit", "export", "--to", text(&old)]);
    site.manager.stop();
    fs::remove_dir_all(site.manager.data()).expect("the disk is lost");
    let restored = site.manager.command(&["restore", "-i", text(&identity), text(&backup)], b"");
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    site.manager.run_sealed();
    let lines = site.manager.unlock_lines();
    let wrong = site.manager.command(&["unlock"], b"nothing that is a key\n");
    assert_ne!(wrong.code, 0);
    assert_eq!(site.manager.command(&["unlock"], lines.as_bytes()).code, 0);
    site.manager.wait_until_it_serves();

    let whole = site.operator.ok(&["audit", "verify"]);
    assert_eq!(whole.lines().count(), 2, "both chains: {whole}");
    assert!(whole.contains("follows chain"), "{whole}");
    // A checkpoint of the old chain is looked for there.
    let from = |name: &str| site.operator.run(&["audit", "verify", "--from", text(&kept.join(name))]);
    let met = from("before.jsonl");
    assert_eq!((met.code, met.stdout.lines().count()), (0, 2), "{met:?}");
    let lost = from("after.jsonl");
    assert_eq!(lost.code, 1, "{lost:?}");
    assert!(lost.stderr.contains("is missing and the chain ends"), "{lost:?}");
    let tail = site.manager.operator().ok(&["audit", "tail"]);
    assert!(tail.contains("audit.begin") && tail.contains("manager.unlock"), "{tail}");
    // What the old one wrote after the backup is a branch of its own, and fits as well.
    let new = kept.join("new.jsonl");
    site.operator.ok(&["audit", "export", "--to", text(&new)]);
    site.operator.ok(&["audit", "verify", text(&old), text(&new)]);
}
