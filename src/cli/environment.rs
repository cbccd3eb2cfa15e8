use clap::Subcommand;
use secretfs_wire::api::CreateEnvironment;
use secretfs_wire::{EnvironmentName, KeyBackendKind, KeyName};

use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::{Global, output};

/// Environments, the scope of everything.
#[derive(Debug, Subcommand)]
pub(super) enum EnvironmentCommand {
    /// Create an environment with an encryption key of its own
    #[command(after_help = "Example:\n  secretfs env create prod --key-name prod-2026")]
    Create {
        /// Its name
        name: EnvironmentName,
        /// Its key's name [default: the environment's]
        #[arg(long, value_name = "KEY")]
        key_name: Option<KeyName>,
        /// Where its key is kept: local, vault or pkcs11 [default: local]
        #[arg(long, value_name = "BACKEND")]
        key_backend: Option<KeyBackendKind>,
    },
    /// List environments
    #[command(after_help = "Example:\n  secretfs env ls --json")]
    Ls,
    /// Remove an environment that holds nothing
    #[command(after_help = "Example:\n  secretfs env rm staging")]
    Rm {
        /// Its name
        name: EnvironmentName,
    },
}

pub(super) async fn run(
    command: EnvironmentCommand,
    global: &Global,
    file: ConfigFile,
) -> Result<(), Failure> {
    let Operator { client, .. } = Operator::new(global, &file)?;
    match command {
        EnvironmentCommand::Create { name, key_name, key_backend } => {
            let asked = CreateEnvironment { name, key_name, key_backend };
            let created = client.create_environment(&asked).await?;
            output::one(global, &created, created.name.as_str())?;
        }
        EnvironmentCommand::Ls => {
            let environments = client.environments().await?;
            output::listing(global, ["NAME", "KEY", "CREATED"], &environments, |environment| {
                [environment.name.to_string(), environment.key.to_string(), output::time(environment.created)]
            })?;
        }
        EnvironmentCommand::Rm { name } => {
            client.remove_environment(&name).await?;
            output::one(global, &name, name.as_str())?;
        }
    }
    Ok(())
}
