//! The services and the faults are what they are said to be.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, client};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::faulty_proxy::{Fault, FaultyProxy, Seen};
use super::openbao::{OpenBao, TokenOptions};
use super::requirement::available;
use super::softhsm::{self, CONFIGURATION_VARIABLE};

/// Asks a server without TLS; its status and answer, or how the connection broke.
async fn post(
    address: SocketAddr,
    path: &str,
    token: &str,
    body: &Value,
) -> Result<(StatusCode, Value), hyper::Error> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let request = Request::post(path).header("host", "bao").header("x-vault-token", token);
    let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// How a connection broke.
fn cause(error: &hyper::Error) -> Option<ErrorKind> {
    error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

const ENCRYPT: &str = "/v1/transit/encrypt/prod";

/// A server with a key, and a token that may encrypt with it and nothing else.
fn with_key() -> Option<(OpenBao, String)> {
    let server = available(OpenBao::start())?;
    let admin = server.admin();
    admin.enable_transit("transit");
    admin.create_key("transit", "prod");
    admin.allow("encrypt", &[("transit/encrypt/prod", &["update"])]);
    let options = TokenOptions { policies: &["encrypt"], ttl: Some("1h"), ..TokenOptions::default() };
    let token = admin.create_token(&options).token;
    Some((server, token))
}

#[tokio::test]
async fn a_token_may_do_what_its_policy_says_until_it_is_revoked() {
    let Some((server, _)) = with_key() else { return };
    let admin = server.admin();
    let options = TokenOptions { policies: &["encrypt"], period: Some("50m"), ..TokenOptions::default() };
    let token = admin.create_token(&options);
    assert_eq!(admin.look_up_token(&token)["policies"], json!(["encrypt"]));
    assert_eq!(admin.look_up_token(&token)["period"], 3000);
    let body = json!({ "plaintext": "a2V5" });
    let (status, answer) = post(server.address(), ENCRYPT, &token.token, &body).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["data"]["ciphertext"].as_str().unwrap().starts_with("vault:v1:"), "{answer}");
    admin.rotate_key("transit", "prod");
    let (_, answer) = post(server.address(), ENCRYPT, &token.token, &body).await.unwrap();
    assert!(answer["data"]["ciphertext"].as_str().unwrap().starts_with("vault:v2:"), "{answer}");
    let (status, _) = post(server.address(), "/v1/transit/decrypt/prod", &token.token, &body).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    admin.revoke_token(&token);
    let (status, _) = post(server.address(), ENCRYPT, &token.token, &body).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_sealed_server_answers_503_and_keeps_its_keys() {
    let Some((server, token)) = with_key() else { return };
    let body = json!({ "plaintext": "a2V5" });
    server.seal();
    let (status, _) = post(server.address(), ENCRYPT, &token, &body).await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    server.unseal();
    let (status, answer) = post(server.address(), ENCRYPT, &token, &body).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn an_app_role_logs_in_and_a_namespace_has_its_own_keys() {
    let Some((server, _)) = with_key() else { return };
    let team = server.create_namespace("team");
    team.enable_app_role("approle");
    let role = team.create_role("approle", "manager", &[("token_ttl", "30s")]);
    let body = json!({ "role_id": role.role_id, "secret_id": role.secret_id });
    let path = "/v1/team/auth/approle/login";
    let (status, answer) = post(server.address(), path, "", &body).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["auth"]["lease_duration"], 30);
    assert_ne!(team.create_secret_id("approle", "manager"), role.secret_id);
    team.delete_role("approle", "manager");
    let (status, _) = post(server.address(), path, "", &body).await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(team.read("sys/mounts")["data"].get("transit/").is_none());
    server.admin().delete_key("transit", "prod");
}

#[tokio::test]
async fn a_proxy_fails_as_often_as_it_is_told_and_counts() {
    let Some((server, token)) = with_key() else { return };
    let proxy = FaultyProxy::before(&server);
    let body = json!({ "plaintext": "a2V5" });
    let ask = || post(proxy.address(), ENCRYPT, &token, &body);
    assert_eq!(ask().await.unwrap().0, StatusCode::OK);

    proxy.inject_next_at("decrypt", 1, Fault::Reset);
    proxy.inject_next(1, Fault::TooManyRequests { retry_after_seconds: 1 });
    proxy.inject_next(1, Fault::Answer(473, "{}"));
    proxy.inject_next(1, Fault::Redirect("https://other.example/".to_owned()));
    for expected in [429, 473, 307, 200] {
        assert_eq!(ask().await.unwrap().0, expected);
    }
    proxy.heal();
    proxy.inject_next(1, Fault::CutShort);
    let error = ask().await.unwrap_err();
    assert_eq!(cause(&error), Some(ErrorKind::UnexpectedEof), "{error:?}");

    let admin = server.admin();
    let rotate = "/v1/transit/keys/prod/rotate";
    for (fault, versions) in [(Fault::Reset, 1), (Fault::LostAnswer, 2)] {
        proxy.inject_next(1, fault.clone());
        let error = post(proxy.address(), rotate, server.root_token(), &json!({})).await.unwrap_err();
        assert_eq!(cause(&error), Some(ErrorKind::ConnectionReset), "{fault:?}: {error:?}");
        assert_eq!(admin.read("transit/keys/prod")["data"]["latest_version"], versions, "{fault:?}");
    }

    proxy.inject(Fault::Sealed);
    for _ in 0..2 {
        assert_eq!(ask().await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    }
    proxy.heal();
    let by = Duration::from_millis(50);
    proxy.inject(Fault::Slow(by));
    let begin = Instant::now();
    assert_eq!(ask().await.unwrap().0, StatusCode::OK);
    assert!(begin.elapsed() >= by);

    assert_eq!((proxy.count("transit/encrypt"), proxy.count("decrypt")), (9, 0));
    let first = Seen { method: "POST".to_owned(), path: ENCRYPT.to_owned(), faulty: false };
    assert_eq!(proxy.seen()[0], first);
}

#[test]
fn a_token_is_found_in_a_process_of_the_tests_own() {
    softhsm::in_own_process(|hsm| {
        let inherited = std::env::var_os(CONFIGURATION_VARIABLE).map(PathBuf::from);
        assert_eq!(inherited, Some(hsm.configuration()));
        // By what is inherited alone, as the library of this process would find it.
        let slots = Command::new("softhsm2-util").arg("--show-slots").output().unwrap();
        let slots = String::from_utf8_lossy(&slots.stdout).into_owned();
        assert!(slots.contains(hsm.token_label()), "{slots}");
        hsm.delete_token(hsm.token_label());
        assert_eq!(hsm.token_labels(), [""; 0]);
        assert!(hsm.module().exists() && hsm.pin().len() > 8);
    });
}
