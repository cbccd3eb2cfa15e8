//! secretfs: secrets where programs already look for them.
//!
//! One binary: the node daemon, the operator's command line and, with the feature `manager`, the
//! manager. A read goes down this list and back:
//!
//! - [`fuse`]: the kernel's requests, the only module that names fuser; holds no policy
//! - [`fs`]: what a request means: names, inodes, open handles, pinned versions
//! - [`audit`]: what is opened by whom, until the manager has it
//! - [`cache`]: values in locked memory, each fetched once
//! - [`source`]: the seam behind which values come from
//! - [`node`]: the daemon that joins these, follows the manager and opens envelopes
//! - [`client`]: the manager over mutual TLS
//! - [`collector`]: log collectors that the audit log is sent to
//! - [`holder`], [`worker`], [`notifier`], [`witness`], [`handover`]: the processes of a node, and what
//!   passes between them
//! - [`run`]: a program, and what is done with it when its secrets change
//! - [`host`]: private files and locked memory, for every role

mod audit;
mod cache;
mod cli;
mod client;
mod collector;
mod fs;
mod fuse;
mod handover;
mod holder;
mod host;
mod node;
mod notifier;
mod role;
mod run;
mod source;
mod witness;
mod worker;

use role::Role;

/// The version of this program. A build may have another than its package, to tell two builds of one
/// package apart.
pub(crate) const VERSION: &str = match option_env!("SECRETFS_BUILD_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

fn main() -> std::process::ExitCode {
    match Role::of_this_process() {
        None => cli::main(),
        Some(role) => {
            host::process_title::name_process();
            host::logging::inherit();
            match role {
                Role::Holder => holder::main(),
                Role::Worker => worker::main(),
                Role::Notifier => notifier::main(),
                Role::Witness => witness::main(),
                Role::Repair => holder::repair::main(),
                Role::Launcher => run::launcher::main(),
            }
        }
    }
}
