//! An environment's keys move from backend to backend while its secrets are read, and whoever moves them
//! is killed in the middle.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;
use std::thread;

use rustix::process::Signal;

use crate::backends::openbao::OpenBao;
use crate::backends::softhsm::SoftHsm;
use crate::harness::cold_readers::{ColdReaders, cold_node, value};
use crate::harness::pki::Credential;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Area, Site, deadline};

trials! {
    needs [Mount, OpenBao, SoftHsm];
    data_keys_move_through_all_backends_under_readers_whoever_is_killed,
}

/// How many secrets there are; 10,000 is what the product promises, and takes some minutes.
fn secrets() -> usize {
    std::env::var("SECRETFS_TEST_SECRETS").map_or(2000, |count| count.parse().expect("a number"))
}

/// How many of them a node reads all the time.
const READ: usize = 20;
/// Over how many connections they are created.
const CONNECTIONS: usize = 4;

#[allow(clippy::print_stdout, reason = "a figure that people ask for")]
fn data_keys_move_through_all_backends_under_readers_whoever_is_killed() {
    let (bao, hsm) = (OpenBao::start().expect("OpenBao"), SoftHsm::new().expect("SoftHSM"));
    bao.admin().enable_transit("transit");
    bao.admin().create_key("transit", "prod");
    let tokens = Area::new();
    let token = tokens.directory("vault").join("token");
    fs::write(&token, bao.root_token()).expect("a token file");
    let settings = format!(
        "[manager.vault]\nurl = {:?}\ntoken_file = {token:?}\n\n\
         [manager.pkcs11]\nmodule = {:?}\ntoken = {:?}\npin_file = {:?}\n",
        bao.url(),
        hsm.module(),
        hsm.token_label(),
        hsm.pin_file(),
    );
    let (variable, configuration) = hsm.environment();
    let mut site = Site::with_environment(&settings, &[(variable, &configuration)]);
    let names: Vec<_> = (0..secrets()).map(|number| format!("secret-{number}")).collect();
    create_all(&site, &names);
    site.create_service("web", "web-1");
    for name in &names[..READ] {
        site.attach("web", name, &[]);
    }
    // One node has all values in memory, the other has room for none.
    let warm = site.node("web-1");
    let warm_readers = ColdReaders::start(&warm, "web", &names[..READ]);
    site.operator.ok(&["service", "assign", "web", "--node", "web-2"]);
    let cold = cold_node(&site, "web-2");

    let (mut killed, mut cold_reads) = (0, 0);
    for to in ["vault", "pkcs11", "local"] {
        let cold_readers = ColdReaders::start(&cold, "web", &names[..READ]);
        for _ in 0..2 {
            killed += usize::from(kill_the_command_in_the_middle(&site, to));
            cold_readers.go_round();
        }
        cold_reads += cold_readers.count();
        assert_eq!(cold_readers.end(), [""; 0], "on the way to {to}");
        for _ in 0..2 {
            killed += usize::from(kill_the_manager_in_the_middle(&mut site, to));
            warm_readers.go_round();
        }
        deadline::eventually("the second node is connected again", || cold.status()["connected"] == true);
        let cold_readers = ColdReaders::start(&cold, "web", &names[..READ]);
        let migrated = site.operator.run(&["key", "migrate", "--to", to, "--rate", "100000"]);
        assert_eq!(migrated.code, 0, "{}", migrated.stderr);
        cold_readers.go_round();
        let retired = site.operator.ok(&["key", "retire"]);
        assert!(retired.contains("all versions"), "{retired}");
        cold_readers.go_round();
        cold_reads += cold_readers.count();
        assert_eq!(cold_readers.end(), [""; 0], "at {to}");
        let listed = site.operator.json(&["key", "ls"]);
        let versions = listed[0]["versions"].as_array().expect("versions");
        assert!(versions.iter().all(|version| version["key"]["backend"] == to), "{listed}");
        assert_eq!(versions[0]["data_keys"], names.len(), "{listed}");
    }
    assert!(killed >= 10, "only {killed} were killed in the middle");
    println!(
        "{} secrets through three backends, {killed} killed in the middle; {} warm and {cold_reads} cold reads, \
         0 failed",
        names.len(),
        warm_readers.count(),
    );
    assert_eq!(warm_readers.end(), [""; 0], "of what is in memory");
    // Every one of them opens, and is what it was.
    site.operator.ok(&["service", "assign", "all", "--node", "web-2"]);
    cold.wait_for(&format!("all/{}", names[0]), &value(&names[0]));
    for name in &names {
        let read = cold.read(&format!("all/{name}")).expect(name);
        assert_eq!(read, value(name), "{name} is what it was");
    }
}

fn connect(site: &Site) -> Connection {
    let roots = certificates(&site.operator.directory().join("ca.pem"));
    let credential = Credential::of_operator(&site.operator);
    Connection::open(site.manager.address(), &roots, Some(credential)).expect("a connection")
}

/// Creates the secrets and attaches them to the service `all`, over several connections, so that what the
/// manager has to write is written together.
fn create_all(site: &Site, names: &[String]) {
    site.operator.ok(&["service", "create", "all"]);
    thread::scope(|scope| {
        for names in names.chunks(names.len().div_ceil(CONNECTIONS)) {
            scope.spawn(move || {
                let mut connection = connect(site);
                for name in names {
                    let body = String::from_utf8(value(name)).expect("text");
                    let path = format!("/v1/environments/prod/secrets/{name}");
                    let created = connection.request("POST", &path, &body).expect("an answer");
                    assert_eq!(created.status, 201, "{name}: {}", created.body);
                    let path = "/v1/environments/prod/services/all/attachments";
                    let body = format!("{{\"secret\":\"{name}\"}}");
                    let attached = connection.request("POST", path, &body).expect("an answer");
                    assert_eq!(attached.status, 200, "{name}: {}", attached.body);
                }
            });
        }
    });
}

/// Starts a migration slow enough to be killed, and waits until it says that it has moved something.
/// Whether it was still under way after `strike`.
fn while_it_moves(site: &Site, to: &str, strike: impl FnOnce()) -> bool {
    let rate = (secrets() / 4).to_string();
    let mut command = site.operator.command(&["key", "migrate", "--to", to, "--rate", &rate]);
    let mut process = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("secretfs");
    let mut errors = process.stderr.take().expect("a pipe");
    // It says each tenth of its way, and nothing when hardly anything is left.
    let moves = errors.read(&mut [0]).expect("its standard error") == 1;
    let under_way = moves && process.try_wait().expect("its state").is_none();
    if under_way {
        strike();
    }
    // It may have ended by itself since.
    let _ = process.kill();
    process.wait().expect("its end");
    under_way
}

fn kill_the_command_in_the_middle(site: &Site, to: &str) -> bool {
    while_it_moves(site, to, || {})
}

fn kill_the_manager_in_the_middle(site: &mut Site, to: &str) -> bool {
    let killed = while_it_moves(site, to, || site.manager.process().signal(Signal::KILL));
    site.manager.kill();
    site.manager.run();
    killed
}
