//! What a join token gives is seen by operators, and taken back.

use http::{Method, StatusCode};
use secretfs_wire::api::{
    CreateToken, CreatedToken, ErrorCode, JoinRequest, Joined, RemovedOperator, Token, TokenState,
};
use secretfs_wire::audit::{Event, Outcome};
use secretfs_wire::{Action, Grant, JoinToken, Role, TokenId};

use crate::ca::{PeerCertificate, Subject};
use crate::testing::{Answer, TestManager, join_request};

const TOKENS: &str = "/v1/environments/prod/tokens";

async fn create(manager: &TestManager, by: &PeerCertificate, path: &str) -> (TokenId, JoinToken) {
    let labels = "role=web".parse().expect("labels");
    let asked = CreateToken { ttl_seconds: 60, approval: true, labels, name: None };
    let created: CreatedToken = manager.post(Some(by), path, &asked).await.json();
    (created.id, created.token.parse().expect("a token"))
}

async fn remove(manager: &TestManager, id: &str) -> Answer {
    manager.call(&TestManager::operator(), Method::DELETE, &format!("{TOKENS}/{id}"), "").await
}

async fn join(manager: &TestManager, token: &JoinToken, name: &str) -> Answer {
    manager.post(None, "/v1/join", &join_request(token, name)).await
}

async fn list(manager: &TestManager) -> Vec<Token> {
    manager.call(&TestManager::operator(), Method::GET, TOKENS, "").await.json()
}

/// The last record of an action.
async fn recorded(manager: &TestManager, action: Action) -> Event {
    let events = manager.records().await;
    events.into_iter().rfind(|event| event.action == action).expect("a record")
}

#[tokio::test]
async fn a_withdrawn_token_joins_nobody() {
    let manager = TestManager::start().await;
    let (id, token) = create(&manager, &TestManager::operator(), TOKENS).await;
    let listed = list(&manager).await;
    let Token { state, approval, labels, created_by, .. } = &listed[0];
    assert_eq!((listed[0].id, *state, *approval), (id, TokenState::Open, true));
    assert_eq!(labels.to_string(), "role=web");
    assert_eq!(created_by.as_ref().map(|name| name.as_str()), Some("admin"));

    assert_eq!(remove(&manager, &id.to_string()).await.status, StatusCode::NO_CONTENT);
    let event = recorded(&manager, Action::TokenRemove).await;
    assert_eq!((event.outcome, event.reason), (Outcome::Done, Some(format!("token {id}"))));
    assert_eq!(list(&manager).await, []);
    assert_eq!(join(&manager, &token, "web-1").await.error().code, ErrorCode::Unauthenticated);
    assert_eq!(remove(&manager, &id.to_string()).await.error().code, ErrorCode::NotFound);
    assert_eq!(remove(&manager, "nonsense").await.error().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn whoever_withdraws_a_token_too_late_hears_who_has_joined() {
    let manager = TestManager::start().await;
    let (id, token) = create(&manager, &TestManager::operator(), TOKENS).await;
    assert_eq!(join(&manager, &token, "web-1").await.status, StatusCode::CREATED);
    let refused = remove(&manager, &id.to_string()).await.error();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert_eq!(refused.message, format!("node web-1 has joined with token {id}"));
}

#[tokio::test]
async fn an_operator_who_is_removed_leaves_no_token_behind() {
    let manager = TestManager::start().await;
    let leaver = manager.operator_with(vec![Grant { role: Role::NodeAdmin, environment: None }]).await;
    let (_, here) = create(&manager, &leaver, TOKENS).await;
    let (_, there) = create(&manager, &leaver, "/v1/environments/dev/tokens").await;
    let (kept, others) = create(&manager, &TestManager::operator(), TOKENS).await;

    let Subject::Operator { name, .. } = &leaver.subject else { panic!("an operator") };
    let path = format!("/v1/operators/{name}");
    let removed = manager.call(&TestManager::operator(), Method::DELETE, &path, "").await;
    assert_eq!(removed.json::<RemovedOperator>().withdrawn_tokens, 2);
    let event = recorded(&manager, Action::OperatorRemove).await;
    assert_eq!(event.reason.as_deref(), Some("with 2 open join tokens"));
    for token in [here, there] {
        assert_eq!(join(&manager, &token, "web-1").await.error().code, ErrorCode::Unauthenticated);
    }
    assert_eq!(list(&manager).await.iter().map(|token| token.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(join(&manager, &others, "web-1").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_token_is_made_by_somebody_who_is_there() {
    let manager = TestManager::start().await;
    let asked = CreateToken { ttl_seconds: 60, approval: false, labels: Default::default(), name: None };
    let prod = "prod".parse().expect("a name");
    // As whoever is removed while the call is under way.
    let made = manager.app.create_token(&prod, asked, "leaver".parse().expect("a name")).await;
    assert_eq!(made.err().map(|error| error.code()), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_token_for_a_name_joins_no_other_node() {
    let manager = TestManager::start().await;
    let asked = CreateToken {
        ttl_seconds: 60,
        approval: false,
        labels: Default::default(),
        name: "db-1".parse().ok(),
    };
    let created: CreatedToken = manager.post(Some(&TestManager::operator()), TOKENS, &asked).await.json();
    let token: JoinToken = created.token.parse().expect("a token");
    let event = recorded(&manager, Action::TokenCreate).await;
    assert_eq!(
        event.reason,
        Some(format!("token {}, for 60 seconds, without approval, name db-1", created.id))
    );
    assert_eq!(event.object.node, asked.name);
    assert_eq!(list(&manager).await[0].name, asked.name);

    let refused = join(&manager, &token, "test-1").await;
    assert_eq!((refused.status, refused.error().code), (StatusCode::FORBIDDEN, ErrorCode::Denied));
    assert_eq!(refused.error().message, "this token is for node db-1, and for no other");
    let event = recorded(&manager, Action::NodeJoin).await;
    assert_eq!((event.outcome, event.object.node), (Outcome::Denied, "test-1".parse().ok()));
    assert_eq!(event.environment, "prod".parse().ok());
    assert_eq!(event.reason, Some(format!("denied: token {} for db-1", created.id)));

    // A host that asks for no name gets this one, whatever it is called.
    let request =
        JoinRequest { name: None, fallback_name: "host".parse().ok(), ..join_request(&token, "host") };
    let joined = manager.post(None, "/v1/join", &request).await;
    assert_eq!(joined.json::<Joined>().name, asked.name.expect("a name"), "it is not used up");
}

#[tokio::test]
async fn a_host_says_its_name_where_the_token_does_not() {
    let manager = TestManager::start().await;
    for (name, fallback_name, joined) in
        [(Some("asked"), Some("host"), Some("asked")), (None, Some("host"), Some("host")), (None, None, None)]
    {
        let (_, token) = create(&manager, &TestManager::operator(), TOKENS).await;
        let parse = |name: Option<&str>| name.map(|name| name.parse().expect("a name"));
        let request = JoinRequest {
            name: parse(name),
            fallback_name: parse(fallback_name),
            ..join_request(&token, "any")
        };
        let answer = manager.post(None, "/v1/join", &request).await;
        match joined {
            Some(joined) => assert_eq!(answer.json::<Joined>().name.as_str(), joined),
            None => assert_eq!(answer.error().code, ErrorCode::Invalid),
        }
    }
}
