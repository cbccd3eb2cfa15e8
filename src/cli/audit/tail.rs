use clap::Args;
use futures::TryStreamExt as _;
use secretfs_wire::audit::Line;

use super::super::config::ConfigFile;
use super::super::connect::{Operator, ScopeArgs};
use super::super::error::Failure;
use super::super::{Global, output};
use super::log::{Entry, Log};
use super::show;
use crate::client::AuditExtent;

#[derive(Debug, Args)]
pub(in crate::cli) struct TailArgs {
    /// How many records to show
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    count: u32,
    /// Show what comes, too, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    scope: ScopeArgs,
}

pub(super) async fn run(args: TailArgs, global: &Global, file: &ConfigFile) -> Result<(), Failure> {
    global.start_logging("warn")?;
    let operator = Operator::new(global, file)?;
    let extent = AuditExtent {
        last: Some(args.count),
        environment: operator.scope(&args.scope).cloned(),
        follow: args.follow,
        ..AuditExtent::default()
    };
    let mut entries = Log::new(global, file, operator, extent).entries();
    while let Some(Entry { line, record }) = entries.try_next().await? {
        let (Line::Record(written), Some(record)) = (line, record) else { continue };
        match record {
            _ if global.json => output::line(&written.text)?,
            Ok(record) => output::line(&show::line(&record))?,
            Err(error) => output::line(&format!("{error}; see `secretfs audit verify`"))?,
        }
    }
    Ok(())
}
