//! The services that keys can be kept in are there, for the tests of those who keep keys in them.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::backends::faulty_proxy::{Fault, FaultyProxy};
use crate::backends::openbao::OpenBao;
use crate::backends::softhsm::SoftHsm;
use crate::harness::cold_readers::{ColdReaders, cold_node, serve, value};
use crate::harness::manager::{Manager, free_address};
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Area, Site, deadline};

trials! {
    needs [Mount, OpenBao, SoftHsm];
    each_test_has_an_openbao_and_a_token_of_its_own,
    faults_come_over_tls_as_well,
    vault_is_asked_once_for_each_data_key_and_not_for_each_read,
    a_manager_is_unlocked_by_vault_and_by_an_hsm,
}

fn each_test_has_an_openbao_and_a_token_of_its_own() {
    let [one, other] = [(); 2].map(|()| OpenBao::start_tls().expect("OpenBao"));
    one.admin().enable_transit("transit");
    one.admin().create_key("transit", "prod");
    assert_eq!(one.admin().read("transit/keys/prod")["data"]["type"], "aes256-gcm96");
    let mounts = other.admin().read("sys/mounts");
    assert!(mounts["data"].get("sys/").is_some() && mounts["data"].get("transit/").is_none(), "{mounts}");

    let [one, other] = [(); 2].map(|()| SoftHsm::new().expect("SoftHSM"));
    one.add_token("second");
    assert_eq!(one.token_labels().len(), 2);
    assert_eq!(other.token_labels(), ["secretfs"]);
}

fn faults_come_over_tls_as_well() {
    let server = OpenBao::start_tls().expect("OpenBao");
    let mut proxy = FaultyProxy::before(&server);
    let roots = certificates(server.ca().expect("an authority"));
    let address = proxy.address();
    let ask = || {
        let connection = Connection::open(address, &roots, None);
        connection.and_then(|mut connection| connection.request("GET", "/v1/sys/health", ""))
    };
    assert_eq!(ask().expect("an answer").status, 200);
    proxy.inject_next(1, Fault::Sealed);
    assert_eq!(ask().expect("an answer").status, 503);
    proxy.inject_next(1, Fault::Reset);
    assert_eq!(ask().expect_err("no answer").kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ask().expect("an answer").status, 200);
    proxy.go_down();
    assert_eq!(ask().expect_err("nobody").kind(), io::ErrorKind::ConnectionRefused);
    proxy.come_back();
    assert_eq!(ask().expect("an answer").status, 200);
    assert_eq!(proxy.count("sys/health"), 5);
}

/// Settings of a manager that reaches a Vault at `url` by its root token.
fn vault(area: &Area, bao: &OpenBao, url: &str) -> String {
    let token: PathBuf = area.directory("vault").join("token");
    fs::write(&token, bao.root_token()).expect("a token file");
    format!("[manager.vault]\nurl = {url:?}\ntoken_file = {token:?}\n")
}

fn vault_is_asked_once_for_each_data_key_and_not_for_each_read() {
    let (bao, area) = (OpenBao::start().expect("OpenBao"), Area::new());
    bao.admin().enable_transit("transit");
    let proxy = FaultyProxy::before(&bao);
    let settings = format!("data_key_lifetime = \"2s\"\n{}", vault(&area, &bao, &proxy.url()));
    let site = Site::with(&settings);
    site.operator.ok(&["key", "migrate", "--to", "vault"]);
    let names: Vec<_> = (0..5).map(|number| format!("secret-{number}")).collect();
    serve(&site, "web-1", "web", &names);
    let node = cold_node(&site, "web-1");
    let asked = || proxy.count("transit/decrypt/prod");
    let read_all = || {
        for name in &names {
            node.wait_for(&format!("web/{name}"), &value(name));
        }
    };
    let before = asked();
    read_all();
    assert_eq!(asked() - before, names.len(), "once for each data key");
    deadline::eventually("after its time each is asked for again", || {
        read_all();
        asked() - before >= 2 * names.len()
    });
    // However often they are read, they are asked for at most once in each two seconds.
    let (began, before) = (std::time::Instant::now(), asked());
    let readers = ColdReaders::start(&node, "web", &names);
    for _ in 0..10 {
        readers.go_round();
    }
    assert_eq!(readers.end(), [""; 0]);
    let times = usize::try_from(began.elapsed().as_secs() / 2).expect("a few") + 1;
    assert!(asked() - before <= times * names.len(), "{} in {:?}", asked() - before, began.elapsed());

    // Vault is sealed: what was unwrapped is served for its time, and no longer.
    read_all();
    bao.seal();
    deadline::eventually("without Vault a value is not read any more", || node.read("web/secret-0").is_err());
    let refused = site.operator.run_with(&["secret", "create", "new", "-"], b"value");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("sealed"), "it says why: {}", refused.stderr);
    bao.unseal();
    read_all();
}

fn a_manager_is_unlocked_by_vault_and_by_an_hsm() {
    let (bao, hsm, area) =
        (OpenBao::start().expect("OpenBao"), SoftHsm::new().expect("SoftHSM"), Area::new());
    bao.admin().enable_transit("transit");
    let mut proxy = FaultyProxy::before(&bao);
    let settings = format!(
        "{}\n[manager.pkcs11]\nmodule = {:?}\ntoken = {:?}\npin_file = {:?}\n",
        vault(&area, &bao, &proxy.url()),
        hsm.module(),
        hsm.token_label(),
        hsm.pin_file(),
    );
    let logs = crate::harness::area::Logs::at(area.directory("logs"));
    let (variable, configuration) = hsm.environment();
    for how in ["vault", "pkcs11"] {
        let home = area.directory(how);
        let mut manager = Manager::init(
            &["--auto-unlock", how],
            None,
            free_address(),
            &home,
            &settings,
            &[(variable, &configuration)],
            &logs,
        );
        manager.run();
        manager.operator().ok(&["env", "create", "prod"]);
        manager.stop();
        for entry in fs::read_dir(manager.data()).expect("a directory") {
            let name = entry.expect("an entry").file_name();
            assert!(name != "unlock.key" && name != "root.key", "there is no key on this machine");
        }
        if how == "vault" {
            proxy.go_down();
            manager.run_sealed();
            proxy.come_back();
            manager.wait_until_it_serves();
        } else {
            manager.run();
        }
        manager.stop();
        // The operator's key opens it as well, when what opens it by itself is lost.
        let lines = manager.unlock_lines();
        let new = manager.command(&["rekey", "--auto-unlock", "none"], lines.as_bytes());
        assert_eq!(new.code, 0, "{}", new.stderr);
        manager.run_sealed();
    }
}
