use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::error::Failure;

pub(super) const EXAMPLE: &str = "Example:\n  secretfs completions bash > /etc/bash_completion.d/secretfs";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "secretfs", &mut script);
    Ok(super::output::line(String::from_utf8_lossy(&script).trim_end())?)
}
