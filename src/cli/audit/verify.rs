use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use secretfs_wire::ChainId;
use secretfs_wire::audit::{AuditCertificate, CaBundle, Line, SignedCheckpoint, Summary, Verifier};
use serde::Serialize;

use super::super::config::ConfigFile;
use super::super::connect::Operator;
use super::super::error::Failure;
use super::super::{Global, output};
use crate::client::{AUDIT_LINE_MAX_BYTES, AuditExtent};

/// How long records may be without a signature before it is strange.
const UNSIGNED_AT_MOST: SignedDuration = SignedDuration::from_mins(1);

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// A checkpoint that was kept, as `audit checkpoint` printed it, which the log must go on from. Of the
    /// chain that the manager writes, what comes before it is not looked at
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The CA's certificates [default: `operator.ca` of the configuration]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Exports, `-` for standard input, one chain each [default: what the manager has]
    #[arg(value_name = "FILE|-")]
    files: Vec<PathBuf>,
}

/// What was verified, for programs.
#[derive(Serialize)]
struct Verified {
    chain: Option<String>,
    first: u64,
    last: u64,
    records: u64,
    checkpoints: u64,
    /// Up to which record there is a signature.
    signed: u64,
    /// How many records come after it, and when the first of them was recorded.
    unsigned: u64,
    unsigned_since: Option<Timestamp>,
    keys: Vec<String>,
    /// Chains that this one says it follows.
    follows: Vec<String>,
}

/// A checkpoint that was kept elsewhere, and the certificate of its key.
struct Kept {
    certificate: AuditCertificate,
    signed: SignedCheckpoint,
}

pub(super) async fn run(args: VerifyArgs, global: &Global, file: &ConfigFile) -> Result<(), Failure> {
    let authority = authority(&args, file)?;
    let kept = args.from.as_deref().map(kept).transpose()?;
    // In any case it is one of this CA's.
    let after = kept.as_ref().map(|kept| kept.verifier(&authority)).transpose()?;
    let held = || {
        let mut verifier = Verifier::new(authority.clone());
        kept.iter().for_each(|kept| verifier.must_meet(&kept.signed.checkpoint));
        verifier
    };
    let summaries = if args.files.is_empty() {
        let operator = Operator::new(global, file)?;
        manager(&operator, kept.as_ref().zip(after), held).await?
    } else {
        exports(&args.files, held)?
    };
    let is_met = |kept: &Kept| summaries.iter().any(|summary| summary.chain == Some(kept.chain()));
    if let Some(kept) = kept.as_ref().filter(|kept| !is_met(kept)) {
        let chain = kept.chain();
        return Err(Failure::failed(format!("the checkpoint is of chain {chain}, and nothing here is")));
    }
    summaries.iter().try_for_each(|summary| show(global, summary))
}

/// Verifies what a manager has: the chain that it writes, and those that it goes on from.
async fn manager(
    operator: &Operator,
    kept: Option<(&Kept, Verifier)>,
    held: impl Fn() -> Verifier,
) -> Result<Vec<Summary>, Failure> {
    let (mut extent, mut verifier) = (AuditExtent::default(), held());
    if let Some((kept, after)) = kept {
        let newest = checkpoint(&operator.client.audit_checkpoint().await?);
        // Otherwise it may be of a chain before the one that is written.
        if newest.is_some_and(|newest| newest.chain() == kept.chain()) {
            (extent.from, verifier) = (Some(kept.signed.checkpoint.sequence), after);
        }
    }
    let mut summaries = vec![online(operator, &extent, verifier).await?];
    while let Some(link) = unseen(&summaries) {
        let extent = AuditExtent { chain: Some(link.checkpoint.chain), ..AuditExtent::default() };
        let mut verifier = held();
        verifier.must_meet(&link.checkpoint);
        summaries.push(online(operator, &extent, verifier).await?);
    }
    Ok(summaries)
}

/// Verifies exports, each from its first record on, and holds them against what they say of each other.
fn exports(files: &[PathBuf], held: impl Fn() -> Verifier) -> Result<Vec<Summary>, Failure> {
    let summaries: Vec<_> = files.iter().map(|path| offline(path, held())).collect::<Result<_, _>>()?;
    for link in summaries.iter().flat_map(|summary| &summary.follows) {
        let linked = |(_, summary): &(_, &Summary)| summary.chain == Some(link.checkpoint.chain);
        for (path, _) in files.iter().zip(&summaries).filter(linked) {
            let mut verifier = held();
            verifier.must_meet(&link.checkpoint);
            offline(path, verifier)?;
        }
    }
    Ok(summaries)
}

/// A link to a chain that was not verified yet.
fn unseen(summaries: &[Summary]) -> Option<SignedCheckpoint> {
    let links = summaries.iter().flat_map(|summary| &summary.follows);
    let is_seen = |link: &&SignedCheckpoint| {
        summaries.iter().all(|summary| summary.chain != Some(link.checkpoint.chain))
    };
    links.clone().find(is_seen).cloned()
}

async fn online(
    operator: &Operator,
    extent: &AuditExtent,
    mut verifier: Verifier,
) -> Result<Summary, Failure> {
    let mut lines = operator.client.audit(extent).await?.lines;
    while let Some(line) = lines.next().await {
        verifier.line(&line?).map_err(damaged)?;
    }
    verifier.finish().map_err(damaged)
}

fn offline(path: &Path, mut verifier: Verifier) -> Result<Summary, Failure> {
    let cannot = |error: io::Error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(cannot)?),
    };
    let mut input = BufReader::new(input);
    let mut line = String::new();
    loop {
        line.clear();
        let length = (&mut input).take(AUDIT_LINE_MAX_BYTES as u64).read_line(&mut line);
        match length {
            Ok(0) => return verifier.finish().map_err(damaged),
            Ok(_) => {}
            // It is then no line of a log, wherever it stands.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => line.clear(),
            Err(error) => return Err(cannot(error)),
        }
        verifier.line(line.strip_suffix('\n').unwrap_or("")).map_err(damaged)?;
    }
}

impl Kept {
    fn chain(&self) -> ChainId {
        self.signed.checkpoint.chain
    }

    /// Verifies how its chain goes on from it.
    fn verifier(&self, authority: &CaBundle) -> Result<Verifier, Failure> {
        Verifier::from_checkpoint(authority.clone(), &self.certificate, &self.signed).map_err(damaged)
    }
}

fn kept(path: &Path) -> Result<Kept, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    checkpoint(&text)
        .ok_or_else(|| Failure::failed(format!("{} is not what `audit checkpoint` prints", path.display())))
}

/// A checkpoint and its certificate, as they are printed.
fn checkpoint(text: &str) -> Option<Kept> {
    let lines: Vec<_> = text.lines().map(Line::read).collect();
    match lines.as_slice() {
        [Ok(Line::Certificate(certificate)), Ok(Line::Checkpoint(signed))] => {
            Some(Kept { certificate: certificate.clone(), signed: signed.clone() })
        }
        _ => None,
    }
}

fn authority(args: &VerifyArgs, file: &ConfigFile) -> Result<CaBundle, Failure> {
    let path = match (&args.ca, &file.operator.ca) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => file.resolve(path),
        (None, None) => return Err(Failure::usage("the CA is not known").hint("add --ca FILE")),
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::failed(format!("cannot read the CA {}: {error}", path.display())))?;
    CaBundle::from_pem(&text)
        .ok_or_else(|| Failure::failed(format!("{} has no certificates", path.display())))
}

fn damaged(fault: secretfs_wire::audit::Fault) -> Failure {
    Failure::failed(format!("the audit log is damaged: {fault}"))
}

fn show(global: &Global, summary: &Summary) -> Result<(), Failure> {
    let Summary { chain, first, last, records, checkpoints, signed, unsigned_since, keys, follows, .. } =
        summary;
    let (chain, unsigned) = (chain.map(|chain| chain.to_string()), last - signed);
    let verified = Verified {
        chain: chain.clone(),
        first: *first,
        last: *last,
        records: *records,
        checkpoints: *checkpoints,
        signed: *signed,
        unsigned,
        unsigned_since: *unsigned_since,
        keys: keys.iter().map(ToString::to_string).collect(),
        follows: follows.iter().map(|link| link.checkpoint.chain.to_string()).collect(),
    };
    let mut text = format!(
        "whole: records {first} to {last} of chain {}, signed up to {signed} with {}",
        chain.unwrap_or_else(|| "-".to_owned()),
        match keys.as_slice() {
            [key] => format!("key {key}"),
            keys => format!("{} keys", keys.len()),
        }
    );
    for link in follows {
        let checkpoint = &link.checkpoint;
        text = format!("{text}; follows chain {} from record {}", checkpoint.chain, checkpoint.sequence);
    }
    if let Some(since) = unsigned_since.filter(|since| is_overdue(*since)) {
        text = format!(
            "{text}\nwarning: the last {unsigned} records are not signed, the first of them since {since}: whoever \
             could write the log could have made them"
        );
    }
    Ok(output::one(global, &verified, &text)?)
}

/// Whether a running manager would have signed long ago. The records of the last second never are.
fn is_overdue(since: Timestamp) -> bool {
    Timestamp::now().duration_since(since) > UNSIGNED_AT_MOST
}
