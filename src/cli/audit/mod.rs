//! The audit log: looking at it, verifying it, taking it elsewhere.

mod export;
mod log;
mod show;
mod tail;
mod verify;

use clap::Subcommand;

use super::Global;
use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::output;

/// The audit log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show the last records, of the environment that is named or of all
    #[command(after_help = "Examples:\n  secretfs audit tail -n 50\n  secretfs audit tail -f -e prod\n  \
        secretfs audit tail --json | jq 'select(.event.outcome == \"denied\")'")]
    Tail(tail::TailArgs),
    /// Verify that no record was changed, removed, moved or added: the manager's whole log, or how it goes
    /// on from a checkpoint that was kept elsewhere, or exports. The first record that is wrong is named
    #[command(
        after_help = "Examples:\n  secretfs audit verify\n  secretfs audit verify --from checkpoint.jsonl\n  \
        secretfs audit verify --ca ca.pem export.jsonl"
    )]
    Verify(verify::VerifyArgs),
    /// Print the newest signed checkpoint, to be kept where nobody of the manager can change it
    #[command(after_help = "Example:\n  secretfs audit checkpoint > checkpoint.jsonl")]
    Checkpoint,
    /// Take the log elsewhere: as lines of JSON that can be verified, to OpenTelemetry or to syslog
    #[command(after_help = "Examples:\n  secretfs audit export --to audit.jsonl\n  \
        secretfs audit export -f --cursor-file cursor --to-url https://otel.example:4318\n  \
        secretfs audit export -f --cursor-file cursor --to-url tls://logs.example --to-ca logs-ca.pem\n  \
        secretfs audit export --from 1200 --format syslog | logger --rfc5424")]
    Export(export::ExportArgs),
    /// Have the log be signed with a new key from now on
    #[command(after_help = "Example:\n  secretfs audit rotate-key")]
    RotateKey,
}

pub(super) async fn run(command: AuditCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    match command {
        AuditCommand::Tail(args) => tail::run(args, global, &file).await,
        AuditCommand::Verify(args) => verify::run(args, global, &file).await,
        AuditCommand::Checkpoint => {
            let text = Operator::new(global, &file)?.client.audit_checkpoint().await?;
            Ok(output::verbatim(&text)?)
        }
        AuditCommand::Export(args) => export::run(args, global, &file).await,
        AuditCommand::RotateKey => {
            Operator::new(global, &file)?.client.rotate_audit_key().await?;
            Ok(())
        }
    }
}
