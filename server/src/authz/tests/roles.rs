//! The policies that ship with the manager: role by role.

use secretfs_wire::{Action, Role};

use super::table::{ANONYMOUS, EVERY_NODE, EVERY_OPERATOR, in_its_environment, in_no_environment, words};
use super::{ONLY_RECORDED, about, at, decide, node, operator};
use crate::authn::Identity;
use crate::authz::{Authorizer, Verdict};

/// The actions that somebody may do: in prod, or about what belongs to no environment.
fn allowed(authorizer: &Authorizer, identity: &Identity) -> Vec<&'static str> {
    let askable = Action::ALL.iter().filter(|action| !ONLY_RECORDED.contains(action));
    let mut allowed: Vec<_> = askable
        .filter(|action| decide(authorizer, identity, **action, &about(**action)).is_allowed())
        .map(|action| action.as_str())
        .collect();
    allowed.sort_unstable();
    allowed
}

fn sorted(mut words: Vec<&'static str>) -> Vec<&'static str> {
    words.sort_unstable();
    words.dedup();
    words
}

/// What every operator may, of what [`about`] asks for: not about others.
fn every_operator() -> Vec<&'static str> {
    words(&[EVERY_OPERATOR]).into_iter().filter(|word| *word != "policy.explain").collect()
}

#[test]
fn each_role_may_do_what_it_is_for_and_nothing_else() {
    let authorizer = Authorizer::open(None).expect("the built-in policies");
    for role in Role::ALL {
        let in_prod = operator(&[&format!("prod/{role}")]);
        let expected = sorted([every_operator(), in_its_environment(role)].concat());
        assert_eq!(allowed(&authorizer, &in_prod), expected, "{role} in prod");

        let in_dev = operator(&[&format!("dev/{role}")]);
        assert_eq!(allowed(&authorizer, &in_dev), sorted(every_operator()), "{role} in dev");

        let everywhere = operator(&[role.as_str()]);
        let expected = sorted([every_operator(), in_its_environment(role), in_no_environment(role)].concat());
        assert_eq!(allowed(&authorizer, &everywhere), expected, "{role} everywhere");
    }
    assert_eq!(allowed(&authorizer, &operator(&[])), sorted(every_operator()), "no role");
}

#[test]
fn roles_add_up_and_each_decision_names_its_policies() {
    let authorizer = Authorizer::open(None).expect("the built-in policies");
    let both = operator(&["prod/editor", "prod/granter", "dev/viewer"]);
    for (action, path, policies) in [
        (Action::SecretRotate, "environment/prod/secret/db", &["secretfs/editor"][..]),
        (Action::ServiceAttach, "environment/prod/service/web/secret/db", &["secretfs/granter"]),
        (Action::SecretList, "environment/prod", &["secretfs/editor", "secretfs/granter"]),
        (Action::SecretList, "environment/dev", &["secretfs/viewer"]),
        (Action::SecretRotate, "environment/dev/secret/db", &[]),
    ] {
        let decision = decide(&authorizer, &both, action, &at(path));
        assert_eq!(decision.policies, policies, "{action} {path}");
        assert_eq!(decision.is_allowed(), !policies.is_empty(), "{action} {path}");
    }
}

#[test]
fn a_node_and_a_stranger_may_do_their_own_and_nothing_else() {
    let authorizer = Authorizer::open(None).expect("the built-in policies");
    for environment in ["prod", "dev"] {
        let allowed = allowed(&authorizer, &node(environment, "web-1"));
        assert_eq!(allowed, sorted(words(&[EVERY_NODE])));
    }
    assert_eq!(allowed(&authorizer, &Identity::Anonymous), sorted(words(&[ANONYMOUS])));
    let verdict = |identity: &Identity, action| decide(&authorizer, identity, action, &about(action)).verdict;
    assert_eq!(verdict(&Identity::Anonymous, Action::SecretList), Verdict::Unauthenticated);
    assert_eq!(verdict(&node("prod", "web-1"), Action::SecretList), Verdict::WrongCaller("node"));
    assert_eq!(verdict(&operator(&["admin"]), Action::NodeFetch), Verdict::WrongCaller("operator"));
}

#[test]
fn an_operator_explains_their_own_and_others_explain_if_they_oversee() {
    let authorizer = Authorizer::open(None).expect("the built-in policies");
    let decide = |identity: &Identity, path| decide(&authorizer, identity, Action::PolicyExplain, &at(path));
    assert_eq!(decide(&operator(&[]), "").policies, ["secretfs/operator-self"]);
    assert!(!decide(&operator(&["prod/admin"]), "operator/bob").is_allowed());
    assert_eq!(decide(&operator(&["auditor"]), "operator/bob").policies, ["secretfs/auditor-everywhere"]);
}
