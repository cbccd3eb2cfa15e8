//! Where tokens come from, how long they last and where they are never seen.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::*;
use crate::backends::faulty_proxy::Fault;
use crate::backends::openbao::AppRole;
use crate::keys::BackendFault;

/// Far beyond what it takes on two busy processors.
const PATIENCE: Duration = Duration::from_secs(30);

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn app_role(setup: &Setup, fields: &[(&str, &str)]) -> (AppRole, VaultLogin) {
    let admin = setup.server.admin();
    admin.enable_app_role("approle");
    let role = admin.create_role("approle", "manager", fields);
    let login = VaultLogin::AppRole {
        mount: "approle".to_owned(),
        role_id: role.role_id.clone(),
        secret_id_file: setup.file("secret-id", &role.secret_id),
    };
    (role, login)
}

#[tokio::test]
async fn a_token_file_is_read_again_when_its_token_has_ended() {
    let Some((setup, _)) = Setup::with_key() else { return };
    let admin = setup.server.admin();
    let options = TokenOptions { policies: &["minimal"], ttl: Some("1h"), ..TokenOptions::default() };
    let old = admin.create_token(&options);
    let keys = setup.keys(VaultLogin::File(setup.file("changing", &old.token)));
    wrap(&keys).await.expect("wrapped");
    admin.revoke_token(&old);
    let error = wrap(&keys).await.expect_err("revoked");
    let is_not_allowed = matches!(&error, KeyError::Backend { fault: BackendFault::NotAllowed(_), .. });
    assert!(is_not_allowed && error.to_string().contains("does not know this token any more"), "{error}");
    setup.file("changing", &token(&admin, "minimal"));
    wrap(&keys).await.expect("wrapped under the new token");
}

#[tokio::test]
async fn a_file_that_comes_late_is_waited_for() {
    let Some((setup, _)) = Setup::with_key() else { return };
    let path = setup.directory.path().join("late");
    let keys = setup.keys(VaultLogin::File(path.clone()));
    let error = wrap(&keys).await.expect_err("no file");
    assert!(error.is_transient() && error.to_string().contains("cannot read vault.token_file"), "{error}");
    std::fs::write(&path, "").expect("written");
    let error = wrap(&keys).await.expect_err("an empty file");
    assert!(error.is_transient() && error.to_string().contains("has no token"), "{error}");
    setup.file("late", &token(&setup.server.admin(), "minimal"));
    wrap(&keys).await.expect("wrapped");
}

#[tokio::test]
async fn an_app_role_logs_in_and_logs_in_again() {
    let Some((setup, _)) = Setup::with_key() else { return };
    let (role, login) = app_role(&setup, &[("token_policies", "minimal"), ("token_ttl", "1h")]);
    let keys = setup.keys(login);
    let wraps = (0..8).map(|_| wrap(&keys));
    futures::future::join_all(wraps).await.into_iter().collect::<Result<Vec<_>, _>>().expect("wrapped");
    assert_eq!(setup.proxy.count("approle/login"), 1, "all under one token");

    // All tokens of the role end, and it has another secret id.
    let admin = setup.server.admin();
    admin.delete_role("approle", "manager");
    admin.write("auth/approle/role/manager", &[("token_policies", "minimal"), ("role_id", &role.role_id)]);
    admin.write("sys/leases/revoke-force/auth/approle/login", &[]);
    let error = wrap(&keys).await.expect_err("the old secret id").to_string();
    assert!(error.contains("does not let the AppRole in (400): invalid role or secret ID"), "{error}");
    assert!(!error.contains(&role.secret_id) && !error.contains(&role.role_id), "{error}");
    setup.file("secret-id", &admin.create_secret_id("approle", "manager"));
    wrap(&keys).await.expect("logged in again");
}

#[tokio::test]
async fn a_role_without_the_policy_is_not_let_in_for_each_read() {
    let Some((setup, _)) = Setup::with_key() else { return };
    let (_, login) = app_role(&setup, &[("token_ttl", "1h")]);
    let keys = setup.keys(login);
    for _ in 0..5 {
        let error = wrap(&keys).await.expect_err("no policy").to_string();
        assert!(error.contains(r#"path "transit/encrypt/prod""#), "{error}");
    }
    assert_eq!(setup.proxy.count("approle/login"), 1);
}

#[tokio::test]
async fn a_token_is_renewed_at_two_thirds_of_its_lease() {
    let Some((setup, _)) = Setup::with_key() else { return };
    let admin = setup.server.admin();
    let renewable: &[(&str, &[&str])] =
        &[("auth/token/lookup-self", &["read"]), ("auth/token/renew-self", &["update"])];
    admin.allow("renewable", &[MINIMAL, renewable].concat());
    let options = TokenOptions { policies: &["renewable"], period: Some("6s"), ..TokenOptions::default() };
    let token = admin.create_token(&options);
    let begin = Instant::now();
    let keys = setup.keys(VaultLogin::File(setup.file("periodic", &token.token)));
    // One that fails is tried again.
    setup.proxy.inject_next_at("renew-self", 1, Fault::Sealed);
    let renewals = || setup.proxy.count("renew-self");
    eventually("it is renewed", || renewals() >= 1).await;
    // Leases are told in whole seconds.
    assert!(begin.elapsed() >= Duration::from_millis(3200), "not before its time: {:?}", begin.elapsed());
    eventually("it is renewed again", || begin.elapsed() > Duration::from_secs(10) && renewals() >= 3).await;
    wrap(&keys).await.expect("it lives longer than its first lease");
    assert!(renewals() <= 5, "{}", renewals());
}

#[tokio::test]
async fn a_role_is_let_in_anew_before_its_token_ends() {
    let Some((setup, _)) = Setup::with_key() else { return };
    // The policy does not let the token renew itself.
    let fields = [("token_policies", "minimal"), ("token_ttl", "3s"), ("token_no_default_policy", "true")];
    let (_, login) = app_role(&setup, &fields);
    let keys = setup.keys(login);
    eventually("three logins", || setup.proxy.count("approle/login") >= 3).await;
    let refused = || setup.proxy.count("/encrypt/");
    let before = refused();
    wrap(&keys).await.expect("wrapped");
    assert_eq!(refused(), before + 1, "with the first attempt");
}

#[tokio::test]
async fn nobody_renews_a_token_that_nobody_uses() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    wrap(&keys).await.expect("wrapped");
    let tokens = Arc::downgrade(&keys.tokens);
    drop(keys);
    eventually("the task has ended", || tokens.upgrade().is_none()).await;
    drop(setup);
}

/// What is logged by this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("unpoisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn tokens_and_secret_ids_are_in_no_error_and_no_log() {
    let Some((setup, _)) = Setup::with_key() else { return };
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let (role, login) = app_role(&setup, &[("token_policies", "minimal"), ("token_ttl", "1h")]);
    let file = setup.file("canary", &token(&setup.server.admin(), "minimal"));
    let token = std::fs::read_to_string(&file).expect("read").trim().to_owned();
    let mut errors = String::new();
    for login in [VaultLogin::File(file), login] {
        let config = VaultConfig { timeout: Duration::from_millis(300), ..setup.config(login) };
        errors.push_str(&format!("{config:?}"));
        let keys = VaultKeys::open(&config).expect("a backend");
        wrap(&keys).await.expect("wrapped");
        // Whoever answers repeats what it was sent.
        let echo: &'static str = Box::leak(format!(r#"{{"errors":["{token} {}"]}}"#, role.secret_id).into());
        for status in [400, 403, 404, 500] {
            setup.proxy.inject(Fault::Answer(status, echo));
            let error = wrap(&keys).await.expect_err("a fault");
            errors.push_str(&format!("{error} {error:?}\n"));
            setup.proxy.heal();
        }
    }
    let logged = String::from_utf8_lossy(&log.0.lock().expect("unpoisoned")).into_owned();
    assert!(logged.contains("connect"), "it sees the library's own words: {logged}");
    for canary in [&token, &role.secret_id] {
        assert!(!errors.contains(canary.as_str()), "{errors}");
        assert!(!logged.contains(canary.as_str()), "{logged}");
    }
}
