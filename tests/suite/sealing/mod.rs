//! A manager that is sealed says so and serves nothing, until whoever has its key, or enough shares of
//! it, has unlocked it.

mod hunt;
mod terminal;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::harness::area::Logs;
use crate::harness::manager::{Manager, free_address};
use crate::harness::pki::Credential;
use crate::harness::process::{Outcome, SECRETFS, finish};
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Area, Site, deadline};

use hunt::the_unlock_key_is_in_no_file_no_argument_and_no_log;
use terminal::a_terminal_is_asked_and_shows_no_key;

trials! {
    needs [Mount];
    a_new_manager_is_sealed_and_serves_nothing_until_it_is_unlocked,
    three_of_five_operators_unlock_one_after_the_other,
    a_terminal_is_asked_and_shows_no_key,
    wrong_keys_are_refused_and_have_to_wait,
    a_wrong_share_is_refused_with_all_others_and_not_named,
    a_node_serves_what_it_has_while_the_manager_is_sealed,
    a_new_unlock_key_makes_the_old_one_useless,
    a_key_file_unlocks_and_a_lost_one_seals,
    a_systemd_credential_unlocks,
    the_unlock_key_is_in_no_file_no_argument_and_no_log,
    only_its_user_may_speak_to_a_sealed_manager,
}

/// A manager that does not run yet, and where it is.
struct Rig {
    manager: Manager,
    // After the manager, which is kept in it.
    area: Area,
}

impl Rig {
    fn new(seal: &[&str]) -> Self {
        let area = Area::new();
        let (home, logs) = (area.directory("hosts"), Logs::at(area.directory("logs")));
        Self { manager: Manager::init(seal, None, free_address(), &home, "", &[], &logs), area }
    }

    fn unlock(&self, lines: &str) -> Outcome {
        self.manager.command(&["unlock"], lines.as_bytes())
    }

    /// The operator's calls work at once: who unlocked was told so when the manager served.
    fn serves(&self) {
        let listed = self.manager.operator().run(&["env", "ls"]);
        assert_eq!(listed.code, 0, "{listed:?}");
    }

    fn logs(&self) -> Logs {
        Logs::at(self.area.directory("logs"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.manager.data().join(name)
    }
}

/// A share with another byte, and the checksum of that.
fn forged(share: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(share.strip_prefix("sfs1.").expect("a share")).expect("base64");
    bytes.truncate(bytes.len() - 4);
    *bytes.last_mut().expect("bytes") ^= 1;
    let sum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(&sum.as_ref()[..4]);
    format!("sfs1.{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// A key of nobody's.
fn stranger() -> String {
    let mut bytes = vec![7; 32];
    let sum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(&sum.as_ref()[..4]);
    format!("sfu1.{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn a_new_manager_is_sealed_and_serves_nothing_until_it_is_unlocked() {
    let mut rig = Rig::new(&[]);
    let key = rig.manager.printed()["unlock_key"].as_str().expect("an unlock key").to_owned();
    assert!(key.starts_with("sfu1."), "{key}");
    for absent in ["root.key", "unlock.key"] {
        assert!(!rig.file(absent).exists(), "{absent}");
    }
    let nobody = rig.unlock(&key);
    assert_eq!(nobody.code, 5, "{nobody:?}");
    assert!(nobody.stderr.contains("manager run"), "it says what to do: {}", nobody.stderr);

    rig.manager.run_sealed();
    for (method, path) in [
        ("GET", "/v1/environments"),
        ("GET", "/metrics"),
        ("GET", "/v1/sys/openapi.json"),
        ("POST", "/v1/sys/health"),
        ("POST", "/v1/node/join"),
        ("POST", "/v1/node/changes"),
    ] {
        let reply = rig.manager.ask_unverified(method, path).expect("an answer");
        assert_eq!(reply.status, 503, "{path}: {reply:?}");
        assert!(reply.body.contains("the manager is sealed"), "{path}: {reply:?}");
        assert!(reply.body.contains("unavailable"), "{path}: {reply:?}");
    }
    // Who verifies does not take it for the manager, whatever certificate he shows.
    let roots = certificates(&rig.manager.operator().directory().join("ca.pem"));
    let operator = Credential::of_operator(rig.manager.operator());
    let mut connection =
        Connection::open(rig.manager.address(), &roots, Some(operator)).expect("a connection");
    let refused = connection.request("GET", "/v1/environments", "").expect_err("not trusted");
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    let refused = rig.manager.operator().run(&["env", "ls"]);
    assert_eq!(refused.code, 5, "{refused:?}");

    let typo = rig.unlock(&key[..52]);
    assert_eq!(typo.code, 1, "{typo:?}");
    assert!(typo.stderr.contains("typo"), "{}", typo.stderr);
    assert_eq!(rig.unlock("").code, 1, "nothing on standard input");
    let unlocked = rig.unlock(&key);
    assert_eq!(unlocked.code, 0, "{unlocked:?}");
    rig.serves();
    let operator = Credential::of_operator(rig.manager.operator());
    let mut connection =
        Connection::open(rig.manager.address(), &roots, Some(operator)).expect("a connection");
    let health = connection.request("GET", "/v1/sys/health", "").expect("an answer");
    assert!(health.status == 200 && health.body.contains("healthy"), "{health:?}");
    assert!(!rig.file("unlock.sock").exists());
    let again = rig.unlock(&key);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("not sealed"), "{}", again.stderr);

    // And from the begin at each start, also after one that left its socket behind.
    rig.manager.stop();
    fs::write(rig.file("unlock.sock"), "").expect("a file in its place");
    rig.manager.run_sealed();
    rig.manager.stop();
}

fn three_of_five_operators_unlock_one_after_the_other() {
    let mut rig = Rig::new(&["--shares", "5", "--threshold", "3"]);
    assert!(rig.manager.printed().get("unlock_key").is_none());
    let shares = rig.manager.shares();
    assert_eq!(shares.len(), 5);
    rig.manager.run_sealed();
    let given = |share: &str, progress: &str| {
        let outcome = rig.unlock(share);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert_eq!(outcome.stderr.trim(), progress);
    };
    given(&shares[4], "1 of 3 shares");
    let again = rig.unlock(&shares[4]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("given already"), "{}", again.stderr);
    given(&shares[0], "2 of 3 shares");
    let (status, health) = rig.manager.health().expect("an answer");
    assert_eq!((status, &health["state"]), (503, &"sealed".into()), "two do not do");
    given(&shares[2], "3 of 3 shares");
    rig.serves();

    // Several in one go.
    rig.manager.stop();
    rig.manager.run_sealed();
    let together = rig.unlock(&shares[1..4].join("\n"));
    assert_eq!(together.code, 0, "{together:?}");
    rig.serves();
}

fn wrong_keys_are_refused_and_have_to_wait() {
    let mut rig = Rig::new(&[]);
    let key = rig.manager.unlock_lines();
    rig.manager.run_sealed();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let refused = rig.unlock(&stranger());
        assert_eq!(refused.code, 1, "{refused:?}");
        waits.push(refused.stderr.contains("try again in"));
    }
    assert_eq!(waits, [false, false, true, true]);
    // The right one has to wait as any other, and not for ever.
    let early = rig.unlock(&key);
    assert_eq!(early.code, 1, "{early:?}");
    assert!(early.stderr.contains("too many wrong keys"), "{}", early.stderr);
    deadline::eventually("the wait is over", || rig.unlock(&key).code == 0);
    rig.serves();
}

fn a_wrong_share_is_refused_with_all_others_and_not_named() {
    let mut rig = Rig::new(&["--shares", "3", "--threshold", "2"]);
    let shares = rig.manager.shares();
    rig.manager.run_sealed();
    let other = Rig::new(&["--shares", "3", "--threshold", "2"]).manager.shares();
    let foreign = rig.unlock(&other[0]);
    assert!(foreign.code == 1 && foreign.stderr.contains("not one of those"), "{foreign:?}");

    assert_eq!(rig.unlock(&forged(&shares[0])).code, 0, "it cannot be known yet");
    let refused = rig.unlock(&shares[1]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("at least one of the shares is wrong"), "{}", refused.stderr);
    for share in [&shares[1], &forged(&shares[0])] {
        assert!(!refused.stderr.contains(share.as_str()), "{}", refused.stderr);
    }
    let first = rig.unlock(&shares[1]);
    assert_eq!(first.stderr.trim(), "1 of 2 shares", "all were forgotten");
    assert_eq!(rig.unlock(&shares[0]).code, 0);
    rig.serves();
}

fn a_node_serves_what_it_has_while_the_manager_is_sealed() {
    let mut site = Site::sealed_by(&[]);
    site.serve("web-1", "web", &[("key", b"value"), ("cold", b"cold")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("now it is warm"), b"value");

    site.manager.stop();
    site.manager.run_sealed();
    deadline::eventually("the node has met the sealed manager", || {
        let status = node.status();
        status["connected"] == false && status["reason"].as_str().is_some_and(|why| why.contains("sealed"))
    });
    assert_eq!(node.read("web/key").expect("from memory"), b"value");
    node.read("web/cold").expect_err("it was never fetched");

    let unlocked = site.manager.command(&["unlock"], site.manager.unlock_lines().as_bytes());
    assert_eq!(unlocked.code, 0, "{unlocked:?}");
    let begin = Instant::now();
    deadline::eventually("the node is connected", || node.status()["connected"] == true);
    // It asks a sealed manager every ten seconds at least.
    assert!(begin.elapsed() < Duration::from_secs(15), "after {:?}", begin.elapsed());
    assert_eq!(node.read("web/cold").expect("from the manager"), b"cold");
    site.rotate("key", b"another");
    node.wait_for("web/key", b"another");
}

fn a_new_unlock_key_makes_the_old_one_useless() {
    let mut rig = Rig::new(&[]);
    let old = rig.manager.unlock_lines();
    rig.manager.run_sealed();
    let running = rig.manager.command(&["rekey"], old.as_bytes());
    assert_eq!(running.code, 1, "{running:?}");
    assert!(running.stderr.contains("another manager runs"), "{}", running.stderr);
    rig.manager.stop();

    let before = fs::read(rig.file("root.sealed")).expect("a seal");
    let refused = rig.manager.command(&["rekey"], stranger().as_bytes());
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(fs::read(rig.file("root.sealed")).expect("a seal"), before, "nothing was changed");
    // Nor where nobody was shown the new key.
    let mut unseen = Command::new("sh");
    unseen.args(["-c", "exec \"$0\" manager rekey --data-dir \"$1\" > /dev/full", SECRETFS]);
    unseen.arg(rig.manager.data());
    let unseen = finish(&mut unseen, old.as_bytes(), &rig.logs());
    assert_eq!(unseen.code, 1, "{unseen:?}");
    assert_eq!(fs::read(rig.file("root.sealed")).expect("a seal"), before, "nothing was changed");
    let rekeyed =
        rig.manager.command(&["rekey", "--json", "--shares", "3", "--threshold", "2"], old.as_bytes());
    assert_eq!(rekeyed.code, 0, "{rekeyed:?}");
    let printed: serde_json::Value = serde_json::from_str(&rekeyed.stdout).expect("JSON");
    let share = |index: usize| printed["unlock_shares"][index].as_str().expect("a share").to_owned();

    rig.manager.run_sealed();
    let useless = rig.unlock(&old);
    assert_eq!(useless.code, 1, "{useless:?}");
    assert!(useless.stderr.contains("does not unlock"), "{}", useless.stderr);
    let unlocked = rig.unlock(&[share(2), share(0)].join("\n"));
    assert_eq!(unlocked.code, 0, "{unlocked:?}");
    rig.serves();
    let tail = rig.manager.operator().ok(&["audit", "tail", "-n", "50"]);
    for outcome in ["begun", "done"] {
        assert!(tail.lines().any(|line| line.contains(outcome) && line.contains("manager.rekey")), "{tail}");
    }

    // By shares, and to a key file; and back, without an operator.
    rig.manager.stop();
    let shares = [share(1), share(2)].join("\n");
    let rekeyed = rig.manager.command(&["rekey", "--auto-unlock", "key-file"], shares.as_bytes());
    assert_eq!(rekeyed.code, 0, "{rekeyed:?}");
    rig.manager.run();
    rig.manager.stop();
    let rekeyed = rig.manager.command(&["rekey", "--json", "--auto-unlock", "none"], b"");
    assert_eq!(rekeyed.code, 0, "{rekeyed:?}");
    assert!(!rig.file("unlock.key").exists());
    rig.manager.run_sealed();
    let printed: serde_json::Value = serde_json::from_str(&rekeyed.stdout).expect("JSON");
    let unlocked = rig.unlock(printed["unlock_key"].as_str().expect("a key"));
    assert_eq!(unlocked.code, 0, "{unlocked:?}");
}

fn a_key_file_unlocks_and_a_lost_one_seals() {
    let mut rig = Rig::new(&["--auto-unlock", "key-file"]);
    let file = rig.file("unlock.key");
    assert_eq!(fs::metadata(&file).expect("a key file").permissions().mode() & 0o777, 0o600);
    rig.manager.run();
    rig.manager.stop();

    // One that others could have read is as good as lost.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("changed");
    rig.manager.run_sealed();
    rig.manager.process().wait_for_log("0600");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
    rig.manager.wait_until_it_serves();
    rig.manager.stop();

    fs::remove_file(&file).expect("removed");
    rig.manager.run_sealed();
    let unlocked = rig.unlock(&rig.manager.unlock_lines());
    assert_eq!(unlocked.code, 0, "the operators' key is for that: {unlocked:?}");
    rig.serves();
}

fn a_systemd_credential_unlocks() {
    let mut rig = Rig::new(&["--auto-unlock", "systemd-credential"]);
    let key = rig.manager.printed()["credential_unlock_key"].as_str().expect("a key").to_owned();
    assert_ne!(Some(key.as_str()), rig.manager.printed()["unlock_key"].as_str());
    assert!(!rig.file("unlock.key").exists());
    rig.manager.run_sealed();
    rig.manager.process().wait_for_log("systemd gives this process no credentials");
    rig.manager.stop();

    let credentials = rig.area.directory("credentials");
    fs::write(credentials.join("secretfs-unlock-key"), format!("{key}\n")).expect("a credential");
    rig.manager.set_credentials(&credentials);
    rig.manager.run();
    rig.manager.stop();
    fs::write(credentials.join("secretfs-unlock-key"), stranger()).expect("a credential");
    rig.manager.run_sealed();
    rig.manager.stop();
}

fn only_its_user_may_speak_to_a_sealed_manager() {
    let mut rig = Rig::new(&[]);
    rig.manager.run_sealed();
    let socket = rig.file("unlock.sock");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(rig.manager.data())), (0o600, 0o700));
    // Were the modes of no use, it would still ask who that is.
    for path in [rig.area.path(), &rig.area.directory("hosts"), rig.manager.data(), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("changed");
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", SECRETFS])
        .args(["manager", "unlock", "--data-dir"])
        .arg(rig.manager.data());
    let key = rig.manager.unlock_lines();
    let refused = finish(&mut command, key.as_bytes(), &rig.logs());
    assert_eq!(refused.code, 5, "{refused:?}");
    rig.manager.process().wait_for_log("another user wanted to unlock");
    assert_eq!(rig.unlock(&key).code, 0);
}
