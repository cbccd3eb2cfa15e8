//! The organisation's own policies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secretfs_wire::Action;
use tempfile::TempDir;

use super::{at, decide, node, operator};
use crate::authz::own::OwnPolicies;
use crate::authz::{Authorizer, PolicyError};

const ROTATE: (Action, &str) = (Action::SecretRotate, "environment/prod/secret/db_password");
const ATTACH: (Action, &str) = (Action::ServiceAttach, "environment/prod/service/web/secret/db");

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

fn with(text: &str) -> Authorizer {
    Authorizer::open(Some(directory(&[("own.cedar", text)]).path())).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(directory: &Path) -> String {
    match Authorizer::open(Some(directory)) {
        Ok(_) => panic!("these policies are not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_forbid_wins_over_every_role() {
    let authorizer = with(
        r#"@id("acme/frozen") forbid (principal is Operator, action in Action::"edit", resource)
           when { resource.name like "db_*" };"#,
    );
    let decide = |action, path| decide(&authorizer, &operator(&["admin"]), action, &at(path));
    let denied = decide(ROTATE.0, ROTATE.1);
    assert!(!denied.is_allowed());
    assert_eq!(denied.policies, ["acme/frozen"]);
    assert!(decide(Action::SecretRotate, "environment/prod/secret/key").is_allowed());
    assert!(decide(ATTACH.0, ATTACH.1).is_allowed());
}

#[test]
fn who_rotates_may_not_attach() {
    let authorizer = with(
        r#"@id("acme/separation") forbid (principal is Operator, action in Action::"grant", resource)
           when { principal in resource.environment.editors };"#,
    );
    let may = |roles: &[&str], (action, path): (Action, &str)| {
        decide(&authorizer, &operator(roles), action, &at(path)).is_allowed()
    };
    assert!(may(&["prod/editor", "prod/granter"], ROTATE));
    assert!(!may(&["prod/editor", "prod/granter"], ATTACH));
    assert!(!may(&["editor", "prod/granter"], ATTACH), "an editor everywhere is one in prod");
    assert!(may(&["dev/editor", "prod/granter"], ATTACH), "and one in dev is none");
}

#[test]
fn a_permit_adds_to_the_roles_and_addresses_and_nodes_can_be_told_apart() {
    let authorizer = with(
        r#"@id("acme/rotation") permit (principal == Operator::"alice", action == Action::"secret.rotate",
             resource in Environment::"prod") when { context.address.isInRange(ip("192.0.2.0/24")) };
           @id("acme/nodes") forbid (principal is Node, action == Action::"node.fetch", resource)
             when { principal.environment.name == "prod" } unless { principal.name like "web-*" };"#,
    );
    assert!(decide(&authorizer, &operator(&[]), ROTATE.0, &at(ROTATE.1)).is_allowed());
    let elsewhere = "198.51.100.1".parse().expect("an address");
    let decision = authorizer.decide(&operator(&[]), ROTATE.0, &at(ROTATE.1), elsewhere);
    assert!(!decision.expect("decided").is_allowed());
    let fetch = |node| decide(&authorizer, &node, Action::NodeFetch, &at("")).is_allowed();
    assert!(fetch(node("prod", "web-1")) && fetch(node("dev", "db-1")) && !fetch(node("prod", "db-1")));
}

/// The engine passes over a policy that it cannot evaluate: dev is not among what a request in prod has.
#[test]
fn a_forbid_that_cannot_be_evaluated_forbids_and_a_permit_does_not_permit() {
    for (effect, decided_by) in [("forbid", "acme/broken"), ("permit", "secretfs/admin")] {
        let authorizer = with(&format!(
            r#"@id("acme/broken") {effect} (principal is Operator, action in Action::"edit", resource)
               when {{ principal in Environment::"dev".editors }};"#
        ));
        let decision = decide(&authorizer, &operator(&["admin"]), ROTATE.0, &at(ROTATE.1));
        assert_eq!(decision.is_allowed(), effect == "permit", "{decision:?}");
        assert_eq!(decision.policies, [decided_by]);
        assert!(decision.errors[0].contains("acme/broken"), "{decision:?}");
    }
}

#[test]
fn a_policy_that_is_wrong_is_refused_with_file_and_line() {
    const GOOD: &str = "@id(\"acme/good\")\npermit (principal is Operator, action, resource);\n\n";
    for (text, problem) in [
        ("permit (principal, action, resource)", "own.cedar:4: unexpected end of input"),
        ("@id(\"a\") permit (principal, action, resource) when {\n resource.colour == 1 };", "own.cedar:5: "),
        (
            "@id(\"a\") permit (principal is Operator, action == Action::\"secret.read\", resource);",
            "secret.read",
        ),
        ("@id(\"a\") permit (principal is Person, action, resource);", "Person"),
        ("@id(\"a\") forbid (principal is Node, action in Action::\"edit\", resource);", "own.cedar:4: "),
        ("permit (principal, action, resource);", "own.cedar:4: a policy has no @id"),
        (
            "@id(\"acme/good\") permit (principal, action, resource);",
            "two policies with the @id \"acme/good\"",
        ),
        ("@id(\"secretfs/x\") permit (principal, action, resource);", "secretfs/"),
        (
            "@id(\"a\") permit (principal == ?principal, action, resource);",
            "own.cedar:4: a policy with ?principal",
        ),
    ] {
        let error = refused(directory(&[("own.cedar", &format!("{GOOD}{text}"))]).path());
        assert!(error.contains(problem), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let twice = directory(&[("a.cedar", GOOD), ("b.cedar", GOOD)]);
    assert!(refused(twice.path()).contains("b.cedar: @id(\"acme/good\"): another file has it too"));
}

#[test]
fn a_directory_that_cannot_be_trusted_or_read_is_refused() {
    let absent = Path::new("/nonexistent/policies");
    assert!(refused(absent).contains("/nonexistent/policies: cannot be read"));
    let place = directory(&[("large.cedar", &" ".repeat(1024 * 1024 + 1))]);
    assert!(refused(place.path()).contains("larger than"));
    let place = directory(&[("open.cedar", "")]);
    let open = place.path().join("open.cedar");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).expect("changed");
    assert!(refused(place.path()).contains("open.cedar: can be written by everybody"));
    fs::remove_file(&open).expect("removed");
    fs::create_dir(&open).expect("a directory");
    assert!(refused(place.path()).contains("is not a file"));
    fs::remove_dir(&open).expect("removed");
    fs::write(place.path().join(".open.cedar"), "half a").expect("a file");
    fs::write(place.path().join("README"), "no policy").expect("a file");
    assert!(Authorizer::open(Some(place.path())).is_ok());
}

#[test]
fn a_wrong_set_is_refused_as_a_whole_and_the_old_one_stays() {
    const FORBID: &str = r#"@id("acme/forbid") forbid (principal, action in Action::"edit", resource);"#;
    let place = directory(&[("a.cedar", FORBID)]);
    let authorizer = Authorizer::open(Some(place.path())).expect("valid");
    let is_forbidden = || !decide(&authorizer, &operator(&["admin"]), ROTATE.0, &at(ROTATE.1)).is_allowed();
    let take = || authorizer.take(OwnPolicies::read(place.path()));
    assert!(is_forbidden());

    // The good half of a wrong set does not count: the forbid is gone from it.
    fs::write(place.path().join("a.cedar"), "").expect("written");
    fs::write(place.path().join("b.cedar"), "forbid (").expect("written");
    take();
    assert!(is_forbidden());
    assert!(authorizer.in_force().problem.expect("a problem").contains("b.cedar:1"));
    fs::remove_dir_all(place.path()).expect("removed");
    take();
    assert!(is_forbidden(), "a directory that is gone is no set without policies");

    fs::create_dir(place.path()).expect("a directory");
    take();
    assert!(!is_forbidden());
    assert_eq!(authorizer.in_force().problem, None);
}

#[tokio::test]
async fn a_change_of_the_directory_counts_soon() {
    let place = directory(&[]);
    let authorizer = Arc::new(Authorizer::open(Some(place.path())).expect("valid"));
    let following = tokio::spawn(Arc::clone(&authorizer).follow(place.path().to_owned()));
    let ids = || {
        let policies = authorizer.in_force().policies.into_iter();
        policies.filter(|policy| policy.file.is_some()).map(|policy| policy.id).collect::<Vec<_>>()
    };
    for (text, expected) in [
        (r#"@id("acme/one") forbid (principal, action in Action::"edit", resource);"#, &["acme/one"][..]),
        (r#"@id("acme/two") forbid (principal, action in Action::"edit", resource);"#, &["acme/two"]),
        ("", &[]),
    ] {
        fs::write(place.path().join("own.cedar"), text).expect("written");
        let counts = async {
            while ids() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), counts).await.expect("it counts soon");
    }
    following.abort();
}

#[test]
fn an_error_is_one_line_however_the_library_says_it() {
    let error = PolicyError::new("a.cedar", Some(3), "this\n  is\nwrong");
    assert_eq!(error.to_string(), "a.cedar:3: this is wrong");
}
