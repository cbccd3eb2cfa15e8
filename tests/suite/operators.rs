//! Operators with keys of their own: from the invitation to the removal.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::pki::Credential;
use crate::harness::process::Outcome;
use crate::harness::recorder::Recorder;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Operator, Site, deadline};

trials! {
    needs [Clock];
    an_operator_logs_in_acts_and_is_shut_out_at_the_next_request,
    an_operator_who_is_removed_leaves_no_join_token_behind,
    of_two_logins_with_one_token_one_wins,
    a_token_that_is_not_good_leaves_nothing_behind,
    a_server_of_another_authority_is_sent_nothing,
    a_login_that_is_good_is_not_overwritten_unawares,
    certificates_renew_themselves_and_one_that_has_ended_says_what_to_do,
    who_is_locked_out_comes_back_on_the_managers_host,
    a_sealed_manager_lets_nobody_in_without_its_key,
    a_token_is_in_no_file_and_no_log,
}

impl Site {
    /// Invites somebody; `options` are those of `operator add`.
    fn invite(&self, name: &str, options: &[&str]) -> String {
        let created = self.operator.json(&[&["operator", "add", name], options].concat());
        created["token"].as_str().unwrap_or_else(|| panic!("no token in {created}")).to_owned()
    }

    /// A user who has not logged in.
    fn user(&self, name: &str) -> Operator {
        let config = self.area().directory("users").join(name).join("config.toml");
        Operator::new(&config, None, self.logs())
    }

    fn login(&self, user: &Operator, token: &str, options: &[&str]) -> Outcome {
        let url = self.manager.url();
        user.run_with(&[&["login", &url, "--token", "-"], options].concat(), token.as_bytes())
    }

    /// A user who has logged in.
    pub(crate) fn logged_in(&self, name: &str, options: &[&str]) -> Operator {
        let user = self.user(name);
        let outcome = self.login(&user, &self.invite(name, options), &[]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        user
    }
}

/// The certificate and key of a user.
fn identity(user: &Operator) -> PathBuf {
    user.directory().join("operator.pem")
}

fn an_operator_logs_in_acts_and_is_shut_out_at_the_next_request() {
    let site = Site::start();
    let admin = site.manager.operator();
    admin.ok(&["env", "create", "dev"]);
    let alice = site.user("alice");
    let nobody = alice.run(&["env", "ls"]);
    assert_eq!(nobody.code, 2, "{nobody:?}");
    let token = site.invite("alice", &["--role", "editor", "--role", "viewer"]);
    let listed = &site.operator.json(&["operator", "ls"])[1];
    assert_eq!((&listed["name"], &listed["state"]), (&json!("alice"), &json!("invited")));
    let outcome = site.login(&alice, &token, &[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("editor in prod, viewer in prod"), "{}", outcome.stdout);

    // Her files are hers, and she works in the environment that her roles are in.
    let mode = |path: &Path| path.metadata().expect("a file").permissions().mode() & 0o7777;
    assert_eq!(mode(alice.directory()), 0o700);
    for file in ["ca.pem", "operator.pem", "config.toml"] {
        assert_eq!(mode(&alice.directory().join(file)), 0o600, "{file}");
    }
    alice.ok_with(&["secret", "create", "key", "-"], b"value");
    let shown = alice.json(&["whoami"]);
    let grants =
        json!([{ "role": "editor", "environment": "prod" }, { "role": "viewer", "environment": "prod" }]);
    assert_eq!((&shown["name"], &shown["grants"]), (&json!("alice"), &grants));
    assert!(alice.ok(&["whoami"]).contains("editor in prod"));

    let granted = site.operator.ok(&["operator", "grant", "alice", "--role", "node-admin"]);
    assert_eq!(granted, "alice editor in prod, node-admin in prod, viewer in prod\n");
    site.operator.ok(&["operator", "ungrant", "alice", "--role", "node-admin", "--role", "viewer"]);
    let elsewhere = site.operator.run(&["operator", "grant", "alice", "--role", "viewer", "-e", "dev"]);
    assert_eq!(elsewhere.code, 1, "whoever enrolled her in prod could have a role in dev: {elsewhere:?}");
    let anew = "secretfs operator enroll alice --all-environments";
    assert!(elsewhere.stderr.contains(anew), "{elsewhere:?}");
    let last = admin.run(&["operator", "rm", "admin", "--all-environments"]);
    assert_eq!(last.code, 1, "{last:?}");
    assert!(last.stderr.contains("the last one"), "{last:?}");

    // What counts everywhere is not for somebody to get by naming nothing.
    for command in [
        &["add", "bob", "--role", "admin"][..],
        &["grant", "alice", "--role", "admin"],
        &["ungrant", "alice", "--role", "admin"],
        &["rm", "alice"],
        &["enroll", "alice"],
    ] {
        let vague = admin.run(&[&["operator"], command].concat());
        assert_eq!(vague.code, 2, "{vague:?}");
        assert!(vague.stderr.contains("-e ENV") && vague.stderr.contains("--all-environments"), "{vague:?}");
    }
    assert_eq!(admin.json(&["operator", "ls"]).as_array().map(Vec::len), Some(2));
    let opened = site.operator.json(&["operator", "enroll", "alice"]);
    let listed = site.operator.ok(&["operator", "ls"]);
    assert!(listed.contains("active, enrolment open until ") && listed.contains("prod"), "{listed}");
    site.operator.ok(&["operator", "enroll", "alice", "--cancel"]);
    assert!(!site.operator.ok(&["operator", "ls"]).contains("enrolment open"));
    let withdrawn = site.login(&site.user("late"), opened["token"].as_str().expect("a token"), &[]);
    assert_eq!(withdrawn.code, 4, "{withdrawn:?}");

    let roots = certificates(&alice.directory().join("ca.pem"));
    let address = site.manager.address();
    let mut open =
        Connection::open(address, &roots, Some(Credential::of_operator(&alice))).expect("connected");
    assert_eq!(open.request("GET", "/v1/operator", "").expect("an answer").status, 200);
    assert_eq!(site.operator.ok(&["operator", "rm", "alice"]), "alice\n");
    assert_eq!(open.request("GET", "/v1/operator", "").expect("an answer").status, 401);
    assert_eq!(alice.run(&["secret", "ls"]).code, 4, "denied");
    // Nor is she let in because of a namesake.
    site.invite("alice", &["--role", "admin"]);
    assert_eq!(alice.run(&["secret", "ls"]).code, 4, "denied");
    assert_eq!(open.request("GET", "/v1/operator", "").expect("an answer").status, 401);
}

fn an_operator_who_is_removed_leaves_no_join_token_behind() {
    let site = Site::start();
    let leaver = site.logged_in("leaver", &["--role", "node-admin"]);
    let token = leaver.json(&["node", "token", "create"])["token"].as_str().expect("a token").to_owned();
    assert!(site.operator.ok(&["node", "token", "ls"]).contains("leaver"), "it says who has made it");
    let removed = site.operator.ok(&["operator", "rm", "leaver"]);
    assert_eq!(removed, "leaver, and 1 open join token of theirs\n");
    let outcome = site.host("web-1").join(&site.manager.url(), &token);
    assert_eq!(outcome.code, 4, "{outcome:?}");
}

fn of_two_logins_with_one_token_one_wins() {
    let site = Site::start();
    let token = site.invite("ci", &["--role", "editor"]);
    let users: Vec<_> = (0..4).map(|number| site.user(&format!("host-{number}"))).collect();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let logins: Vec<_> = users.iter().map(|user| scope.spawn(|| site.login(user, &token, &[]))).collect();
        logins.into_iter().map(|login| login.join().expect("no login panics")).collect()
    });
    let mut codes: Vec<_> = outcomes.iter().map(|outcome| outcome.code).collect();
    for (user, outcome) in users.iter().zip(&outcomes) {
        assert_eq!(identity(user).exists(), outcome.code == 0, "{outcome:?}");
        assert_eq!(user.run(&["whoami"]).code == 0, outcome.code == 0);
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 4, 4, 4], "{outcomes:?}");
}

fn a_token_that_is_not_good_leaves_nothing_behind() {
    let site = Site::start();
    let user = site.user("eve");
    let token = site.invite("eve", &["--role", "viewer", "--ttl", "1s"]);
    deadline::eventually("the token expires", || {
        site.operator.json(&["operator", "ls"])[1]["enrolment_expires"].is_null()
    });
    let join = site.token(&[]);
    for (bad, code) in [
        (token.as_str(), 4),
        (&join.replacen("sfj1", "sfo1", 1), 4),
        (&join, 2),
        ("", 2),
        ("sfo1", 2),
        (&token[..token.len() - 2], 2),
    ] {
        let outcome = site.login(&user, bad, &[]);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(bad.len() < 10 || !outcome.stderr.contains(bad), "a token is a credential");
        assert!(!identity(&user).exists());
    }
}

fn a_server_of_another_authority_is_sent_nothing() {
    let site = Site::start();
    let (user, token) = (site.user("alice"), site.invite("alice", &["--role", "viewer"]));
    let recorder = Recorder::start();
    let outcome = user.run_with(&["login", &recorder.server.url(), "--token", "-"], token.as_bytes());
    for recording in recorder.recordings() {
        assert!(!recording.handshake_done && recording.received.is_empty(), "{recording:?}");
    }
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert!(outcome.stderr.contains("pin"), "it says why: {}", outcome.stderr);
    // The token is still good, for it was not shown to anybody.
    assert_eq!(site.login(&user, &token, &[]).code, 0);
}

fn a_login_that_is_good_is_not_overwritten_unawares() {
    let site = Site::start();
    let alice = site.logged_in("alice", &["--role", "viewer"]);
    let before = fs::read(identity(&alice)).expect("credentials");
    let token = site.invite("bob", &["--role", "editor"]);
    let outcome = site.login(&alice, &token, &[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("operator alice") && outcome.stderr.contains("--force"), "{outcome:?}");
    assert_eq!(fs::read(identity(&alice)).expect("credentials"), before);
    // Nor under another configuration in the same place. The token was not used up by either.
    let other = Operator::new(&alice.directory().join("other.toml"), None, site.logs());
    assert_eq!(site.login(&other, &token, &[]).code, 1);
    assert_eq!(site.login(&alice, &token, &["--force"]).code, 0);
    assert_eq!(alice.json(&["whoami"])["name"], "bob");

    // Who has lost the key logs in anew, and whoever has found it is shut out.
    let (thief, lost) = (site.user("thief"), site.logged_in("carol", &["--role", "viewer"]));
    fs::create_dir_all(thief.directory()).expect("a directory");
    for file in ["ca.pem", "operator.pem", "config.toml"] {
        fs::copy(lost.directory().join(file), thief.directory().join(file)).expect("copied");
    }
    assert_eq!(thief.run(&["whoami"]).code, 0);
    let created = site.operator.json(&["operator", "enroll", "carol"]);
    let token = created["token"].as_str().expect("a token");
    assert_eq!(site.login(&lost, token, &["--force"]).code, 0);
    assert_eq!((lost.run(&["whoami"]).code, thief.run(&["whoami"]).code), (0, 4));
}

fn certificates_renew_themselves_and_one_that_has_ended_says_what_to_do() {
    let mut site = Site::start();
    let alice = site.logged_in("alice", &["--role", "viewer"]);
    let bob = site.logged_in("bob", &["--role", "viewer"]);
    let read = |user: &Operator| fs::read_to_string(identity(user)).expect("credentials");
    let (first, bobs) = (read(&alice), read(&bob));
    alice.ok(&["secret", "ls"]);
    assert_eq!(read(&alice), first, "not before half of its life is over");

    // Seven days are 168 hours.
    let at = |user: &Operator, off: &str, arguments: &[&str]| user.run_at(Some(off), arguments);
    site.manager.run_with_clock("+100h");
    let outcomes: Vec<_> = thread::scope(|scope| {
        let commands: Vec<_> =
            (0..6).map(|_| scope.spawn(|| at(&alice, "+100h", &["secret", "ls"]))).collect();
        commands.into_iter().map(|command| command.join().expect("no command panics")).collect()
    });
    assert!(outcomes.iter().all(|outcome| outcome.code == 0), "{outcomes:?}");
    let second = read(&alice);
    assert_ne!(second, first);
    let key = |text: &str| text.split_once("-----BEGIN PRIVATE KEY").expect("a key").1.to_owned();
    assert_ne!(key(&second), key(&first), "the key is new, too");
    let mode = identity(&alice).metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let log = site.manager.process().log();
    let renewals = log.lines().filter(|line| line.contains("/v1/operator/renew")).collect::<Vec<_>>();
    let hers = renewals.iter().filter(|line| line.contains("operator/alice")).count();
    assert_eq!(hers, 1, "{renewals:?}");
    assert_eq!(at(&alice, "+100h", &["secret", "ls"]).code, 0);

    // Who has not come in time, is told what to do, and can.
    site.manager.run_with_clock("+200h");
    assert_eq!(at(&alice, "+200h", &["whoami"]).code, 0, "it was renewed at 100 h");
    let late = at(&bob, "+200h", &["secret", "ls"]);
    assert_eq!(late.code, 4, "{late:?}");
    assert!(late.stderr.contains("secretfs operator enroll bob"), "{late:?}");
    assert_eq!(read(&bob), bobs);
    let enrolled = at(&site.operator, "+200h", &["operator", "enroll", "bob", "--json"]);
    let created: Value = serde_json::from_str(&enrolled.stdout).expect("JSON");
    let token = created["token"].as_str().expect("a token");
    let back = at(&bob, "+200h", &["login", &site.manager.url(), "--token", token]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(at(&bob, "+200h", &["secret", "ls"]).code, 0);
}

fn who_is_locked_out_comes_back_on_the_managers_host() {
    let mut site = Site::start();
    let busy = site.manager.command(&["enroll", "admin"], b"");
    assert_eq!(busy.code, 1, "a manager runs there: {busy:?}");
    site.manager.stop();
    let token = |outcome: Outcome| -> String {
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let printed: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        printed["token"].as_str().expect("a token").to_owned()
    };
    let admin = token(site.manager.command(&["enroll", "admin", "--json"], b""));
    let rescue = token(site.manager.command(&["enroll", "rescue", "--json"], b""));
    site.manager.run();
    let (back, new) = (site.user("back"), site.user("new"));
    assert_eq!(site.login(&new, &rescue, &[]).code, 0);
    assert_eq!(site.manager.operator().run(&["whoami"]).code, 0, "until the token is used");
    assert_eq!(site.login(&back, &admin, &[]).code, 0);
    assert_eq!(site.manager.operator().run(&["whoami"]).code, 4);
    for (user, name) in [(&back, "admin"), (&new, "rescue")] {
        let shown = user.json(&["whoami"]);
        assert_eq!((&shown["name"], &shown["grants"]), (&json!(name), &json!([{ "role": "admin" }])));
        user.ok(&["env", "create", name]);
    }
}

fn a_sealed_manager_lets_nobody_in_without_its_key() {
    let mut site = Site::sealed_by(&["--shares", "3", "--threshold", "2"]);
    site.manager.stop();
    let keys = site.manager.unlock_lines();
    for too_few in ["", keys.lines().next().expect("a share")] {
        let refused = site.manager.command(&["enroll", "rescue"], too_few.as_bytes());
        assert_eq!(refused.code, 1, "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
    let outcome = site.manager.command(&["enroll", "rescue", "--json"], keys.as_bytes());
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let printed: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    site.manager.run_sealed();
    assert_eq!(site.manager.command(&["unlock"], keys.as_bytes()).code, 0);
    let rescue = site.user("rescue");
    assert_eq!(site.login(&rescue, printed["token"].as_str().expect("a token"), &[]).code, 0);
    let names: BTreeSet<_> = rescue
        .json(&["operator", "ls"])
        .as_array()
        .expect("a list")
        .iter()
        .map(|operator| operator["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names, BTreeSet::from(["admin".to_owned(), "rescue".to_owned()]));
}

fn a_token_is_in_no_file_and_no_log() {
    let mut site = Site::start();
    let (user, token) = (site.user("alice"), site.invite("alice", &["--role", "viewer"]));
    let secret = token.split('.').nth(1).expect("a secret").to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(&secret).expect("base64");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let traces =
        [secret.clone().into_bytes(), bytes.clone(), hex.into_bytes(), STANDARD.encode(&bytes).into_bytes()];
    let has_any = |content: &[u8]| {
        traces.iter().any(|trace| content.windows(trace.len()).any(|window| window == trace.as_slice()))
    };
    // The one place where it is shown, so that the hunt is known to bite.
    let printed = files(site.logs().path());
    let printed: Vec<_> = printed.iter().filter(|path| has_any(&fs::read(path).expect("a file"))).collect();
    assert_eq!(printed.len(), 1, "{printed:?}");
    fs::remove_file(printed[0]).expect("what the operator has read");

    let elsewhere = user.run_with(&["login", "https://127.0.0.1:1", "--token", "-"], token.as_bytes());
    assert_eq!(elsewhere.code, 5, "{elsewhere:?}");
    for _ in 0..2 {
        site.login(&user, &token, &["--force"]);
    }
    user.ok(&["whoami"]);
    site.operator.ok(&["operator", "ls"]);
    let nowhere = |directory: &Path| {
        for path in files(directory) {
            assert!(!has_any(&fs::read(&path).expect("a file")), "{}", path.display());
        }
    };
    nowhere(site.area().path());
    site.manager.stop();
    nowhere(site.area().path());
}

/// All files in and below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if !kind.is_socket() {
            found.push(entry.path());
        }
    }
    found
}
