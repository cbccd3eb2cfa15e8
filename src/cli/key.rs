use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use secretfs_wire::api::{EnvironmentKeys, KeyVersion, MigrateKey, RefusedVersion, RewrapStep, Rewrapped};
use secretfs_wire::{KeyBackendKind, KeyName, KeyReference};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::{Global, output, value};
use crate::client::EnvironmentClient;

/// The keys under which environments' data keys are wrapped.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List keys and their versions: how old they are, and how much is wrapped under each
    #[command(after_help = "Example:\n  secretfs key ls --json")]
    Ls,
    /// Give an environment's key a new version, which wraps from now on; older ones still unwrap
    #[command(after_help = "Example:\n  secretfs key rotate -e prod && secretfs key rewrap -e prod")]
    Rotate,
    /// Move all data keys of an environment to the newest version of its key. It can be stopped at any
    /// time, and goes on where it was when it is called again
    #[command(after_help = "Example:\n  secretfs key rewrap -e prod --rate 500")]
    Rewrap(PaceArgs),
    /// Give an environment another key, in the same key backend or in another, and move all data keys to
    /// it. It can be stopped at any time, and goes on where it was when it is called again
    #[command(after_help = "Examples:\n  secretfs key migrate -e prod --to vault\n  \
        secretfs key migrate -e prod --to local --key-name prod-2027")]
    Migrate {
        /// Where the new key is kept: local, vault or pkcs11
        #[arg(long, value_name = "BACKEND")]
        to: KeyBackendKind,
        /// Its name there [default: that of the present key]
        #[arg(long, value_name = "KEY")]
        key_name: Option<KeyName>,
        #[command(flatten)]
        pace: PaceArgs,
    },
    /// Destroy all versions of an environment's keys that nothing is wrapped under any more. What was
    /// backed up before can then be read only with a copy of the key
    #[command(after_help = "Example:\n  secretfs key retire -e prod")]
    Retire,
    /// Take in a local key of 32 bytes that was made elsewhere, for an environment to be created with it
    #[command(after_help = "Example:\n  secretfs key import legacy /etc/rancher/enc.key\n  \
        secretfs env create prod --key-name legacy")]
    Import {
        /// The name to give it
        name: KeyName,
        /// A file with its 32 bytes as they are, or `-` for standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct PaceArgs {
    /// How many data keys to move in a second at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
}

/// What a whole rewrap or migration has done.
#[derive(Serialize)]
struct Moved {
    key: KeyReference,
    version: u64,
    moved: u64,
    remaining: u64,
    refused: Vec<RefusedVersion>,
}

pub(super) async fn run(command: KeyCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let operator = Operator::new(global, &file)?;
    match command {
        KeyCommand::Ls => list(global, operator.client.keys().await?)?,
        KeyCommand::Rotate => {
            let rotated = operator.environment()?.rotate_key().await?;
            output::one(global, &rotated, &format!("{}:{}", rotated.key, rotated.version))?;
        }
        KeyCommand::Rewrap(pace) => rewrap(global, operator.environment()?, &pace).await?,
        KeyCommand::Migrate { to, key_name, pace } => {
            let environment = operator.environment()?;
            environment.migrate_key(&MigrateKey { to, key_name }).await?;
            rewrap(global, environment, &pace).await?;
        }
        KeyCommand::Retire => {
            let retired = operator.environment()?.retire_keys().await?;
            output::listing(global, ["KEY", "RETIRED"], &retired, |retired| {
                let what = match retired.below {
                    None => "all versions".to_owned(),
                    Some(below) => format!("versions below {below}"),
                };
                [retired.key.to_string(), what]
            })?;
        }
        KeyCommand::Import { name, file } => {
            let key = value::read(file).await?;
            operator.client.import_key(&name, key).await?;
            output::one(global, &name, name.as_str())?;
        }
    }
    Ok(())
}

fn list(global: &Global, keys: Vec<EnvironmentKeys>) -> Result<(), Failure> {
    if global.json {
        return Ok(output::json(&keys)?);
    }
    let rows: Vec<(&EnvironmentKeys, &KeyVersion)> =
        keys.iter().flat_map(|keys| keys.versions.iter().map(move |version| (keys, version))).collect();
    let now = jiff::Timestamp::now();
    let mut table = Vec::new();
    for (keys, version) in rows {
        let state = match (version.key == keys.key, Some(version.version) == keys.newest) {
            (true, true) => "wraps",
            (true, false) | (false, _) if version.data_keys > 0 => "unwraps",
            _ => "unused",
        };
        let age = version.created.map(|created| {
            let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
            humantime::format_duration(Duration::from_secs(rounded(age.as_secs()))).to_string()
        });
        table.push([
            keys.environment.to_string(),
            version.key.to_string(),
            version.version.to_string(),
            state.to_owned(),
            version.data_keys.to_string(),
            output::or_dash(age.unwrap_or_default()),
        ]);
    }
    let headings = ["ENVIRONMENT", "KEY", "VERSION", "STATE", "DATA KEYS", "AGE"];
    output::listing(global, headings, &table, Clone::clone)?;
    // What a listing cannot show makes it incomplete, and a script has to know.
    match keys.into_iter().find_map(|keys| keys.problem.map(|problem| (keys.environment, problem))) {
        Some((environment, problem)) => {
            Err(Failure::failed(format!("the keys of {environment} are not listed completely: {problem}")))
        }
        None => Ok(()),
    }
}

/// An age to its largest unit, so that it can be read at a glance.
fn rounded(seconds: u64) -> u64 {
    let unit = [86_400, 3_600, 60].into_iter().find(|unit| seconds >= *unit).unwrap_or(1);
    seconds / unit * unit
}

async fn rewrap(global: &Global, environment: EnvironmentClient<'_>, pace: &PaceArgs) -> Result<(), Failure> {
    // Steps of a fifth of a second: the bar moves, and whoever else writes gets in between.
    let limit = (pace.rate / 5).clamp(1, 200);
    let (mut progress, mut refused, mut moved) = (None, Vec::new(), 0);
    let mut step = RewrapStep { after: None, limit };
    let last = loop {
        let began = Instant::now();
        let done = environment.rewrap_keys(&step).await?;
        moved += done.moved;
        refused.extend(done.refused.iter().cloned());
        let bar = progress.get_or_insert_with(|| Progress::new(&done));
        bar.show(&done);
        step.after = done.next;
        if done.next.is_none() {
            bar.end();
            break done;
        }
        sleep_until(began + Duration::from_secs(1) * limit / pace.rate).await;
    };
    let Rewrapped { key, version, remaining, .. } = last;
    let text = format!("{key}:{version}: {moved} data keys moved, {remaining} left");
    let result = Moved { key, version, moved, remaining, refused };
    output::one(global, &result, &text)?;
    match result.refused.as_slice() {
        [] if remaining == 0 => Ok(()),
        [] => {
            Err(Failure::failed(format!("{remaining} data keys were added meanwhile")).hint("run it again"))
        }
        [first, ..] => Err(Failure::failed(format!(
            "{} versions do not open where they are stored, the first is version {} of secret {}",
            result.refused.len(),
            first.version,
            first.secret
        ))
        .hint("rotate or remove these secrets, or restore the store from a backup")),
    }
}

/// How far it is, on standard error: a bar for people, and where nobody watches a line for each tenth.
struct Progress {
    bar: ProgressBar,
    total: u64,
    tenths: u64,
}

impl Progress {
    fn new(first: &Rewrapped) -> Self {
        let total = first.moved + first.remaining;
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar: bar.with_message(format!("{}:{}", first.key, first.version)), total, tenths: 0 }
    }

    fn show(&mut self, step: &Rewrapped) {
        let done = self.total.saturating_sub(step.remaining);
        self.bar.set_position(done);
        let tenths = (done * 10).checked_div(self.total).unwrap_or(0);
        if self.bar.is_hidden() && tenths > self.tenths {
            self.tenths = tenths;
            // Who closed standard error wants to hear nothing.
            let _ =
                writeln!(io::stderr(), "{}:{}: {done} of {} data keys", step.key, step.version, self.total);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_read_at_a_glance() {
        for (seconds, text) in [(59, "59s"), (61, "1m"), (7_300, "2h"), (200_000, "2days"), (0, "0s")] {
            let age = Duration::from_secs(rounded(seconds));
            assert_eq!(humantime::format_duration(age).to_string(), text);
        }
    }
}
