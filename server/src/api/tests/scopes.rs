//! What admins of single environments can do with operators, and what they cannot.

use std::fs;

use axum::body::Body;
use http::{Method, StatusCode};
use jiff::Timestamp;
use secretfs_wire::api::{CreatedEnrolment, ErrorCode, LoggedIn, LoginRequest, Operator};
use secretfs_wire::{EnrolmentToken, Grant, Role};
use serde_json::json;

use crate::ca::PeerCertificate;
use crate::testing::{Answer, TestManager, certificate, certificate_request};

/// The admins of two environments, and of all.
struct Admins {
    dev: PeerCertificate,
    prod: PeerCertificate,
    all: PeerCertificate,
}

impl Admins {
    async fn of(manager: &TestManager) -> Self {
        let admin = |name| vec![in_environment(Role::Admin, name)];
        Self {
            dev: manager.operator_with(admin("dev")).await,
            prod: manager.operator_with(admin("prod")).await,
            all: TestManager::operator(),
        }
    }
}

fn in_environment(role: Role, name: &str) -> Grant {
    Grant { role, environment: Some(name.parse().expect("a name")) }
}

async fn add(manager: &TestManager, by: &PeerCertificate, path: &str, roles: &[&str]) -> Answer {
    manager.post(Some(by), path, &json!({ "roles": roles, "ttl_seconds": 60 })).await
}

async fn enroll(manager: &TestManager, by: &PeerCertificate, operator: &str) -> Answer {
    manager.post(Some(by), &format!("{operator}/enrolment"), &json!({ "ttl_seconds": 60 })).await
}

async fn call(manager: &TestManager, by: &PeerCertificate, method: Method, path: &str) -> Answer {
    manager.call(by, method, path, Body::empty()).await
}

async fn grant(manager: &TestManager, by: &PeerCertificate, operator: &str, role: &str) -> Answer {
    call(manager, by, Method::PUT, &format!("{operator}/roles/{role}")).await
}

async fn use_token(manager: &TestManager, created: &Answer) -> Answer {
    let created: CreatedEnrolment = created.json();
    let token: EnrolmentToken = created.token.parse().expect("a token");
    let asked = LoginRequest {
        token: token.secret.expose_text().as_str().to_owned(),
        certificate_request: certificate_request(),
    };
    manager.post(None, "/v1/login", &asked).await
}

async fn log_in(manager: &TestManager, created: &Answer) -> PeerCertificate {
    certificate(&use_token(manager, created).await.json::<LoggedIn>().certificate)
}

async fn grants(manager: &TestManager, peer: &PeerCertificate) -> Vec<Grant> {
    call(manager, peer, Method::GET, "/v1/operator").await.json::<Operator>().grants
}

fn assert_conflict(answer: &Answer, hint: &str) {
    assert_eq!((answer.status, answer.error().code), (StatusCode::CONFLICT, ErrorCode::Conflict));
    assert!(answer.error().hint.expect("a hint").contains(hint), "{answer:?}");
}

const IN_DEV: &str = "/v1/environments/dev/operators";
const IN_PROD: &str = "/v1/environments/prod/operators";
const EVERYWHERE: &str = "/v1/operators";

/// Or the admin of dev, who can log in as alice, would have what the admin of prod gives her.
#[tokio::test]
async fn whom_one_environment_enrolled_can_have_roles_in_no_other() {
    let manager = TestManager::start().await;
    let admins = Admins::of(&manager).await;
    let [in_dev, in_prod, everywhere] = [IN_DEV, IN_PROD, EVERYWHERE].map(|at| format!("{at}/alice"));
    let alice = log_in(&manager, &add(&manager, &admins.dev, &in_dev, &["viewer"]).await).await;

    assert_conflict(&add(&manager, &admins.prod, &in_prod, &["editor"]).await, "operator grant");
    let anew = "secretfs operator enroll alice --all-environments";
    assert_conflict(&grant(&manager, &admins.prod, &in_prod, "editor").await, anew);
    assert_conflict(&grant(&manager, &admins.all, &everywhere, "viewer").await, anew);
    assert_eq!(grant(&manager, &admins.dev, &in_dev, "editor").await.status, StatusCode::OK);
    assert_eq!(grants(&manager, &alice).await.len(), 2);

    let created = enroll(&manager, &admins.all, &everywhere).await;
    assert_conflict(&grant(&manager, &admins.prod, &in_prod, "editor").await, anew);
    let anew = log_in(&manager, &created).await;
    assert_eq!(grant(&manager, &admins.prod, &in_prod, "editor").await.status, StatusCode::OK);
    assert_eq!(grants(&manager, &anew).await.len(), 3);
    assert_eq!(call(&manager, &alice, Method::GET, "/v1/operator").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn who_is_invited_by_two_environments_is_invited_by_all() {
    let manager = TestManager::start().await;
    let admins = Admins::of(&manager).await;
    let [in_dev, in_prod, everywhere] = [IN_DEV, IN_PROD, EVERYWHERE].map(|at| format!("{at}/bob"));
    let of_dev = add(&manager, &admins.dev, &in_dev, &["viewer"]).await;
    let anew = "secretfs operator enroll bob --all-environments";
    assert_conflict(&grant(&manager, &admins.prod, &in_prod, "editor").await, anew);
    let of_all = enroll(&manager, &admins.all, &everywhere).await;
    // Nobody has a key that could act with it.
    assert_eq!(grant(&manager, &admins.prod, &in_prod, "editor").await.status, StatusCode::OK);
    assert_eq!(use_token(&manager, &of_dev).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(grants(&manager, &log_in(&manager, &of_all).await).await.len(), 2);
}

#[tokio::test]
async fn who_was_enrolled_by_all_environments_is_enrolled_by_no_single_one() {
    let manager = TestManager::start().await;
    let admins = Admins::of(&manager).await;
    let [in_dev, in_prod, everywhere] = [IN_DEV, IN_PROD, EVERYWHERE].map(|at| format!("{at}/carol"));
    let created = add(&manager, &admins.all, &everywhere, &["viewer"]).await;
    assert_eq!(grant(&manager, &admins.dev, &in_dev, "editor").await.status, StatusCode::OK);
    assert_eq!(grant(&manager, &admins.prod, &in_prod, "editor").await.status, StatusCode::OK);
    for role in ["/v1/operators/carol/roles/viewer", "/v1/environments/prod/operators/carol/roles/editor"] {
        assert_eq!(call(&manager, &admins.all, Method::DELETE, role).await.status, StatusCode::OK);
    }
    // Nor when what is left is in one.
    assert_conflict(&enroll(&manager, &admins.dev, &in_dev).await, "--all-environments");
    // And no admin hinders another: what was made for her is good whatever she is given.
    assert_eq!(grants(&manager, &log_in(&manager, &created).await).await.len(), 1);
}

#[tokio::test]
async fn what_all_environments_have_begun_a_single_one_does_not_undo() {
    let manager = TestManager::start().await;
    let admins = Admins::of(&manager).await;
    let (in_dev, everywhere) = (format!("{IN_DEV}/dave"), format!("{EVERYWHERE}/dave"));
    log_in(&manager, &add(&manager, &admins.dev, &in_dev, &["viewer"]).await).await;
    assert_eq!(enroll(&manager, &admins.dev, &in_dev).await.status, StatusCode::CREATED);
    let of_all = enroll(&manager, &admins.all, &everywhere).await;
    let cancel = async |by: &PeerCertificate, operator: &str| {
        call(&manager, by, Method::DELETE, &format!("{operator}/enrolment")).await
    };
    assert_conflict(&enroll(&manager, &admins.dev, &in_dev).await, "--all-environments");
    assert_conflict(&cancel(&admins.dev, &in_dev).await, "--all-environments");
    log_in(&manager, &of_all).await;

    // What it has begun itself, it does.
    let in_dev = format!("{IN_DEV}/heidi");
    let created = add(&manager, &admins.dev, &in_dev, &["viewer"]).await;
    assert_eq!(cancel(&admins.dev, &in_dev).await.status, StatusCode::NO_CONTENT);
    assert_eq!(cancel(&admins.dev, &in_dev).await.status, StatusCode::NOT_FOUND);
    assert_eq!(use_token(&manager, &created).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn within_an_environment_somebody_is_removed_from_it() {
    let manager = TestManager::start().await;
    let admins = Admins::of(&manager).await;
    let both = vec![in_environment(Role::Editor, "dev"), in_environment(Role::Viewer, "prod")];
    let erin = manager.operator_with(both).await;
    let name = call(&manager, &erin, Method::GET, "/v1/operator").await.json::<Operator>().name;
    let in_dev = format!("{IN_DEV}/{name}");
    assert_eq!(call(&manager, &admins.dev, Method::DELETE, &in_dev).await.status, StatusCode::OK);
    assert_eq!(grants(&manager, &erin).await, [in_environment(Role::Viewer, "prod")]);
    assert_conflict(&call(&manager, &admins.dev, Method::DELETE, &in_dev).await, "--all-environments");
    let in_prod = format!("{IN_PROD}/{name}");
    assert_eq!(call(&manager, &admins.prod, Method::DELETE, &in_prod).await.status, StatusCode::OK);
    assert_eq!(grants(&manager, &erin).await, [], "it takes all environments to remove her as a whole");

    let in_dev = format!("{IN_DEV}/frank");
    let frank = log_in(&manager, &add(&manager, &admins.dev, &in_dev, &["viewer"]).await).await;
    let role = format!("{in_dev}/roles/viewer");
    assert_eq!(call(&manager, &admins.dev, Method::DELETE, &role).await.status, StatusCode::OK);
    let listed: Vec<Operator> = call(&manager, &admins.dev, Method::GET, IN_DEV).await.json();
    assert!(
        listed.iter().any(|operator| operator.name.as_str() == "frank"),
        "without a role, and still theirs"
    );
    assert_eq!(call(&manager, &admins.dev, Method::DELETE, &in_dev).await.status, StatusCode::OK);
    assert_eq!(call(&manager, &frank, Method::GET, "/v1/operator").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        add(&manager, &admins.prod, &format!("{IN_PROD}/frank"), &["viewer"]).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn an_operator_goes_with_the_environment_that_enrolled_them() {
    let manager = TestManager::start().await;
    let admins = Admins::of(&manager).await;
    let in_dev = format!("{IN_DEV}/grace");
    let grace = log_in(&manager, &add(&manager, &admins.dev, &in_dev, &["admin"]).await).await;
    let removed = call(&manager, &admins.all, Method::DELETE, "/v1/environments/dev").await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(call(&manager, &grace, Method::GET, "/v1/operator").await.status, StatusCode::UNAUTHORIZED);
}

/// Who is named so gets what the policy gives.
#[tokio::test]
async fn a_name_that_a_policy_gives_something_is_all_environments_to_give() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(
        directory.path().join("own.cedar"),
        r#"@id("acme/rotation") permit (principal == Operator::"rotation-job", action == Action::"secret.rotate",
             resource in Environment::"prod");
           @id("acme/trusted") forbid (principal is Operator, action in Action::"edit", resource in Environment::"dev")
           unless { ["admin", "x"].contains(principal.name) || [Operator::"trusted"].contains(principal) };"#,
    )
    .expect("a file");
    let manager = TestManager::start_with_policies(directory.path()).await;
    let admins = Admins::of(&manager).await;
    for name in ["rotation-job", "trusted"] {
        let refused = add(&manager, &admins.dev, &format!("{IN_DEV}/{name}"), &["viewer"]).await;
        assert_conflict(&refused, "--all-environments");
        assert!(refused.error().message.contains("acme/"), "{refused:?}");
        let other = add(&manager, &admins.dev, &format!("{IN_DEV}/{name}s"), &["viewer"]).await;
        assert_eq!(other.status, StatusCode::CREATED);
    }
    let nothing = add(&manager, &admins.dev, &format!("{IN_DEV}/nobody"), &[]).await;
    assert_eq!(nothing.error().code, ErrorCode::Invalid, "{nothing:?}");

    // It needs no role for what the policy gives.
    let job = add(&manager, &admins.all, &format!("{EVERYWHERE}/rotation-job"), &[]).await;
    let job = log_in(&manager, &job).await;
    let rotated = call(&manager, &job, Method::POST, "/v1/environments/prod/secrets/db/versions").await;
    assert_ne!(rotated.status, StatusCode::FORBIDDEN, "{rotated:?}");
    assert_eq!(
        grant(&manager, &admins.dev, &format!("{IN_DEV}/rotation-job"), "viewer").await.status,
        StatusCode::OK
    );
}

/// One who was added before there was the policy.
#[tokio::test]
async fn an_operator_whom_a_policy_names_is_enrolled_by_all_environments_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let manager = TestManager::start_with_policies(directory.path()).await;
    let admins = Admins::of(&manager).await;
    let in_dev = format!("{IN_DEV}/job");
    log_in(&manager, &add(&manager, &admins.dev, &in_dev, &["viewer"]).await).await;
    fs::write(
        directory.path().join("own.cedar"),
        r#"@id("acme/job") permit (principal == Operator::"job", action == Action::"key.list", resource);"#,
    )
    .expect("a file");
    let following =
        tokio::spawn(std::sync::Arc::clone(&manager.app.authorizer).follow(directory.path().to_owned()));
    let deadline = Timestamp::now() + std::time::Duration::from_secs(10);
    while manager.app.authorizer.in_force().policies.iter().all(|policy| policy.file.is_none()) {
        assert!(Timestamp::now() < deadline, "it counts soon");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    following.abort();
    assert_conflict(&enroll(&manager, &admins.dev, &in_dev).await, "--all-environments");
    assert_eq!(enroll(&manager, &admins.all, &format!("{EVERYWHERE}/job")).await.status, StatusCode::CREATED);
}
