//! The services that keys can be kept in are there, for the tests of those who keep keys in them.

use std::io;

use crate::backends::faulty_proxy::{Fault, FaultyProxy};
use crate::backends::openbao::OpenBao;
use crate::backends::softhsm::SoftHsm;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};

trials! {
    needs [OpenBao, SoftHsm];
    each_test_has_an_openbao_and_a_token_of_its_own,
    faults_come_over_tls_as_well,
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
