//! Operators: their roles, how they get in, and how they are kept out.

use jiff::Timestamp;
use secretfs_wire::api::{Operator, OperatorState};
use secretfs_wire::{EnvironmentName, Grant, OperatorId, OperatorName, Role};

use super::{at, environment, name};
use crate::store::{NewEnrolment, NewOperator, Store, StoreError};

pub(super) async fn check(store: &dyn Store) {
    logins(store).await;
    roles(store).await;
    scopes(store).await;
    the_last_admin(store).await;
}

/// Somebody who can make join tokens.
pub(super) async fn add_maker(store: &dyn Store, text: &str) {
    let new = NewOperator {
        name: name(text),
        id: OperatorId::random(),
        scope: None,
        grants: Vec::new(),
        created: at(0),
        certificate_expires: None,
        enrolment: None,
    };
    store.add_operator(new).await.expect("added");
}

fn role(role: Role, environment: Option<&EnvironmentName>) -> Grant {
    Grant { role, environment: environment.cloned() }
}

fn token(byte: u8, scope: Option<&EnvironmentName>) -> NewEnrolment {
    NewEnrolment { digest: [byte; 32], scope: scope.cloned(), expires: at(100) }
}

async fn add(store: &dyn Store, text: &str, grants: &[Grant], enrolment: NewEnrolment) -> OperatorName {
    let new = NewOperator {
        name: name(text),
        id: OperatorId::random(),
        scope: enrolment.scope.clone(),
        grants: grants.to_vec(),
        created: at(0),
        certificate_expires: None,
        enrolment: Some(enrolment),
    };
    store.add_operator(new).await.expect("added");
    name(text)
}

async fn log_in(store: &dyn Store, byte: u8, expires: Timestamp) -> (OperatorId, Operator) {
    let id = OperatorId::random();
    (id, store.log_in(&[byte; 32], id, expires, at(1)).await.expect("logged in"))
}

async fn logins(store: &dyn Store) {
    let viewer = role(Role::Viewer, None);
    let alice = add(store, "alice", std::slice::from_ref(&viewer), token(1, None)).await;
    let invited = store.operator(&alice, at(1)).await.expect("it");
    assert_eq!((invited.state, invited.certificate_expires), (OperatorState::Invited, None));
    assert_eq!((invited.created, invited.enrolment_expires), (at(0), Some(at(100))));
    assert_eq!(store.operator_grants(&alice, None).await.expect("asked"), None, "no certificate is good yet");

    assert_eq!(store.enrolled(&[1; 32], at(1)).await.expect("good"), alice);
    for (digest, when) in [([9; 32], at(1)), ([1; 32], at(100))] {
        let refused = store.enrolled(&digest, when).await;
        assert!(matches!(refused, Err(StoreError::TokenRefused)), "{refused:?}");
        let refused = store.log_in(&digest, OperatorId::random(), at(50), when).await;
        assert!(matches!(refused, Err(StoreError::TokenRefused)), "{refused:?}");
    }

    // Of many at once one gets in, and its id is the one that is good.
    let ids: Vec<_> = (0..8).map(|_| OperatorId::random()).collect();
    let logins = ids.iter().map(|id| store.log_in(&[1; 32], *id, at(50), at(1)));
    let results: Vec<Result<Operator, StoreError>> = futures::future::join_all(logins).await;
    let won: Vec<_> = ids.iter().zip(&results).filter(|(_, result)| result.is_ok()).collect();
    let [(winner, Ok(active))] = won[..] else { panic!("{results:?}") };
    assert_eq!((active.state, active.enrolment_expires), (OperatorState::Active, None));
    for id in &ids {
        let grants = store.operator_grants(&alice, Some(*id)).await.expect("asked");
        assert_eq!(grants, (id == winner).then(|| vec![viewer.clone()]));
    }
    assert_eq!(store.operator(&alice, at(50)).await.expect("it").state, OperatorState::Expired);
    store.operator_renewed(&alice, Some(*winner), at(80)).await.expect("renewed");
    assert_eq!(store.operator(&alice, at(50)).await.expect("it").certificate_expires, Some(at(80)));
    let other = store.operator_renewed(&alice, Some(OperatorId::random()), at(90)).await;
    assert!(matches!(other, Err(StoreError::Missing { kind: "operator", .. })), "{other:?}");

    // A new token takes the place of an older one; whoever uses it shuts out who was in.
    store.enroll(&alice, token(2, None), at(2)).await.expect("enrolled");
    store.enroll(&alice, token(3, None), at(2)).await.expect("enrolled");
    assert!(matches!(store.enrolled(&[2; 32], at(2)).await, Err(StoreError::TokenRefused)));
    assert!(store.operator_grants(&alice, Some(*winner)).await.expect("asked").is_some(), "still");
    let (second, _) = log_in(store, 3, at(60)).await;
    assert_eq!(store.operator_grants(&alice, Some(*winner)).await.expect("asked"), None);

    let twice = NewOperator {
        name: alice.clone(),
        id: OperatorId::random(),
        scope: None,
        grants: vec![],
        created: at(0),
        certificate_expires: None,
        enrolment: None,
    };
    let twice = store.add_operator(twice).await;
    assert!(matches!(twice, Err(StoreError::Exists { kind: "operator", .. })), "{twice:?}");

    store.enroll(&alice, token(6, None), at(3)).await.expect("enrolled");
    store.cancel_enrolment(&alice, None, at(3)).await.expect("withdrawn");
    assert!(matches!(store.enrolled(&[6; 32], at(3)).await, Err(StoreError::TokenRefused)));
    let none = store.cancel_enrolment(&alice, None, at(3)).await;
    assert!(matches!(none, Err(StoreError::Missing { .. })), "{none:?}");
    store.enroll(&alice, token(4, None), at(3)).await.expect("enrolled");
    let late = store.cancel_enrolment(&alice, None, at(100)).await;
    assert!(matches!(late, Err(StoreError::Missing { .. })), "{late:?}");
    store.remove_operator(&alice, None, at(3)).await.expect("removed");
    assert_eq!(store.operator_grants(&alice, Some(second)).await.expect("asked"), None);
    assert!(matches!(store.enrolled(&[4; 32], at(3)).await, Err(StoreError::TokenRefused)));
    add(store, "alice", &[viewer], token(5, None)).await;
    for id in [None, Some(second), Some(*winner)] {
        assert_eq!(store.operator_grants(&alice, id).await.expect("asked"), None, "a namesake is another");
    }
    store.remove_operator(&alice, None, at(3)).await.expect("removed");
    let gone = store.remove_operator(&alice, None, at(3)).await;
    assert!(matches!(gone, Err(StoreError::Missing { kind: "operator", .. })), "{gone:?}");
}

async fn roles(store: &dyn Store) {
    let (here, there) = (environment(store, "roles-here").await, environment(store, "roles-there").await);
    let editor = role(Role::Editor, Some(&here));
    let bob = add(store, "bob", std::slice::from_ref(&editor), token(10, None)).await;
    let (id, _) = log_in(store, 10, at(50)).await;
    let granted = store.grant(&bob, &role(Role::Viewer, Some(&there)), at(2)).await.expect("granted");
    assert_eq!(granted.grants.len(), 2);
    let again = store.grant(&bob, &role(Role::Viewer, Some(&there)), at(2)).await.expect("is already");
    assert_eq!(again, granted);
    store.grant(&bob, &role(Role::Auditor, None), at(2)).await.expect("granted");
    store.grant(&bob, &role(Role::Auditor, None), at(2)).await.expect("is already");
    let grants = store.operator_grants(&bob, Some(id)).await.expect("asked").expect("bob");
    assert_eq!(grants, [role(Role::Auditor, None), editor, role(Role::Viewer, Some(&there))]);

    let listed = async |scope| -> Vec<usize> {
        let all = store.operators(scope, at(2)).await.expect("a list");
        assert!(all.is_sorted_by_key(|operator| operator.name.clone()));
        all.iter().filter(|operator| operator.name == bob).map(|operator| operator.grants.len()).collect()
    };
    assert_eq!((listed(None).await, listed(Some(&here)).await), (vec![3], vec![2]));
    store.ungrant(&bob, &role(Role::Auditor, None), at(2)).await.expect("taken");
    let elsewhere = environment(store, "roles-elsewhere").await;
    assert_eq!((listed(Some(&here)).await, listed(Some(&elsewhere)).await), (vec![1], vec![]));

    let absent = store.ungrant(&bob, &role(Role::Editor, None), at(2)).await;
    assert!(matches!(absent, Err(StoreError::Missing { kind: "role", .. })), "everywhere is not here");
    for missing in [
        store.grant(&bob, &role(Role::Viewer, Some(&name("no-such"))), at(2)).await,
        store.ungrant(&bob, &role(Role::Viewer, Some(&name("no-such"))), at(2)).await,
        store.grant(&name("nobody"), &role(Role::Viewer, None), at(2)).await,
    ] {
        assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
    }

    // With an environment go the roles in it. Who has none left is still known.
    store.remove_environment(&here).await.expect("removed");
    store.ungrant(&bob, &role(Role::Viewer, Some(&there)), at(2)).await.expect("taken");
    assert_eq!(store.operator_grants(&bob, Some(id)).await.expect("asked"), Some(vec![]));
    store.remove_operator(&bob, None, at(2)).await.expect("removed");
}

/// Who may decide in one environment says who those are whom it enrolled, and nobody else.
async fn scopes(store: &dyn Store) {
    let (here, there) = (environment(store, "scope-here").await, environment(store, "scope-there").await);
    let viewer = |environment| role(Role::Viewer, environment);
    let carol = add(store, "carol", &[viewer(Some(&here))], token(20, Some(&here))).await;
    let dave = add(store, "dave", &[viewer(Some(&there))], token(21, Some(&there))).await;
    let erin = add(store, "erin", &[viewer(Some(&here))], token(22, None)).await;
    let nobody = add(store, "nobody", &[], token(23, None)).await;
    let other = |result: &Result<(), StoreError>| matches!(result, Err(StoreError::OtherScope { .. }));
    for outside in [&dave, &erin, &nobody] {
        let refused = store.enroll(outside, token(24, Some(&here)), at(2)).await;
        assert!(other(&refused), "{outside}: {refused:?}");
    }
    // Of whom it has not enrolled it takes the roles, once.
    for (outside, has_roles) in [(&dave, false), (&erin, true), (&erin, false), (&nobody, false)] {
        let removed = store.remove_operator(outside, Some(&here), at(2)).await.map(drop);
        assert_eq!(other(&removed), !has_roles, "{outside}: {removed:?}");
    }
    let listed = store.operators(Some(&here), at(2)).await.expect("a list");
    assert_eq!(listed.iter().filter(|operator| operator.name == erin).count(), 0);

    store.enroll(&carol, token(25, Some(&here)), at(2)).await.expect("enrolled");
    let (carols, active) = log_in(store, 25, at(50)).await;
    assert_eq!(active.scope.as_ref(), Some(&here));
    store.grant(&carol, &role(Role::Editor, Some(&here)), at(2)).await.expect("granted");
    let stays_here = async || {
        for outside in [viewer(Some(&there)), viewer(None)] {
            let refused = store.grant(&carol, &outside, at(2)).await;
            assert!(matches!(refused, Err(StoreError::RoleOutsideScope { .. })), "{refused:?}");
        }
    };
    stays_here().await;
    store.enroll(&carol, token(26, None), at(2)).await.expect("by who may decide everywhere");
    stays_here().await;
    assert!(other(&store.enroll(&carol, token(27, Some(&here)), at(2)).await), "a wider token is out");
    assert!(other(&store.cancel_enrolment(&carol, Some(&here), at(2)).await), "nor is it withdrawn");
    log_in(store, 26, at(50)).await;
    assert_eq!(store.operator(&carol, at(2)).await.expect("it").scope, None);
    store.grant(&carol, &viewer(Some(&there)), at(2)).await.expect("granted");
    assert!(store.operator_grants(&carol, Some(carols)).await.expect("asked").is_none());

    // As whom nobody has logged in, nobody can act.
    store.enroll(&dave, token(28, None), at(2)).await.expect("by who may decide everywhere");
    store.grant(&dave, &viewer(Some(&here)), at(2)).await.expect("granted");
    assert!(store.enrolled(&[28; 32], at(2)).await.is_ok(), "a role more makes a token no worse");

    // Who was enrolled there goes with an environment.
    let gone = environment(store, "scope-gone").await;
    let grace = add(store, "grace", &[role(Role::Admin, Some(&gone))], token(41, Some(&gone))).await;
    store.grant(&carol, &viewer(Some(&gone)), at(2)).await.expect("granted");
    store.remove_environment(&gone).await.expect("removed");
    assert!(matches!(store.operator(&grace, at(2)).await, Err(StoreError::Missing { .. })));
    assert_eq!(store.operator(&carol, at(2)).await.expect("it").grants.len(), 3);
    for who in [carol, dave, erin, nobody] {
        store.remove_operator(&who, None, at(2)).await.expect("removed");
    }
}

async fn the_last_admin(store: &dyn Store) {
    let admin = role(Role::Admin, None);
    let root = add(store, "root", std::slice::from_ref(&admin), token(30, None)).await;
    let (id, _) = log_in(store, 30, at(50)).await;
    let invited = add(store, "invited", std::slice::from_ref(&admin), token(31, None)).await;
    let expired = add(store, "expired", std::slice::from_ref(&admin), token(32, None)).await;
    log_in(store, 32, at(2)).await;
    let prod = environment(store, "last-admin").await;
    let elsewhere = add(store, "elsewhere", &[role(Role::Admin, Some(&prod))], token(33, None)).await;
    log_in(store, 33, at(50)).await;

    let stays = async || {
        let taken = store.ungrant(&root, &admin, at(3)).await.map(drop);
        for refused in [store.remove_operator(&root, None, at(3)).await.map(drop), taken] {
            assert!(matches!(refused, Err(StoreError::LastAdmin { .. })), "{refused:?}");
        }
        let grants = store.operator_grants(&root, Some(id)).await.expect("asked");
        assert_eq!(grants, Some(vec![admin.clone()]));
    };
    stays().await;
    for who in [&invited, &expired] {
        store.remove_operator(who, None, at(3)).await.expect("somebody is left");
    }
    stays().await;
    store.remove_operator(&elsewhere, None, at(3)).await.expect("not one of everything");

    // Recovery makes one, or makes one of somebody.
    store.recover(&name("rescue"), token(34, None), at(3)).await.expect("recovered");
    log_in(store, 34, at(50)).await;
    store.ungrant(&root, &admin, at(3)).await.expect("somebody is left");
    store.recover(&root, token(35, None), at(3)).await.expect("recovered");
    let again = store.operator(&root, at(3)).await.expect("it");
    assert_eq!((again.grants, again.enrolment_expires), (vec![admin], Some(at(100))));
    store.remove_operator(&root, None, at(3)).await.expect("somebody is left");

    // A key that one environment answers for does not administer everything.
    let viewer = role(Role::Viewer, Some(&prod));
    let frank = add(store, "frank", &[viewer], token(36, Some(&prod))).await;
    let (id, _) = log_in(store, 36, at(50)).await;
    store.recover(&frank, token(37, None), at(3)).await.expect("recovered");
    assert!(store.operator_grants(&frank, Some(id)).await.expect("asked").is_none());
    let (id, back) = log_in(store, 37, at(50)).await;
    assert_eq!((back.scope, back.grants.len()), (None, 2));
    assert!(store.operator_grants(&frank, Some(id)).await.expect("asked").is_some());
    store.remove_operator(&frank, None, at(3)).await.expect("somebody is left");
}
