//! Which nodes still have an old version of a secret, and waiting until none has.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use secretfs_wire::SecretName;
use secretfs_wire::api::{SecretDetails, SecretUsage};

use super::error::Failure;
use super::{Global, output};
use crate::client::{ClientError, EnvironmentClient};

/// How often the manager is asked.
const POLL: Duration = Duration::from_millis(500);
/// A version that is current again is reported by nodes that have not heard yet that it ever was not.
/// By then they have.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// How many nodes one line names.
const NAMED: usize = 5;

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Wait until no node serves or holds another version
    #[arg(long)]
    pub(super) wait: bool,
    /// How long to wait, such as 90s
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Waits until no node has anything but the current version, at least for `settle`.
pub(super) async fn wait(
    global: &Global,
    environment: EnvironmentClient<'_>,
    name: &SecretName,
    args: &WaitArgs,
    settle: Duration,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut progress = Progress::new();
    loop {
        let asked = environment.secret(name).await;
        let waited = began.elapsed();
        let (text, last) = match &asked {
            Ok(details) => {
                let waiting_for = others(details);
                if waiting_for.is_empty() && waited >= settle {
                    progress.end();
                    return if global.json { Ok(output::json(details)?) } else { Ok(()) };
                }
                let (count, of) = (waiting_for.len(), details.usage.len());
                (format!("waiting for {count} of {of} nodes: {}", named(details, &waiting_for)), true)
            }
            Err(error @ ClientError::Unreachable { .. }) => (format!("waiting: {error}"), false),
            Err(_) => (String::new(), true),
        };
        let details = match asked {
            Err(error) if last => return Err(error.into()),
            other => other,
        };
        if waited >= args.timeout {
            progress.end();
            return Err(timed_out(global, args.timeout, details)?);
        }
        progress.show(&text);
        tokio::time::sleep(POLL.min(args.timeout - waited)).await;
    }
}

fn timed_out(
    global: &Global,
    timeout: Duration,
    last: Result<SecretDetails, ClientError>,
) -> Result<Failure, Failure> {
    let details = last?;
    if global.json {
        output::json(&details)?;
    }
    let after = humantime::format_duration(timeout);
    let (name, who) = (&details.secret.name, named(&details, &others(&details)));
    Ok(Failure::failed(format!("after {after} another version of {name} may still be in use: {who}")))
}

/// The nodes that have, or may have, another version than the current one.
fn others(details: &SecretDetails) -> Vec<&SecretUsage> {
    details.usage.iter().filter(|usage| !usage.has_only(details.secret.current)).collect()
}

fn named(details: &SecretDetails, usage: &[&SecretUsage]) -> String {
    let mut named: Vec<_> = usage
        .iter()
        .take(NAMED)
        .map(|usage| format!("{} {}", usage.node, describe(usage, details)))
        .collect();
    if usage.len() > NAMED {
        named.push(format!("and {} more", usage.len() - NAMED));
    }
    named.join("; ")
}

/// What a node has, as in `web-1 serves version 2, holds version 1 in 3 open files`.
pub(super) fn describe(usage: &SecretUsage, details: &SecretDetails) -> String {
    let mut parts = Vec::new();
    match (usage.connected, usage.reported) {
        (true, Some(_)) => {}
        (true, None) => return "has not reported yet".to_owned(),
        (false, None) => return "is not connected".to_owned(),
        (false, Some(at)) => {
            parts.push(format!("is not connected; when it last reported, {}, it", output::time(at)))
        }
    }
    let mut has = Vec::new();
    match usage.version {
        Some(version) if version == details.secret.current => has.push(format!("serves version {version}")),
        Some(version) => has.push(format!("serves version {version} still")),
        None if usage.assigned => has.push("does not serve it yet".to_owned()),
        None => {}
    }
    has.extend(usage.old.iter().map(|old| {
        let files = if old.handles == 1 { "file" } else { "files" };
        format!("holds version {} in {} open {files}", old.version, old.handles)
    }));
    parts.push(has.join(", "));
    parts.join(" ")
}

/// What is being waited for, on standard error: one line that changes for people, and a line for each
/// change where nobody watches.
struct Progress {
    shown: String,
    is_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: String::new(), is_terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, text: &str) {
        if self.shown == text {
            return;
        }
        text.clone_into(&mut self.shown);
        // To the line's begin, and clear it. Who closed standard error wants to hear nothing.
        let _ = match self.is_terminal {
            true => write!(io::stderr(), "\r\x1b[K{text}"),
            false => writeln!(io::stderr(), "{text}"),
        };
    }

    fn end(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use secretfs_wire::api::{Secret, VersionInUse};

    use super::*;

    fn usage(node: &str, version: Option<u64>, old: &[(u64, u64)]) -> SecretUsage {
        SecretUsage {
            node: node.parse().expect("a name"),
            assigned: true,
            connected: true,
            reported: Some(Timestamp::UNIX_EPOCH),
            version,
            old: old
                .iter()
                .map(|(version, handles)| VersionInUse { version: *version, handles: *handles })
                .collect(),
        }
    }

    fn details(usage: Vec<SecretUsage>) -> SecretDetails {
        let secret = Secret {
            name: "db".parse().expect("a name"),
            current: 2,
            versions: 2,
            labels: Default::default(),
            created: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
        };
        SecretDetails { secret, history: vec![], attached: vec![], usage }
    }

    #[test]
    fn it_says_who_has_what() {
        let cut_off = SecretUsage { connected: false, ..usage("d", Some(1), &[]) };
        let silent = SecretUsage { reported: None, ..usage("e", None, &[]) };
        let details = details(vec![
            usage("a", Some(2), &[]),
            usage("b", Some(1), &[]),
            usage("c", Some(2), &[(1, 1), (3, 2)]),
            cut_off,
            silent,
            usage("f", None, &[]),
            usage("g", None, &[]),
        ]);
        assert_eq!(
            named(&details, &others(&details)),
            "b serves version 1 still; c serves version 2, holds version 1 in 1 open file, holds version 3 \
             in 2 open files; d is not connected; when it last reported, 1970-01-01 00:00:00Z, it serves \
             version 1 still; e has not reported yet; f does not serve it yet; and 1 more"
        );
    }
}
