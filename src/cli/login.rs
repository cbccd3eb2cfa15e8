//! Becoming an operator, and who one is.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secretfs_wire::api::{LoggedIn, LoginRequest};
use secretfs_wire::{EnrolmentToken, EnvironmentName, Grant};
use url::Url;

use super::config::{ConfigFile, user_directory};
use super::connect::{self, Operator};
use super::credentials::Login;
use super::error::Failure;
use super::{Global, operator, output, token};
use crate::client::{self, Admission, CertificateRequest, CertificateSummary, Credentials, describe_clock};

pub(super) const LOGIN_EXAMPLE: &str = "Examples:\n  \
    secretfs login https://manager.example:7443 --token sfo1....\n  \
    secretfs login https://manager.example:7443 --token - < token";
pub(super) const WHOAMI_EXAMPLE: &str = "Example:\n  secretfs whoami --json";

/// How long the manager may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The manager's URL
    url: Url,
    /// The token from `secretfs operator add` or `enroll`, or `-` to read it from standard input
    #[arg(long, env = "SECRETFS_LOGIN_TOKEN", hide_env_values = true)]
    token: String,
    /// Replace a login that is still good
    #[arg(long)]
    force: bool,
}

pub(super) async fn login(args: LoginArgs, global: &Global) -> Result<(), Failure> {
    let config = match &global.config {
        Some(config) => config.clone(),
        None => default_config()?,
    };
    let place = Login::at(&config);
    let token: EnrolmentToken = token::read(&args.token)?
        .parse()
        .map_err(|error: secretfs_wire::InvalidToken| Failure::usage(error.to_string()))?;
    // All that can be refused here is refused before the token is used up.
    let lock = place.lock().await?;
    if let Some(there) = place.occupied()?.filter(|_| !args.force) {
        let (file, until) = (there.file.display(), output::time(there.until));
        return Err(Failure::failed(format!(
            "{file} is the login of operator {}, good until {until}",
            there.name
        ))
        .hint("add --force to replace it, or --config FILE to keep both"));
    }
    let new = CertificateRequest::new().map_err(|error| Failure::from_error(&error))?;
    let request =
        LoginRequest { token: token.secret.expose_text().to_string(), certificate_request: new.request };
    let Admission { answer: LoggedIn { operator, certificate }, ca, clock } =
        client::login(args.url.clone(), &token, &request, TIMEOUT).await?;
    let manager = connect::show(&args.url);
    let credentials = Credentials { certificate, key: new.key, ca };
    let environment = only_environment(&operator.grants);
    place.write(&lock, &manager, environment.map(EnvironmentName::as_str), &credentials)?;

    let ends = CertificateSummary::of(&credentials.certificate).map(|summary| output::time(summary.end));
    let mut text = format!(
        "logged in to {manager} as {}: {}\nThe certificate is good until {} and renews itself when it is used. \
         It is beside {}.",
        operator.name,
        operator::roles(&operator.grants),
        ends.unwrap_or_default(),
        place.config().display(),
    );
    if global.config.is_some() {
        text.push_str(&format!("\nNext:\n  export SECRETFS_CONFIG={}", place.config().display()));
    }
    if let Some(ahead) = clock.host_ahead() {
        text.push_str(&format!("\nNote: {}", describe_clock(ahead)));
    }
    let json = serde_json::json!({ "operator": operator, "manager": manager, "config": place.config() });
    Ok(output::one(global, &json, &text)?)
}

fn default_config() -> Result<PathBuf, Failure> {
    let directory = user_directory().ok_or_else(|| {
        Failure::usage("there is no home directory for the credentials").hint("add --config FILE")
    })?;
    Ok(directory.join("config.toml"))
}

/// The environment that all roles are in, if it is one: to work in unless another one is named.
fn only_environment(grants: &[Grant]) -> Option<&EnvironmentName> {
    let first = grants.first()?.environment.as_ref()?;
    grants.iter().all(|grant| grant.environment.as_ref() == Some(first)).then_some(first)
}

pub(super) async fn whoami(global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let Operator { client, .. } = Operator::new(global, &file)?;
    let operator = client.whoami().await?;
    let text = format!(
        "Name:         {}\nRoles:        {}\nCertificate:  {}",
        operator.name,
        operator::roles(&operator.grants),
        match operator.certificate_expires {
            Some(end) => format!("good until {}", output::time(end)),
            None => "good".to_owned(),
        }
    );
    Ok(output::one(global, &operator, &text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_roles_in_one_environment_works_there() {
        let grants = |environments: &[&str]| -> Vec<Grant> {
            let environment = |name: &&str| name.parse().ok();
            environments
                .iter()
                .map(|name| Grant { role: secretfs_wire::Role::Viewer, environment: environment(name) })
                .collect()
        };
        let only = |environments| only_environment(&grants(environments)).map(ToString::to_string);
        assert_eq!(only(&["prod", "prod"]), Some("prod".to_owned()));
        for none in [&[][..], &["prod", "dev"], &["prod", ""], &["", "prod"]] {
            assert_eq!(only(none), None, "{none:?}");
        }
    }
}
