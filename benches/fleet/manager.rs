//! The manager as its operators run it, and the operator's calls.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::client::WantsClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use secretfs_wire::api::CreatedToken;
use serde_json::json;

pub(super) const ENVIRONMENT: &str = "prod";

pub(super) struct Manager {
    child: Child,
    operator: reqwest::Client,
    anonymous: reqwest::Client,
    /// The CA's certificates, as PEM.
    pub(super) ca: String,
    pub(super) address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Manager {
    /// Starts one that has room for so many nodes.
    pub(super) fn start(nodes: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (config, operator) = (directory.path().join("manager.toml"), directory.path().join("operator"));
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let data_dir = directory.path().join("manager");
        let settings = format!(
            "[manager]\ndata_dir = {data_dir:?}\nlisten = \"{address}\"\nmax_connections = {}\n\
             # One operator makes a token for each node, as fast as can be.\n\
             [manager.limits]\noperator_burst = {}\n",
            nodes + 100,
            2 * nodes + 1000
        );
        fs::write(&config, settings).expect("a configuration file");
        let command = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
            command.arg("manager").args(arguments).env("SECRETFS_CONFIG", &config).stdout(Stdio::null());
            command
        };
        let init = command(&["init", "--auto-unlock", "key-file", "--operator-dir"])
            .arg(&operator)
            .status()
            .expect("secretfs runs");
        assert!(init.success(), "secretfs manager init");
        let child = command(&["run"]).env("SECRETFS_LOG", "warn").spawn().expect("secretfs runs");

        let read = |name| fs::read_to_string(operator.join(name)).expect("the operator's credentials");
        let ca = read("ca.pem");
        let identity = read("operator.pem");
        let tls = tls(&ca, &identity, &identity);
        let client = |tls| reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build();
        let operator = client(tls).expect("a client");
        let anonymous = client(trusting(&ca).with_no_client_auth()).expect("a client");
        Self { child, operator, anonymous, ca, address, _directory: directory }
    }

    /// For calls without a certificate.
    pub(super) fn anonymous(&self) -> &reqwest::Client {
        &self.anonymous
    }

    /// A service with one secret, which runs on every node with the label `role=web`.
    pub(super) async fn prepare(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.operator.get(self.url("")).send().await.is_err() {
            assert!(Instant::now() < deadline, "the manager answers");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.post("", json!({ "name": ENVIRONMENT })).await;
        self.send("secrets/db?generate=32", reqwest::Body::from("")).await;
        self.post("services/web", json!({})).await;
        self.post("services/web/attachments", json!({ "secret": "db" })).await;
        self.post("services/web/assignments", json!({ "selector": "role=web" })).await;
    }

    pub(super) async fn token(&self) -> CreatedToken {
        let asked = json!({ "ttl_seconds": 3600, "labels": { "role": "web" } });
        self.post("tokens", asked).await.json().await.expect("a token")
    }

    /// Makes the version that has this number.
    pub(super) async fn rotate(&self, version: u64) {
        let answer = self.send("secrets/db/versions?generate=32", reqwest::Body::from("")).await;
        let rotated: serde_json::Value = answer.json().await.expect("an answer");
        assert_eq!(rotated["current"], version);
    }

    /// Resident bytes.
    pub(super) fn memory(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the manager lives");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes << 10
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> reqwest::Response {
        checked(self.operator.post(self.url(path)).json(&body)).await
    }

    async fn send(&self, path: &str, body: reqwest::Body) -> reqwest::Response {
        checked(self.operator.post(self.url(path)).body(body)).await
    }

    fn url(&self, path: &str) -> String {
        match path {
            "" => format!("https://{}/v1/environments", self.address),
            path => format!("https://{}/v1/environments/{ENVIRONMENT}/{path}", self.address),
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A TLS configuration that shows a certificate. The key is PEM too.
pub(super) fn tls(ca: &str, certificate: &str, key: &str) -> ClientConfig {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let mut tls = trusting(ca).with_client_auth_cert(chain, key).expect("a configuration");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    tls
}

fn trusting(ca: &str) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(root.expect("a certificate")).expect("a root");
    }
    let tls = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    tls.with_root_certificates(roots)
}

async fn checked(request: reqwest::RequestBuilder) -> reqwest::Response {
    let answer = request.send().await.expect("the manager answers");
    answer.error_for_status().expect("the manager does it")
}
