//! How a holder is started.

use std::io;
use std::process::Command;

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use crate::handover::document;
use crate::host::logging::{self, LogFormat};
use crate::node::Config;
use crate::role::{Role, THIS_PROGRAM};

/// What a holder is told when it is started, as a document on its standard input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// How the node is set up.
    pub(crate) config: Config,
    /// Whether it ends with the process that started it.
    pub(crate) bound_to_parent: bool,
}

impl Settings {
    /// The command that becomes, or starts, a holder with these settings.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn command(&self, filter: &str, format: LogFormat) -> io::Result<Command> {
        let mut command = Role::Holder.command(THIS_PROGRAM.as_ref());
        command.stdin(document::write("secretfs-settings", self)?).env(logging::FILTER, filter);
        if let Some(format) = format.to_possible_value() {
            command.env(logging::FORMAT, format.get_name());
        }
        Ok(command)
    }
}
