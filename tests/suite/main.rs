//! secretfs as it is used: a real manager, real nodes and mounts, real TLS, real containers.
//!
//! One binary with a `main` of its own (libtest-mimic): Docker Engine is started once and must be
//! ended after the last test, and a test that this machine cannot run must show as ignored. libtest
//! can do neither.

// The workspace's rule against unwrap has its exception for #[test] functions, which these are not:
// they use expect, and say what they expect.

mod audit;
mod audit_export;
mod audited_opens;
#[path = "../backends/mod.rs"]
mod backends;
mod backup;
mod canary;
mod clock;
mod command_line;
mod containers;
mod dev;
mod harness;
mod hostile_manager;
mod identity;
mod in_use;
mod inotify;
mod isolation;
mod joining;
mod key_migration;
mod key_services;
mod keys;
mod lifecycle;
mod limits;
mod living_mount;
mod network_cut;
mod opens_in_the_log;
mod operators;
mod outage;
mod ownership;
mod policies;
mod reading;
mod renewal;
mod revocation;
mod rotation;
mod run;
mod run_in_containers;
mod sealing;
mod service_manager;
mod succession;
mod templates;
mod tls_refusals;

use std::process::ExitCode;

use harness::engine::Engine;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, path] = arguments.as_slice()
        && command == harness::watch::COMMAND
    {
        return harness::watch::main(path);
    }
    let trials = [
        audit::trials(),
        audit_export::trials(),
        audited_opens::trials(),
        backup::trials(),
        canary::trials(),
        clock::trials(),
        command_line::trials(),
        containers::trials(),
        dev::trials(),
        hostile_manager::trials(),
        identity::trials(),
        in_use::trials(),
        inotify::trials(),
        isolation::trials(),
        joining::trials(),
        keys::trials(),
        key_migration::trials(),
        key_services::trials(),
        lifecycle::trials(),
        limits::trials(),
        living_mount::trials(),
        network_cut::trials(),
        operators::trials(),
        opens_in_the_log::trials(),
        outage::trials(),
        ownership::trials(),
        policies::trials(),
        reading::trials(),
        renewal::trials(),
        revocation::trials(),
        rotation::trials(),
        run::trials(),
        run_in_containers::trials(),
        sealing::trials(),
        service_manager::trials(),
        succession::trials(),
        templates::trials(),
        tls_refusals::trials(),
    ];
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect());
    Engine::stop_shared();
    conclusion.exit_code()
}
