//! From flags, environment and configuration file to an operator's connection.

use clap::Args;
use jiff::Timestamp;
use secretfs_wire::EnvironmentName;
use url::Url;

use super::config::ConfigFile;
use super::error::Failure;
use super::renewal::Renewal;
use super::{Global, credentials, output};
use crate::client::{CertificateSummary, EnvironmentClient, OperatorClient, OperatorsClient};

/// Where a command decides that can decide in one environment or in all.
#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    /// Everywhere, also where -e, SECRETFS_ENV or the configuration names an environment
    #[arg(long)]
    all_environments: bool,
}

/// An operator's connection, and the environment to work in if one was named.
pub(super) struct Operator {
    /// The connection.
    pub(super) client: OperatorClient,
    /// Where the manager is.
    pub(super) manager: Url,
    /// What renews its certificate.
    pub(super) renewal: Option<Renewal>,
    environment: Option<EnvironmentName>,
}

impl Operator {
    /// Reads the operator's credentials. Connects with the first call.
    pub(super) fn new(global: &Global, file: &ConfigFile) -> Result<Self, Failure> {
        let section = &file.operator;
        let manager = global.manager.clone().or_else(|| section.manager.clone()).ok_or_else(|| {
            Failure::usage("no manager is configured").hint("log in with `secretfs login`, or set SECRETFS_CONFIG to the file that `secretfs manager init` or `secretfs dev` named")
        })?;
        let (credentials, identity_file) = credentials::load(file)?;
        let client = OperatorClient::new(manager.clone(), &credentials)?;
        let mut renewal = None;
        if let Some(certificate) = CertificateSummary::of(&credentials.certificate) {
            refuse_ended(&certificate)?;
            let new = Renewal::new(client.clone(), identity_file, certificate);
            // The first one's that a command uses. One that goes on for long sees to those after it.
            let _ = global.renewal.set(new.clone());
            renewal = Some(new);
        }
        let environment = global.environment.clone().or_else(|| section.environment.clone());
        Ok(Self { client, manager, renewal, environment })
    }

    /// The environment that was named, unless all are meant; none if none was.
    pub(super) fn scope(&self, scope: &ScopeArgs) -> Option<&EnvironmentName> {
        self.environment.as_ref().filter(|_| !scope.all_environments)
    }

    /// The calls that show operators: in the environment that was named, or everywhere.
    pub(super) fn visible_operators(&self, scope: &ScopeArgs) -> OperatorsClient<'_> {
        self.client.operators(self.scope(scope))
    }

    /// The calls that change operators: in the environment that was named, or in all if that was said. What
    /// counts everywhere is not for somebody to get by naming nothing.
    pub(super) fn operators(&self, scope: &ScopeArgs) -> Result<OperatorsClient<'_>, Failure> {
        match (self.scope(scope), scope.all_environments) {
            (None, false) => Err(Failure::usage("no environment is named, and not all are meant")
                .hint("add -e ENV, set SECRETFS_ENV, or add --all-environments for what counts everywhere")),
            (environment, _) => Ok(self.client.operators(environment)),
        }
    }

    /// The calls inside the environment that was named.
    pub(super) fn environment(&self) -> Result<EnvironmentClient<'_>, Failure> {
        match &self.environment {
            Some(name) => Ok(self.client.environment(name)),
            None => Err(Failure::usage("no environment is named")
                .hint("add -e ENV, set SECRETFS_ENV, or write `environment` into the configuration")),
        }
    }
}

/// The manager would refuse it in the handshake, and could not say as much.
fn refuse_ended(certificate: &CertificateSummary) -> Result<(), Failure> {
    if certificate.end > Timestamp::now() {
        return Ok(());
    }
    let CertificateSummary { name, end, .. } = certificate;
    let ended = output::time(*end);
    Err(Failure::denied(format!("by this host's clock the certificate of operator {name} ended {ended}"))
        .hint(&format!(
            "ask another operator for `secretfs operator enroll {name}`, or on the manager's host use \
             `secretfs manager enroll {name}`"
        )))
}

/// A URL for messages: without the slash that the `url` crate adds.
pub(super) fn show(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
