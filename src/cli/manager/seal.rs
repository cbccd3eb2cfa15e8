//! What unlocks a manager: chosen at `init` and `rekey`, shown once, and given at `unlock`.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use clap::{Args, ValueEnum};
use secretfs_server::{
    AutoUnlock, Config, Refusal, RekeyError, SealPlan, SetAside, Split, StoppedManager, UnlockClient,
    UnlockClientError, UnlockMeans, UnlockProgress,
};
use secretfs_wire::api::CreatedEnrolment;
use secretfs_wire::{KeyBackendKind, KeyName, KeyReference, OperatorName};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::error::Failure;
use super::super::{Global, output};

/// More than sixteen shares have.
const MOST_BYTES: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct SealArgs {
    /// Split the unlock key into N shares, for N people [2-16]
    #[arg(long, value_name = "N", requires = "threshold", value_parser = clap::value_parser!(u8).range(2..=16))]
    shares: Option<u8>,
    /// How many of the shares are needed to unlock
    #[arg(long, value_name = "K", requires = "shares", value_parser = clap::value_parser!(u8).range(2..=16))]
    threshold: Option<u8>,
    /// What also unlocks the manager when it starts, without an operator; may be given several times
    #[arg(long, value_name = "HOW", value_enum)]
    auto_unlock: Vec<Auto>,
    /// The key that wraps the root key for `--auto-unlock vault` or `pkcs11`
    #[arg(long, value_name = "KEY", default_value = "secretfs-unlock")]
    unlock_key_name: KeyName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Auto {
    /// A key in a file of mode 0600: no seal against whoever gets the disk or a backup of it
    KeyFile,
    /// A key that systemd decrypts and hands to the service: no seal against whoever boots this host
    SystemdCredential,
    /// A key in Vault's Transit: no seal against whoever has this host's token for it
    Vault,
    /// A key in an HSM: no seal against whoever has the HSM and its PIN
    Pkcs11,
    /// Nothing: an operator unlocks the manager at each start
    None,
}

impl SealArgs {
    pub(super) fn plan(&self) -> Result<SealPlan, Failure> {
        let split = match self.shares.zip(self.threshold) {
            None => None,
            Some((shares, threshold)) => {
                Some(Split::new(shares, threshold).map_err(|error| Failure::usage(error.to_string()))?)
            }
        };
        let chosen: BTreeSet<_> = self.auto_unlock.iter().copied().collect();
        if chosen.contains(&Auto::None) && chosen.len() > 1 {
            return Err(Failure::usage("--auto-unlock none cannot be combined with another one"));
        }
        let auto = chosen.iter().filter_map(|auto| match auto {
            Auto::KeyFile => Some(AutoUnlock::KeyFile),
            Auto::SystemdCredential => Some(AutoUnlock::SystemdCredential),
            Auto::Vault => Some(self.by_backend(KeyBackendKind::Vault)),
            Auto::Pkcs11 => Some(self.by_backend(KeyBackendKind::Pkcs11)),
            Auto::None => None,
        });
        Ok(SealPlan { split, auto: (!chosen.is_empty()).then(|| auto.collect()) })
    }

    fn by_backend(&self, backend: KeyBackendKind) -> AutoUnlock {
        AutoUnlock::Backend(KeyReference { backend, name: self.unlock_key_name.clone() })
    }
}

/// What is shown once, for people.
pub(super) fn text(means: &UnlockMeans, config: &Config) -> String {
    let data = config.data_dir.display();
    let mut text = match &means.key {
        Some(key) => format!(
            "Unlock key, shown this once. Whoever has it and a copy of {data} can read every secret; without\n\
             it, a sealed manager stays sealed. Write it down and keep it elsewhere:\n\n    {}",
            key.as_str()
        ),
        None => {
            let shares: Vec<_> = means.shares.iter().map(|share| format!("    {}", share.as_str())).collect();
            format!(
                "Shares of the unlock key, shown this once. {} of them and a copy of {data} can read every\n\
                 secret; with fewer, a sealed manager stays sealed. Give each to somebody else:\n\n{}",
                means.threshold,
                shares.join("\n")
            )
        }
    };
    if let Some(credential) = &means.credential {
        let name = &config.unlock_credential;
        text.push_str(&format!(
            "\n\nUnlock key for systemd, shown this once. To keep it encrypted for this host:\n\n    \
             systemd-creds encrypt --name={name} - /etc/credstore.encrypted/{name}\n\n    {}",
            credential.as_str()
        ));
    }
    text
}

/// What is shown once, for programs.
pub(super) fn to_json(means: &UnlockMeans) -> Value {
    let mut value = json!({});
    match &means.key {
        Some(key) => value["unlock_key"] = json!(key.as_str()),
        None => {
            value["unlock_shares"] = means.shares.iter().map(|share| share.as_str()).collect();
            value["threshold"] = json!(means.threshold);
        }
    }
    if let Some(credential) = &means.credential {
        value["credential_unlock_key"] = json!(credential.as_str());
    }
    value
}

pub(super) async fn unlock(config: &Config, global: &Global) -> Result<(), Failure> {
    let client = UnlockClient::new(config);
    let progress = open(async |line: &str| client.give(line).await.map_err(unanswered)).await?;
    let text = match progress.is_unlocked {
        true => "the manager is unlocked and serves".to_owned(),
        false => format!("{}; the manager is still sealed", counted(&progress)),
    };
    Ok(output::one(global, &progress, &text)?)
}

fn unanswered(error: UnlockClientError) -> Failure {
    match error {
        UnlockClientError::NotRunning(_) => {
            Failure::unreachable(error.to_string()).hint("start it with `secretfs manager run`")
        }
        UnlockClientError::NotSealed(_) => {
            Failure::failed(error.to_string()).hint("there is nothing to unlock")
        }
        UnlockClientError::NoAnswer => Failure::unreachable(error.to_string()),
        UnlockClientError::Socket(_) => Failure::from_error(&error),
    }
}

pub(super) async fn rekey(args: &SealArgs, config: &Config, global: &Global) -> Result<(), Failure> {
    let plan = args.plan()?;
    // Why the seal does not open by itself, for one.
    global.start_logging("warn")?;
    let stopped = open_stopped(config).await?;
    let new = stopped.seal_anew(config, &plan).await.map_err(|error| Failure::from_error(&error))?;
    // First shown, then needed: the other way round, whoever is stopped in between is locked out.
    output::once(global, &to_json(new.means()), &text(new.means(), config))?;
    new.keep().await.map_err(|error| match &error {
        RekeyError::Unrecorded(_) => Failure::from_error(&error),
        _ => Failure::from_error(&error)
            .hint("what unlocked the manager before still does, and what was shown does not"),
    })?;
    say(
        "The root key is sealed anew. Only a backup of the old root.sealed opens by what unlocked it before.",
    );
    Ok(())
}

/// Makes somebody an administrator of everything, for whom the seal is proof enough.
pub(super) async fn enroll(
    name: &OperatorName,
    ttl: Duration,
    config: &Config,
    global: &Global,
) -> Result<CreatedEnrolment, Failure> {
    global.start_logging("warn")?;
    let stopped = open_stopped(config).await?;
    stopped.enroll(config, name, ttl).await.map_err(|error| Failure::from_error(&error))
}

pub(super) async fn begin_audit(config: &Config, global: &Global) -> Result<(), Failure> {
    global.start_logging("off")?;
    let stopped = open_stopped(config).await?;
    let SetAside { reason, files } =
        stopped.set_audit_aside(config).await.map_err(|error| Failure::from_error(&error))?;
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let text = format!("Set aside, since {reason}:\n\n    {}\n\nA new log has begun.", files.join("\n    "));
    Ok(output::one(global, &json!({ "reason": reason, "files": files }), &text)?)
}

/// Opens the seal of a stopped manager, with what standard input has if it needs that.
async fn open_stopped(config: &Config) -> Result<StoppedManager, Failure> {
    let mut stopped = StoppedManager::begin(config).await.map_err(|error| Failure::from_error(&error))?;
    let progress = match stopped.give("") {
        open if open.is_unlocked => open,
        _ => open(async |line: &str| Ok(stopped.give(line))).await?,
    };
    if !progress.is_unlocked {
        return Err(Failure::failed(format!("{}; nothing was changed", counted(&progress))));
    }
    Ok(stopped)
}

/// Gives what standard input has, one key or share a line, until the seal is open or there is no more.
/// People are asked for it, and see what they type no more than others do.
async fn open(
    mut give: impl AsyncFnMut(&str) -> Result<UnlockProgress, Failure>,
) -> Result<UnlockProgress, Failure> {
    let mut progress = give("").await?;
    let asks = io::stdin().is_terminal();
    let mut lines = if asks { None } else { Some(read_lines()?.into_iter()) };
    let mut given = 0;
    while !progress.is_unlocked {
        let line = match &mut lines {
            Some(lines) => lines.next(),
            None => ask(&progress).await?,
        };
        let Some(line) = line else { break };
        given += 1;
        progress = give(&line).await?;
        match progress.refusal {
            None if progress.threshold > 1 => say(&counted(&progress)),
            None => {}
            Some(refusal) if asks => say(&refused(refusal, &progress)),
            Some(refusal) => return Err(Failure::failed(refused(refusal, &progress))),
        }
    }
    if given == 0 && !progress.is_unlocked {
        return Err(Failure::failed("no unlock key was given").hint("it is read from standard input"));
    }
    Ok(progress)
}

fn counted(progress: &UnlockProgress) -> String {
    let given = if progress.is_unlocked { progress.threshold } else { progress.shares_given };
    format!("{given} of {} shares", progress.threshold)
}

fn refused(refusal: Refusal, progress: &UnlockProgress) -> String {
    match progress.retry_after_seconds {
        Some(seconds) => format!("{refusal}; try again in {seconds} s"),
        None => refusal.to_string(),
    }
}

fn say(text: &str) {
    // Nobody reads it where standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The lines of standard input that are not empty.
fn read_lines() -> Result<Vec<Zeroizing<String>>, Failure> {
    let failed = |error: io::Error| {
        Failure::failed(format!("cannot read the unlock key from standard input: {error}"))
    };
    // Of its final size from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * MOST_BYTES as usize));
    io::stdin().lock().take(MOST_BYTES).read_to_end(&mut text).map_err(failed)?;
    let lines = text.as_slice().lines().map(|line| line.map(Zeroizing::new));
    let lines: Vec<_> = lines.collect::<Result<_, _>>().map_err(failed)?;
    Ok(lines.into_iter().filter(|line| !line.trim().is_empty()).collect())
}

/// The next line from the terminal, without an echo; `None` for an empty one.
async fn ask(progress: &UnlockProgress) -> Result<Option<Zeroizing<String>>, Failure> {
    let prompt = match progress.threshold {
        1 => "Unlock key: ".to_owned(),
        threshold => format!("Share {} of {threshold} (empty to stop): ", progress.shares_given + 1),
    };
    let line = tokio::task::spawn_blocking(move || rpassword::prompt_password(prompt).map(Zeroizing::new))
        .await
        .map_err(|error| Failure::from_error(&error))?
        .map_err(|error| Failure::failed(format!("cannot read from the terminal: {error}")))?;
    Ok(Some(line).filter(|line| !line.trim().is_empty()))
}
