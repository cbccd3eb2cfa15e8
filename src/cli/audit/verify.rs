use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt as _;
use secretfs_wire::audit::{AuditCertificate, CaBundle, Line, SignedCheckpoint, Summary, Verifier};
use serde::Serialize;

use super::super::config::ConfigFile;
use super::super::connect::Operator;
use super::super::error::Failure;
use super::super::{Global, output};
use crate::client::AuditExtent;

/// The longest line that is looked at, in bytes.
const LINE_MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// A checkpoint that was kept, as `audit checkpoint` printed it: what comes before is not looked at
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
    keys: Vec<String>,
    /// Chains that this one says it follows.
    follows: Vec<String>,
}

pub(super) async fn run(args: VerifyArgs, global: &Global, file: &ConfigFile) -> Result<(), Failure> {
    let authority = authority(&args, file)?;
    let from = args.from.as_deref().map(kept).transpose()?;
    let verifier = || match &from {
        None => Ok(Verifier::new(authority.clone())),
        Some((certificate, signed)) => {
            Verifier::from_checkpoint(authority.clone(), certificate, signed).map_err(damaged)
        }
    };
    let mut summaries = Vec::new();
    if args.files.is_empty() {
        let operator = Operator::new(global, file)?;
        let kept = from.as_ref().map(|(_, signed)| &signed.checkpoint);
        let extent = AuditExtent {
            from: kept.map(|kept| kept.sequence),
            chain: kept.map(|kept| kept.chain),
            ..AuditExtent::default()
        };
        summaries.push(online(&operator, &extent, verifier()?).await?);
        // The chains that it goes on from, as far as this manager has them.
        while let Some(signed) = unseen(&summaries) {
            let chain = Some(signed.checkpoint.chain);
            let mut verifier = Verifier::new(authority.clone());
            verifier.must_meet(&signed.checkpoint);
            summaries
                .push(online(&operator, &AuditExtent { chain, ..AuditExtent::default() }, verifier).await?);
        }
    } else {
        for path in &args.files {
            summaries.push(offline(path, verifier()?)?);
        }
        linked(&args, &authority, &summaries)?;
    }
    for summary in &summaries {
        show(global, summary)?;
    }
    Ok(())
}

/// A link to a chain that was not verified yet.
fn unseen(summaries: &[Summary]) -> Option<SignedCheckpoint> {
    let links = summaries.iter().flat_map(|summary| &summary.follows);
    let is_seen = |link: &&SignedCheckpoint| {
        summaries.iter().all(|summary| summary.chain != Some(link.checkpoint.chain))
    };
    links.clone().find(is_seen).cloned()
}

/// Holds exports of chains that follow each other against what they say of each other.
fn linked(args: &VerifyArgs, authority: &CaBundle, summaries: &[Summary]) -> Result<(), Failure> {
    for link in summaries.iter().flat_map(|summary| &summary.follows) {
        let exports = args.files.iter().zip(summaries);
        for (path, _) in exports.filter(|(_, summary)| summary.chain == Some(link.checkpoint.chain)) {
            let mut verifier = Verifier::new(authority.clone());
            verifier.must_meet(&link.checkpoint);
            offline(path, verifier)?;
        }
    }
    Ok(())
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
        let length = (&mut input).take(LINE_MAX_BYTES).read_line(&mut line);
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

/// A checkpoint and its certificate, as they were printed.
fn kept(path: &Path) -> Result<(AuditCertificate, SignedCheckpoint), Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    let lines: Vec<_> = text.lines().map(Line::read).collect();
    match lines.as_slice() {
        [Ok(Line::Certificate(certificate)), Ok(Line::Checkpoint(signed))] => {
            Ok((certificate.clone(), signed.clone()))
        }
        _ => Err(Failure::failed(format!("{} is not what `audit checkpoint` prints", path.display()))),
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
    let Summary { chain, first, last, records, checkpoints, signed, keys, follows, .. } = summary;
    let chain = chain.map(|chain| chain.to_string());
    let verified = Verified {
        chain: chain.clone(),
        first: *first,
        last: *last,
        records: *records,
        checkpoints: *checkpoints,
        signed: *signed,
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
    Ok(output::one(global, &verified, &text)?)
}
