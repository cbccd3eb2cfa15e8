//! Against a real OpenBao.

use crate::backends::openbao::OpenBao;
use crate::config::{VaultConfig, VaultLogin};
use crate::keys::conformance;

use super::VaultKeys;

#[tokio::test(flavor = "multi_thread")]
async fn openbao_conforms() {
    let bao = OpenBao::start().expect("OpenBao");
    bao.admin().enable_transit("transit");
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, bao.root_token()).expect("written");
    let config = VaultConfig {
        url: bao.url().parse().expect("a URL"),
        ca: None,
        namespace: None,
        mount: "transit".to_owned(),
        timeout: std::time::Duration::from_secs(5),
        login: VaultLogin::File(token),
    };
    conformance::check(&VaultKeys::new(&config).expect("a backend")).await;
}
