//! Who is refused at the manager's door, and how.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use rustls::pki_types::CertificateDer;

use crate::harness::pki::{Authority, Credential};
use crate::harness::process::finish;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Node, Site, deadline};

trials! {
    needs [OpenSsl];
    without_a_certificate_only_join_is_open,
    a_certificate_of_a_foreign_authority_is_refused,
    an_expired_certificate_is_refused,
    a_revoked_node_is_refused_at_its_next_request,
    a_removed_node_is_refused_also_on_a_connection_that_is_open,
    tls_1_2_is_refused,
    plaintext_is_refused,
    a_body_that_is_cut_short_changes_nothing,
    a_value_that_is_too_large_is_refused,
    a_client_trusts_no_other_authority,
}

const NODE_CALLS: [(&str, &str); 4] = [
    ("POST", "/v1/node/changes"),
    ("POST", "/v1/node/session"),
    ("POST", "/v1/node/envelopes"),
    ("POST", "/v1/node/renew"),
];

fn without_a_certificate_only_join_is_open() {
    // Whoever asks so often without one is told to wait instead.
    let site = Site::with("[manager.limits]\nfailures = 1000");
    for (method, path) in NODE_CALLS.into_iter().chain([
        ("GET", "/v1/environments"),
        ("GET", "/v1/environments/prod/secrets"),
        ("POST", "/v1/environments/prod/services/web"),
        ("DELETE", "/v1/environments/prod"),
    ]) {
        let mut connection =
            Connection::open(site.manager.address(), &roots(&site), None).expect("a handshake");
        let answer = connection.request(method, path, "").expect("an answer");
        assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
    }
    // join is heard, and this one refused for what it says.
    let mut connection = Connection::open(site.manager.address(), &roots(&site), None).expect("a handshake");
    let answer = connection.request("POST", "/v1/join", "{}").expect("an answer");
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert_ne!(answer.status, 404, "{answer:?}");
}

fn a_certificate_of_a_foreign_authority_is_refused() {
    let site = Site::start();
    assert_refused(&site, Authority::new().client(), &["UnknownCA", "DecryptError", "BadCertificate"]);
}

fn an_expired_certificate_is_refused() {
    let site = Site::with("node_certificate_lifetime = \"2s\"");
    let node = site.join("web-1");
    // It does not run, so it renews nothing.
    deadline::eventually("the certificate expires", || {
        connect(&site, &node).request("POST", "/v1/node/session", "").is_err()
    });
    assert_refused(&site, Credential::of_node(&node), &["CertificateExpired"]);
}

fn a_revoked_node_is_refused_at_its_next_request() {
    let site = Site::start();
    let node = site.join("web-1");
    let mut open = connect(&site, &node);
    assert_eq!(open.request("POST", "/v1/node/session", "").expect("an answer").status, 200);
    site.operator.ok(&["node", "revoke", "web-1"]);
    refused_everywhere(&site, &node, open);
    let again = site.operator.run(&["node", "approve", "web-1"]);
    assert_eq!(again.code, 1, "revoked is for good: {again:?}");
}

fn a_removed_node_is_refused_also_on_a_connection_that_is_open() {
    let site = Site::start();
    let node = site.join("web-1");
    let mut open = connect(&site, &node);
    assert_eq!(open.request("POST", "/v1/node/session", "").expect("an answer").status, 200);
    site.operator.ok(&["node", "rm", "web-1"]);
    // A node that joins under the name is another; the old certificate is not its.
    let _namesake = {
        let host = site.host_in(&site.area().directory("namesakes"), "web-1");
        site.admit(&host);
        host
    };
    refused_everywhere(&site, &node, open);
}

/// On the connection that was open and on new ones.
fn refused_everywhere(site: &Site, node: &Node, open: Connection) {
    let mut open = Some(open);
    for (method, path) in NODE_CALLS {
        let mut connection = open.take().unwrap_or_else(|| connect(site, node));
        // Either a refusal in words or a refused handshake will do.
        if let Ok(answer) = connection.request(method, path, "") {
            assert!(matches!(answer.status, 401 | 403), "{method} {path}: {answer:?}");
        }
    }
}

fn tls_1_2_is_refused() {
    let site = Site::start();
    // rustls is built without TLS 1.2 here, as in the product; openssl can offer it.
    let mut command = Command::new("openssl");
    command.args(["s_client", "-tls1_2", "-connect", &site.manager.address().to_string()]);
    let outcome = finish(&mut command, b"", site.logs());
    assert_ne!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("protocol version"), "{}", outcome.stderr);
    let mut command = Command::new("openssl");
    command.args(["s_client", "-tls1_3", "-connect", &site.manager.address().to_string()]);
    let outcome = finish(&mut command, b"", site.logs());
    assert!(outcome.stdout.contains("TLSv1.3"), "the same with 1.3 works: {outcome:?}");
}

fn plaintext_is_refused() {
    let site = Site::start();
    let mut socket = TcpStream::connect(site.manager.address()).expect("a connection");
    socket.set_read_timeout(Some(deadline::PATIENCE)).expect("a timeout");
    socket.write_all(b"GET /v1/sys/health HTTP/1.1\r\nhost: manager\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    let _ = socket.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    let outcome =
        site.operator.run(&["--manager", &format!("http://{}", site.manager.address()), "env", "ls"]);
    assert_ne!(outcome.code, 0, "the client speaks no plaintext either: {outcome:?}");
}

fn a_body_that_is_cut_short_changes_nothing() {
    let site = Site::start();
    site.create_secret("key", b"whole");
    let connect = || {
        let credential = Credential::of_operator(&site.operator);
        Connection::open(site.manager.address(), &roots(&site), Some(credential)).expect("a connection")
    };
    for path in ["/v1/environments/prod/secrets/key/versions", "/v1/environments/prod/secrets/other"] {
        if let Ok(answer) = connect().request_cut_short("POST", path, b"half", 8) {
            assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        }
    }
    let secrets = site.operator.json(&["secret", "ls"]);
    assert_eq!(secrets.as_array().map(Vec::len), Some(1), "{secrets}");
    assert_eq!(secrets[0]["versions"], 1, "{secrets}");
    // The same request with its whole body is served.
    let answer =
        connect().request("POST", "/v1/environments/prod/secrets/key/versions", "new").expect("an answer");
    assert!((200..300).contains(&answer.status), "{answer:?}");
}

fn a_value_that_is_too_large_is_refused() {
    let site = Site::start();
    let outcome = site.operator.run_with(&["secret", "create", "key", "-"], &vec![b'x'; (1 << 20) + 1]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let outcome = site.operator.run_with(&["secret", "create", "key", "-"], b"");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    // And by the manager, if a client does not check.
    let credential = Credential::of_operator(&site.operator);
    let mut connection =
        Connection::open(site.manager.address(), &roots(&site), Some(credential)).expect("a connection");
    let path = "/v1/environments/prod/secrets/key";
    match connection.request("POST", path, &"x".repeat((1 << 20) + 1)) {
        Ok(answer) => assert_eq!(answer.status, 413, "{answer:?}"),
        // The manager may hang up on who goes on talking.
        Err(error) => assert!(is_hang_up(&error), "{error}"),
    }
    assert_eq!(site.operator.json(&["secret", "ls"]), serde_json::json!([]));
}

fn a_client_trusts_no_other_authority() {
    let site = Site::start();
    let other = Site::start();
    // The operator's own credentials, and an address where another manager answers.
    let outcome = site.operator.run(&["--manager", &other.manager.url(), "env", "ls"]);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert!(outcome.stderr.contains("certificate"), "it says why: {}", outcome.stderr);
}

fn roots(site: &Site) -> Vec<CertificateDer<'static>> {
    certificates(&site.operator.directory().join("ca.pem"))
}

fn connect(site: &Site, node: &Node) -> Connection {
    Connection::open(site.manager.address(), &roots(site), Some(Credential::of_node(node)))
        .expect("a connection")
}

/// Refused inside the handshake, with one of these alerts, before a request was heard.
fn assert_refused(site: &Site, credential: Credential, alerts: &[&str]) {
    let refusal = Connection::open(site.manager.address(), &roots(site), Some(credential))
        .map_or_else(|error| error, Connection::refusal);
    let text = format!("{refusal:?}");
    assert!(alerts.iter().any(|alert| text.contains(alert)), "{text}");
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
