//! The keys under which values are encrypted change while they are read.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::Site;
use crate::harness::cold_readers::{ColdReaders, cold_node, serve};
use crate::harness::pki::Credential;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};

trials! {
    needs [Mount, Sqlite];
    a_key_is_rotated_rewrapped_and_retired_under_readers,
    a_key_that_somebody_has_is_taken_in,
    keys_are_no_ones_to_share_and_are_told_apart,
    a_row_that_was_moved_in_the_database_is_refused_wherever_it_is_put,
}

/// What `key ls` says of an environment: key, version and how much is wrapped under it.
fn listed(site: &Site, environment: &str) -> Vec<(String, u64, u64)> {
    let keys = site.operator.json(&["key", "ls"]);
    let all = keys.as_array().expect("a list").iter();
    let ours = all.filter(|keys| keys["environment"] == environment);
    let versions = ours.flat_map(|keys| keys["versions"].as_array().expect("versions"));
    let key = |version: &Value| {
        let (backend, name) = (&version["key"]["backend"], &version["key"]["name"]);
        format!("{}/{}", backend.as_str().expect("text"), name.as_str().expect("text"))
    };
    let number = |value: &Value| value.as_u64().expect("a number");
    versions
        .map(|version| (key(version), number(&version["version"]), number(&version["data_keys"])))
        .collect()
}

fn row(key: &str, version: u64, data_keys: u64) -> (String, u64, u64) {
    (key.to_owned(), version, data_keys)
}

fn a_key_is_rotated_rewrapped_and_retired_under_readers() {
    let site = Site::start();
    let names: Vec<_> = (0..12).map(|number| format!("secret-{number}")).collect();
    serve(&site, "web-1", "web", &names);
    let node = cold_node(&site, "web-1");
    let readers = ColdReaders::start(&node, "web", &names);
    readers.go_round();
    let key_files = || {
        let mut files: Vec<_> = fs::read_dir(site.manager.data().join("keys/prod"))
            .expect("keys")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        files.sort();
        files
    };

    assert_eq!(listed(&site, "prod"), [row("local/prod", 1, 12)]);
    assert_eq!(site.operator.ok(&["key", "rotate"]), "local/prod:2\n");
    site.create_secret("new", b"under the new version");
    assert_eq!(listed(&site, "prod"), [row("local/prod", 2, 1), row("local/prod", 1, 12)]);
    let table = site.operator.ok(&["key", "ls"]);
    assert!(table.contains("unwraps") && table.contains("wraps"), "{table}");
    readers.go_round();

    let too_early = site.operator.json(&["key", "retire"]);
    assert_eq!(too_early, serde_json::json!([]), "everything is in use");
    let rewrapped = site.operator.json(&["key", "rewrap", "--rate", "20"]);
    assert_eq!((&rewrapped["moved"], &rewrapped["remaining"]), (&12.into(), &0.into()), "{rewrapped}");
    assert_eq!(listed(&site, "prod"), [row("local/prod", 2, 13), row("local/prod", 1, 0)]);
    assert_eq!(key_files(), ["1.key", "2.key"]);
    let retired = site.operator.json(&["key", "retire"]);
    assert_eq!(retired[0]["below"], 2, "{retired}");
    assert_eq!(key_files(), ["2.key"]);
    assert_eq!(listed(&site, "prod"), [row("local/prod", 2, 13)]);
    readers.go_round();

    let moved = site.operator.json(&["key", "migrate", "--to", "local", "--key-name", "prod-2027"]);
    assert_eq!((&moved["moved"], &moved["key"]["name"]), (&13.into(), &"prod-2027".into()), "{moved}");
    assert_eq!(listed(&site, "prod"), [row("local/prod-2027", 1, 13), row("local/prod", 2, 0)]);
    let retired = site.operator.json(&["key", "retire"]);
    assert!(retired[0]["below"].is_null(), "{retired}");
    assert_eq!(listed(&site, "prod"), [row("local/prod-2027", 1, 13)]);
    assert!(key_files().is_empty());
    readers.go_round();
    assert_eq!(readers.end(), [""; 0]);
    assert!(site.operator.ok(&["secret", "inspect", "new"]).contains("local/prod-2027:1"));
}

fn a_key_that_somebody_has_is_taken_in() {
    let site = Site::start();
    let file = site.area().directory("keys").join("enc.key");
    fs::write(&file, [7; 32]).expect("a key");
    let file = file.to_str().expect("a path");
    site.operator.ok(&["key", "import", "legacy", file]);
    let again = site.operator.run(&["key", "import", "legacy", file]);
    assert_eq!(again.code, 1, "a key is never replaced");
    assert!(again.stderr.contains("there is a key legacy already"), "{}", again.stderr);
    let text = site.operator.run_with(&["key", "import", "text", "-"], b"not 32 bytes");
    assert_eq!(text.code, 1);
    assert!(text.stderr.contains("a key has 32 bytes"), "{}", text.stderr);
    site.operator.ok(&["env", "create", "imported", "--key-name", "legacy"]);
    site.operator.within("imported").ok_with(&["secret", "create", "db", "-"], b"value");
    assert_eq!(listed(&site, "imported"), [row("local/legacy", 1, 1)]);
}

fn keys_are_no_ones_to_share_and_are_told_apart() {
    let site = Site::start();
    let taken = site.operator.run(&["env", "create", "thief", "--key-name", "prod"]);
    assert_eq!(taken.code, 1);
    assert!(taken.stderr.contains("local/prod"), "{}", taken.stderr);
    site.operator.ok(&["env", "create", "dev"]);
    let taken = site.operator.run(&["key", "migrate", "--to", "local", "--key-name", "dev"]);
    assert_eq!(taken.code, 1, "{}", taken.stderr);
    let absent = site.operator.run(&["key", "migrate", "--to", "vault"]);
    assert_eq!(absent.code, 1);
    assert!(absent.stderr.contains("no key backend vault"), "{}", absent.stderr);
    let unknown = site.operator.run(&["key", "migrate", "--to", "paper"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("local, vault, pkcs11"), "{}", unknown.stderr);
    assert_eq!(listed(&site, "prod"), [row("local/prod", 1, 0)]);
}

/// Changes the manager's database behind its back.
fn sql(site: &Site, statement: &str) {
    let database: &Path = &site.manager.data().join("store.db");
    let ended = Command::new("sqlite3")
        .args(["-cmd", ".timeout 5000"])
        .arg(database)
        .arg(statement)
        .output()
        .expect("sqlite3");
    assert!(ended.status.success(), "{statement}: {}", String::from_utf8_lossy(&ended.stderr));
}

fn a_row_that_was_moved_in_the_database_is_refused_wherever_it_is_put() {
    let site = Site::start();
    site.serve("web-1", "web", &[("low", b"open to many"), ("high", b"for few"), ("twice", b"old")]);
    site.rotate("twice", b"new");
    site.operator.ok(&["env", "create", "dev"]);
    let dev = site.operator.within("dev");
    dev.ok_with(&["secret", "create", "low", "-"], b"of another environment");
    let node = cold_node(&site, "web-1");
    assert_eq!(node.read("web/low").expect("a value"), b"open to many");

    let of = |environment: &str, secret: &str, number: u64| {
        format!(
            "(SELECT v.id FROM versions v JOIN secrets s ON s.id = v.secret
              WHERE s.environment = '{environment}' AND s.name = '{secret}' AND v.number = {number})"
        )
    };
    // What wraps it comes along, or only the value: neither opens anywhere else.
    let whole = "key_backend, key_name, key_version, wrapped_key, sealed";
    let cases = [
        ("web/low", "low", of("prod", "low", 1), of("prod", "high", 1), whole),
        ("web/twice", "twice", of("prod", "twice", 2), of("prod", "twice", 1), whole),
        ("web/low", "low", of("prod", "low", 2), of("dev", "low", 1), whole),
        ("web/low", "low", of("prod", "low", 3), of("prod", "high", 1), "sealed"),
        ("web/low", "low", of("prod", "low", 4), of("prod", "high", 1), "wrapped_key"),
        ("web/low", "low", of("prod", "low", 5), of("dev", "low", 1), "key_name, key_version"),
    ];
    let refused = || {
        let roots = certificates(&site.operator.directory().join("ca.pem"));
        let credential = Credential::of_operator(&site.operator);
        let mut connection =
            Connection::open(site.manager.address(), &roots, Some(credential)).expect("a connection");
        let metrics = connection.request("GET", "/metrics", "").expect("metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("secretfs_manager_refused_versions_total "));
        let count = line.and_then(|line| line.rsplit(' ').next()).expect("a count");
        count.parse::<u64>().expect("a number")
    };
    for (case, (path, secret, to, from, columns)) in cases.iter().enumerate() {
        let before = refused();
        sql(
            &site,
            &format!(
                "UPDATE versions SET ({columns}) = (SELECT {columns} FROM versions WHERE id = {from}) WHERE id = {to}"
            ),
        );
        let error = node.read(path).expect_err("a row that does not belong there");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "case {case}");
        assert!(refused() > before, "case {case} is counted");
        let said = format!("secret={secret}");
        let log = site.manager.process().log();
        let line = log.lines().rev().find(|line| line.contains("a stored version is refused"));
        assert!(line.is_some_and(|line| line.contains(&said)), "case {case} is logged: {line:?}");
        let rewrap = site.operator.run(&["key", "rotate"]);
        assert_eq!(rewrap.code, 0, "{}", rewrap.stderr);
        let rewrap = site.operator.run(&["key", "rewrap"]);
        if *columns != "sealed" {
            assert_eq!(rewrap.code, 1, "case {case}: {}", rewrap.stdout);
            assert!(rewrap.stderr.contains(&format!("of secret {secret}")), "{}", rewrap.stderr);
        }
        // It is mended as a lost password is.
        site.rotate(secret, format!("mended {case}").as_bytes());
        node.wait_for(path, format!("mended {case}").as_bytes());
        sql(&site, &format!("DELETE FROM versions WHERE id = {to}"));
    }
    assert_eq!(node.read("web/high").expect("a value"), b"for few");
    let records = site.operator.ok(&["audit", "tail", "-n", "10000"]);
    let damaged = |secret: &str| {
        let about = format!("secret {secret}:");
        records.lines().filter(|line| line.contains("secret.damaged") && line.contains(&about)).count()
    };
    assert!(damaged("low") >= 5, "{records}");
    assert!(damaged("twice") >= 1, "{records}");
    assert_eq!(damaged("high"), 0, "{records}");
}
