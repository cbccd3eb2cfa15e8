//! Policies without a manager.

use crate::authz::trial::{Expected, PolicyCases, PolicyTrial, builtin_policies, policy_schema};

fn cases(text: &str) -> PolicyCases {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_case_passes_if_the_answer_and_the_policy_are_those_that_are_expected() {
    let trial = PolicyTrial::open(None).expect("the built-in policies");
    let cases = cases(
        r#"
        [[case]]
        name = "an editor rotates"
        operator = "alice"
        grants = [{ role = "editor", environment = "prod" }]
        action = "secret.rotate"
        environment = "prod"
        object = { secret = "db_password" }
        expect = "allow"
        policy = "secretfs/editor"

        [[case]]
        operator = "alice"
        action = "secret.list"
        environment = "prod"
        expect = "allow"

        [[case]]
        operator = "alice"
        grants = [{ role = "admin" }]
        action = "secret.list"
        environment = "prod"
        expect = "allow"
        policy = "secretfs/editor"

        [[case]]
        node = { environment = "prod", name = "web-1" }
        action = "node.fetch"
        address = "10.0.0.1"
        expect = "allow"

        [[case]]
        action = "secret.list"
        expect = "deny"
        "#,
    );
    let outcomes: Vec<_> = cases.case.iter().map(|case| trial.ask(case)).collect();
    let passed: Vec<_> = outcomes.iter().map(|outcome| outcome.passed).collect();
    assert_eq!(passed, [true, false, false, true, false], "{outcomes:#?}");
    assert_eq!(outcomes[1].answered, Some(Expected::Deny));
    assert_eq!(outcomes[1].name, "operator/alice secret.list");
    assert_eq!(outcomes[2].policies, ["secretfs/admin"]);
    assert_eq!(outcomes[4].answered, None, "it names nobody who asks");
}

#[test]
fn what_ships_with_the_manager_can_be_read() {
    assert!(policy_schema().contains("entity Operator"));
    assert_eq!(builtin_policies().len(), 9);
    assert!(builtin_policies().iter().all(|(_, text)| text.starts_with("//") && text.contains("@id(")));
}

/// The documentation's examples are policies and cases.
#[test]
fn what_the_documentation_shows_is_valid() {
    let text = include_str!("../../../../docs/authorization.md");
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        match (line.strip_prefix("    "), line.is_empty()) {
            (Some(code), _) => blocks.last_mut().expect("one").extend([code, "\n"]),
            (None, true) => {}
            (None, false) => blocks.push(String::new()),
        }
    }
    let policies: Vec<_> = blocks.iter().filter(|block| block.contains("@id(")).collect();
    let cases_shown: Vec<_> = blocks.iter().filter(|block| block.contains("[[case]]")).collect();
    assert_eq!((policies.len(), cases_shown.len()), (4, 1), "{blocks:#?}");
    let directory = tempfile::tempdir().expect("a directory");
    for (number, policy) in policies.iter().enumerate() {
        std::fs::write(directory.path().join(format!("{number}.cedar")), policy).expect("a file");
    }
    let trial = PolicyTrial::open(Some(directory.path())).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(trial.own_policies(), 11);
    for case in cases(cases_shown[0]).case {
        let outcome = trial.ask(&case);
        assert!(outcome.passed, "{outcome:#?}");
    }
}
