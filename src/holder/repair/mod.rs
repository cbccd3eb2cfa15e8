//! Gives containers their secrets back after a connection to the kernel was lost.
//!
//! What is mounted over a dead mount appears in those binds of it that receive mounts. The others,
//! Docker's by default, stay dead: each is replaced here in the mount namespace of its container, by
//! a bind of the same file or directory of the new mount. The container is not restarted.
//!
//! A container that may mount must not be given by this what it never had. A mount is replaced only
//! if its device was ours while it lived, and if it shows the same inode number as what replaces it.
//! Everything is named by open files, so that a name changed meanwhile leads nowhere.
//!
//! It runs in a process of its own, which ends soon: looking a path up in the new mount waits for a
//! worker, and the thread that visits other namespaces must share its directories with no other.

mod error;
mod liveness;
mod namespaces;
mod plan;
mod record;
mod replace;
mod report;
mod source;
mod stale;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};

pub(crate) use self::plan::Plan;
pub(crate) use self::record::Record;
pub(crate) use self::report::Report;

use self::error::RepairError;
use self::liveness::Liveness;
use self::namespaces::{Home, View, views};
use self::replace::replace;
use self::source::Live;
use self::stale::Stale;
use crate::fuse::mount_table::{MountTable, Mounted};

/// The longest plan: thousands of devices.
const LONGEST: u64 = 1 << 20;

/// The role of this process: a plan on standard input, a report on standard output.
///
/// Fails when the plan cannot be read or the report not be written. What cannot be repaired is in the
/// report.
pub(crate) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "no repair");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut plan = Vec::new();
    io::stdin().take(LONGEST).read_to_end(&mut plan)?;
    let report = run(serde_json::from_slice(&plan)?);
    let mut output = io::stdout();
    serde_json::to_writer(&mut output, &report)?;
    output.flush()
}

/// Replaces all dead binds that the plan is about, in every mount namespace that has a process.
///
/// The calling thread gets a root and working directory of its own.
pub(crate) fn run(plan: Plan) -> Report {
    let mut report = Report::default();
    if let Err(error) = repair(plan, &mut report) {
        report.stop(&error);
    }
    report
}

fn repair(plan: Plan, report: &mut Report) -> Result<(), RepairError> {
    unshare(CloneFlags::CLONE_FS).map_err(|error| RepairError::Home(error.into()))?;
    let home = Home::new()?;
    let mut live = Vec::new();
    for mount in plan.mounts {
        let path = mount.path.clone();
        match Live::open(mount) {
            Ok(mount) => live.push(mount),
            Err(error) => report.unavailable(&path, &error),
        }
    }
    // Mounts of the host that call themselves ours are: another daemon's, if not this one's.
    let hosts: BTreeSet<_> = MountTable::read()
        .map_err(RepairError::Table)?
        .iter()
        .filter(|mounted| mounted.is_ours())
        .map(|mounted| mounted.device)
        .collect();
    report.complete = true;
    let mut liveness = Liveness::default();
    for view in views()? {
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                report.stop(&error);
                continue;
            }
        };
        let is_strange = |mounted: &&Mounted| {
            let known = hosts.contains(&mounted.device) || live.iter().any(|live| live.lost(mounted.device));
            mounted.is_ours() && !known
        };
        for mounted in view.table.iter().filter(is_strange) {
            report.failed(&view, &mounted.point, &RepairError::Strange(mounted.device));
        }
        repair_view(&home, &view, &live, &mut liveness, report);
    }
    Ok(())
}

fn repair_view(home: &Home, view: &View, live: &[Live], liveness: &mut Liveness, report: &mut Report) {
    for Stale { mounted, live, covered, occupied } in stale::find(&view.table, live) {
        report.seen.insert(mounted.device);
        // In the host a whole mount would be another daemon's, which repairs it itself.
        if covered || (view.namespace == home.number && mounted.is_whole()) {
            continue;
        }
        let replaced = match occupied {
            false => replace(home, view, mounted, live, liveness),
            true => Err(RepairError::Inside),
        };
        match replaced {
            Ok(()) => report.repaired(view, &mounted.point, &live.path_of(&mounted.root)),
            Err(error) => report.failed(view, &mounted.point, &error),
        }
    }
}
