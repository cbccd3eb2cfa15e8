//! Whatever an operator asks, no answer holds a value, a part of it, its length or a digest of it.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use jiff::{SignedDuration, Timestamp};
use secretfs_wire::TokenId;
use secretfs_wire::api::Rotated;
use serde_json::{Value, json};

use crate::store::NewToken;
use crate::testing::{Answer, TestManager, certificate_request, read};

/// A number that no count, time or mode is.
const LENGTH: usize = 7919;
/// Of a join token that nobody has.
const TOKEN: [u8; 32] = [0x5f; 32];

/// What a secret or a key could be recognised by.
struct Canary {
    value: Vec<u8>,
    traces: Vec<(String, Vec<u8>)>,
}

impl Canary {
    fn new(value: Vec<u8>) -> Self {
        let mut traces = Vec::new();
        let mut add = |name: &str, bytes: &[u8]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            for (form, text) in [
                ("", bytes.to_vec()),
                (" in hexadecimal", hex.clone().into_bytes()),
                (" in HEXADECIMAL", hex.to_uppercase().into_bytes()),
                (" in base64", STANDARD.encode(bytes).trim_end_matches('=').as_bytes().to_vec()),
                (" in URL-safe base64", URL_SAFE.encode(bytes).trim_end_matches('=').as_bytes().to_vec()),
            ] {
                traces.push((format!("{name}{form}"), text));
            }
        };
        // Whole groups of three, since base64 of more would look different.
        add("its begin", &value[..6]);
        add("its end", &value[value.len() - 6..]);
        for (name, algorithm) in [
            ("SHA-1", &digest::SHA1_FOR_LEGACY_USE_ONLY),
            ("SHA-224", &digest::SHA224),
            ("SHA-256", &digest::SHA256),
            ("SHA-384", &digest::SHA384),
            ("SHA-512", &digest::SHA512),
            ("SHA3-256", &digest::SHA3_256),
        ] {
            add(name, &digest::digest(algorithm, &value).as_ref()[..6]);
        }
        Self { value, traces }
    }

    fn traces_in(&self, text: &[u8]) -> Vec<String> {
        let is_in = |trace: &Vec<u8>| text.windows(trace.len()).any(|window| window == trace.as_slice());
        let found = self.traces.iter().filter(|(_, trace)| is_in(trace));
        let mut found: Vec<_> = found.map(|(name, _)| name.clone()).collect();
        // That a key has 32 bytes is known to everybody.
        if self.value.len() == LENGTH && numbers(text).contains(&LENGTH.to_string()) {
            found.push("its length".to_owned());
        }
        found
    }
}

/// Every number of a text, and not of longer words such as times and ids.
fn numbers(text: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(text);
    let words = text.split(|character: char| !(character.is_alphanumeric() || ".-".contains(character)));
    words
        .filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_hunter_finds_what_is_planted() {
    let canary = Canary::new([&b"begin-"[..], &[b'x'; LENGTH - 12], b"-ended"].concat());
    assert_eq!(canary.traces_in(br#"{"changed":"2026-01-01T00:00:00.797919Z","id":"07919"}"#), [""; 0]);
    for (planted, name) in [
        (br#"{"size":7919}"#.to_vec(), "its length"),
        (b"7919 bytes".to_vec(), "its length"),
        (canary.value[..10].to_vec(), "its begin"),
        (STANDARD.encode(&canary.value).into_bytes(), "its begin in base64"),
        (digest::digest(&digest::SHA256, &canary.value).as_ref().to_vec(), "SHA-256"),
    ] {
        assert!(canary.traces_in(&planted).iter().any(|found| found == name), "{name}");
    }
}

#[tokio::test]
async fn no_operator_call_answers_with_a_value_a_part_of_it_its_length_or_a_digest() {
    let manager = TestManager::start().await;
    manager.join("prod", "node-a", true).await;
    let token = NewToken {
        digest: TOKEN,
        approval: false,
        labels: Default::default(),
        name: None,
        created: Timestamp::now(),
        created_by: "admin".parse().expect("a name"),
        expires: Timestamp::now() + SignedDuration::from_hours(1),
    };
    manager.app.store.create_token(&"prod".parse().expect("a name"), token).await.expect("created");
    let canary = Canary::new([&b"canary"[..], &[b'%'; LENGTH - 12], b"yranac"].concat());
    let key = Canary::new(b"a-key-of-thirty-two-bytes-planted".to_vec()[..32].to_vec());
    let hunted = [&canary, &key];

    // In an order in which each call does something.
    let nothing = || Sent::Json(json!({}));
    let ttl = || Sent::Json(json!({ "ttl_seconds": 60 }));
    let roles = || Sent::Json(json!({ "roles": ["viewer"], "ttl_seconds": 60 }));
    let question = || {
        let secret = json!({ "secret": "secret" });
        Sent::Json(json!({ "action": "secret.rotate", "environment": "prod", "object": secret }))
    };
    let rows = vec![
        ("POST", "/v1/environments", Sent::Json(json!({ "name": "extra" }))),
        ("GET", "/v1/environments", nothing()),
        ("POST", "/v1/keys/{key}", Sent::Raw(&key)),
        ("POST", "/v1/environments/{environment}/secrets/{secret}", Sent::Raw(&canary)),
        ("POST", "/v1/environments/{environment}/secrets/{secret}/versions", Sent::Raw(&canary)),
        ("POST", "/v1/environments/{environment}/secrets/{secret}/rollback", nothing()),
        ("POST", "/v1/environments/{environment}/services/{service}", nothing()),
        (
            "POST",
            "/v1/environments/{environment}/services/{service}/attachments",
            Sent::Json(json!({ "secret": "secret" })),
        ),
        (
            "POST",
            "/v1/environments/{environment}/services/{service}/assignments",
            Sent::Json(json!({ "node": "node-a" })),
        ),
        (
            "PUT",
            "/v1/environments/{environment}/services/{service}/templates/{target}",
            Sent::Text("a = {{ secrets.secret }}"),
        ),
        ("GET", "/v1/environments/{environment}/services/{service}/templates/{target}", nothing()),
        ("GET", "/v1/environments/{environment}/services/{service}", nothing()),
        ("GET", "/v1/environments/{environment}/services", nothing()),
        ("GET", "/v1/environments/{environment}/secrets/{secret}", nothing()),
        ("GET", "/v1/environments/{environment}/secrets", nothing()),
        ("POST", "/v1/environments/{environment}/key/rotate", nothing()),
        ("POST", "/v1/environments/{environment}/key/rewrap", Sent::Json(json!({ "limit": 10 }))),
        ("POST", "/v1/environments/{environment}/key/retire", nothing()),
        (
            "POST",
            "/v1/environments/{environment}/key/migrate",
            Sent::Json(json!({ "to": "local", "key_name": "key" })),
        ),
        ("GET", "/v1/keys", nothing()),
        ("GET", "/v1/environments/{environment}/nodes", nothing()),
        ("GET", "/v1/environments/{environment}/nodes/{node}", nothing()),
        ("POST", "/v1/environments/{environment}/nodes/{node}/approve", nothing()),
        ("PATCH", "/v1/environments/{environment}/nodes/{node}/labels", nothing()),
        ("POST", "/v1/environments/{environment}/nodes/{node}/revoke", nothing()),
        ("DELETE", "/v1/environments/{environment}/nodes/{node}", nothing()),
        ("POST", "/v1/environments/{environment}/tokens", ttl()),
        ("GET", "/v1/environments/{environment}/tokens", nothing()),
        ("DELETE", "/v1/environments/{environment}/tokens/{token}", nothing()),
        ("POST", "/v1/environments/{environment}/operators/{operator}", roles()),
        ("POST", "/v1/environments/{environment}/operators/{operator}/enrolment", ttl()),
        ("DELETE", "/v1/environments/{environment}/operators/{operator}/enrolment", nothing()),
        ("PUT", "/v1/environments/{environment}/operators/{operator}/roles/{role}", nothing()),
        ("GET", "/v1/environments/{environment}/operators", nothing()),
        ("DELETE", "/v1/environments/{environment}/operators/{operator}/roles/{role}", nothing()),
        ("DELETE", "/v1/environments/{environment}/operators/{operator}", nothing()),
        ("POST", "/v1/operators/{operator}", roles()),
        ("POST", "/v1/operators/{operator}/enrolment", ttl()),
        ("DELETE", "/v1/operators/{operator}/enrolment", nothing()),
        ("PUT", "/v1/operators/{operator}/roles/{role}", nothing()),
        ("GET", "/v1/operators", nothing()),
        ("GET", "/v1/policies", nothing()),
        ("POST", "/v1/policies/explain", question()),
        ("POST", "/v1/policies/explain/{operator}", question()),
        ("DELETE", "/v1/operators/{operator}/roles/{role}", nothing()),
        ("DELETE", "/v1/operators/{operator}", nothing()),
        ("GET", "/v1/operator", nothing()),
        ("POST", "/v1/operator/renew", Sent::Json(json!({ "certificate_request": certificate_request() }))),
        ("POST", "/v1/audit/key/rotate", nothing()),
        ("GET", "/v1/audit", nothing()),
        ("GET", "/v1/audit/checkpoint", nothing()),
        ("GET", "/v1/environments/{environment}/audit", nothing()),
        ("GET", "/metrics", nothing()),
        ("GET", "/v1/sys/health", nothing()),
        ("GET", "/v1/sys/openapi.json", nothing()),
        ("DELETE", "/v1/environments/{environment}/services/{service}/templates/{target}", nothing()),
        ("DELETE", "/v1/environments/{environment}/services/{service}/attachments/{secret}", nothing()),
        ("DELETE", "/v1/environments/{environment}/services/{service}/assignments?node=node-a", nothing()),
        ("DELETE", "/v1/environments/{environment}/services/{service}", nothing()),
        ("DELETE", "/v1/environments/{environment}/secrets/{secret}", nothing()),
        ("DELETE", "/v1/environments/{environment}", nothing()),
    ];
    let called: BTreeSet<_> = rows
        .iter()
        .map(|(method, path, _)| format!("{method} {}", path.split('?').next().unwrap_or(path)))
        .collect();
    assert_eq!(called, operators_routes(&manager), "each route has a row, and each row a route");

    for (method, path, sent) in rows {
        let answer = call(&manager, method, path, &sent).await;
        assert!(answer.status.is_success(), "{method} {path} was to do something: {answer:?}");
        refuse_traces(&hunted, &format!("{method} {path}"), &answer);
    }
}

/// Refusals, too, say nothing of what was sent or what is there.
#[tokio::test]
async fn no_refusal_repeats_a_value() {
    let manager = TestManager::start().await;
    let canary = Canary::new([&b"canary"[..], &[b'%'; LENGTH - 12], b"yranac"].concat());
    let secret = "/v1/environments/{environment}/secrets/{secret}";
    let created = call(&manager, "POST", secret, &Sent::Raw(&canary)).await;
    assert_eq!(created.status, StatusCode::CREATED);
    for (method, path) in [
        ("POST", secret.to_owned()),
        ("POST", format!("{secret}?generate=20")),
        ("POST", format!("{secret}/versions?generate=20")),
        ("POST", format!("{secret}/rollback")),
        ("POST", "/v1/environments/absent/secrets/{secret}".to_owned()),
        ("POST", "/v1/environments/{environment}/secrets/absent/versions".to_owned()),
        ("POST", "/v1/keys/{key}".to_owned()),
        ("PUT", "/v1/environments/{environment}/services/{service}/templates/{target}".to_owned()),
        ("POST", "/v1/environments".to_owned()),
        ("POST", "/v1/operators/{operator}".to_owned()),
        ("POST", "/v1/login".to_owned()),
    ] {
        let answer = call(&manager, method, &path, &Sent::Raw(&canary)).await;
        assert!(!answer.status.is_success(), "{path}: {answer:?}");
        refuse_traces(&[&canary], &path, &answer);
    }
}

/// Who may rotate a secret must not learn by it whether they have guessed its value.
#[tokio::test]
async fn a_rotation_to_the_value_that_is_current_is_answered_as_any_other() {
    let manager = TestManager::start().await;
    let path = "/v1/environments/prod/secrets/db";
    let (first, other) = (b"correct horse".to_vec(), b"battery staple".to_vec());
    let put = async |path: &str, value: Vec<u8>| {
        manager.call(&TestManager::operator(), Method::POST, path, value).await
    };
    put(path, first.clone()).await;
    let mut answers = Vec::new();
    for value in [first.clone(), other, first] {
        let answer = put(&format!("{path}/versions"), value).await;
        let rotated: Rotated = answer.json();
        let mut shape: Value = answer.json();
        for counts_on in ["current", "versions", "changed"] {
            shape[counts_on] = Value::Null;
        }
        answers.push((answer.status, rotated.secret.current, shape));
    }
    let current: Vec<_> = answers.iter().map(|(_, current, _)| *current).collect();
    assert_eq!(current, [2, 3, 4]);
    let told: BTreeSet<_> = answers.iter().map(|(status, _, shape)| format!("{status} {shape}")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

enum Sent<'a> {
    Json(Value),
    Raw(&'a Canary),
    Text(&'static str),
}

async fn call(manager: &TestManager, method: &str, path: &str, sent: &Sent<'_>) -> Answer {
    let path = path.replace("{environment}", "prod").replace("{node}", "node-a").replace("{role}", "editor");
    let path = path.replace("{token}", &TokenId::of_digest(&TOKEN).to_string());
    let path = ["{secret}", "{service}", "{target}", "{operator}", "{key}"]
        .iter()
        .fold(path, |path, parameter| path.replace(parameter, parameter.trim_matches(['{', '}'])));
    let (media_type, body) = match sent {
        Sent::Json(_) if method == "GET" => ("", Body::empty()),
        Sent::Json(value) => ("application/json", Body::from(value.to_string())),
        Sent::Raw(canary) => ("application/json", Body::from(canary.value.clone())),
        Sent::Text(text) => ("text/plain", Body::from(*text)),
    };
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media_type).body(body);
    read(manager.send(Some(&TestManager::operator()), request.expect("a request")).await).await
}

fn refuse_traces(hunted: &[&Canary], what: &str, answer: &Answer) {
    for canary in hunted {
        assert_eq!(
            canary.traces_in(&answer.body),
            [""; 0],
            "{what}: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }
}

/// All routes but those that only nodes, and who has a token, may call.
fn operators_routes(manager: &TestManager) -> BTreeSet<String> {
    let document = serde_json::to_value(manager.document.as_ref()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let others = |path: &str| path.starts_with("/v1/node/") || ["/v1/join", "/v1/login"].contains(&path);
    paths
        .iter()
        .filter(|(path, _)| !others(path))
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("operations").keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}
