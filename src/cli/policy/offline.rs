//! What needs no manager: policies are checked and tried where they are written.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use secretfs_server::{CaseOutcome, Expected, PolicyCases, PolicyTrial, builtin_policies, policy_schema};
use serde_json::json;

use crate::cli::config::ConfigFile;
use crate::cli::error::Failure;
use crate::cli::{Global, output};

pub(super) const CHECK_EXAMPLE: &str = "Example:\n  secretfs policy check /etc/secretfs/policies";
pub(super) const TEST_EXAMPLE: &str = "Example:\n  secretfs policy test --policies /etc/secretfs/policies cases.toml\n\n\
    A case, in TOML (or JSON, in a file *.json):\n\n  \
    [[case]]\n  \
    name = \"who rotates may not attach\"\n  \
    operator = \"alice\"\n  \
    grants = [{ role = \"editor\", environment = \"prod\" }, { role = \"granter\" }]\n  \
    action = \"service.attach\"\n  \
    environment = \"prod\"\n  \
    object = { service = \"web\", secret = \"db_password\" }\n  \
    facts = {}                             # what a call says beside: roles, labels, selector, ...\n  \
    address = \"10.1.2.3\"                   # if policies look at it\n  \
    expect = \"deny\"                        # or \"allow\"\n  \
    policy = \"acme/separation\"             # has to be among those that decide, if it is named\n\n\
    Instead of an operator a node can ask: node = { environment = \"prod\", name = \"web-1\" }";
pub(super) const SHOW_EXAMPLE: &str =
    "Examples:\n  secretfs policy show\n  secretfs policy show editor\n  secretfs policy show schema";

/// The name under which the schema is shown.
const SCHEMA: &str = "schema";

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// The directory of the policies [default: `policies` of the configuration's manager section]
    #[arg(value_name = "DIR")]
    policies: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    /// The cases
    #[arg(value_name = "FILE")]
    cases: PathBuf,
    /// The directory of the policies [default: `policies` of the configuration's manager section, or the
    /// built-in ones alone]
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// One of them, by its role or file, or `schema` [default: all]
    name: Option<String>,
}

pub(super) fn check(args: CheckArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let directory = args.policies.or(file.manager.policies).ok_or_else(|| {
        Failure::usage("no directory of policies is named")
            .hint("name it, or write `policies` into the manager's section of the configuration")
    })?;
    let trial = open(Some(&directory))?;
    let (own, builtin) = (trial.own_policies(), trial.policies() - trial.own_policies());
    let text = format!("{own} policies are valid, beside {builtin} built-in ones");
    Ok(output::one(global, &json!({ "policies": own, "builtin": builtin }), &text)?)
}

pub(super) fn test(args: TestArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let directory = args.policies.or(file.manager.policies);
    let trial = open(directory.as_deref())?;
    let cases = read(&args.cases)?;
    let outcomes: Vec<_> = cases.case.iter().map(|case| trial.ask(case)).collect();
    output::listing(global, ["CASE", "EXPECTED", "ANSWERED", "BY", "RESULT"], &outcomes, row)?;
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    match failed {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("{failed} of {} cases failed", outcomes.len()))),
    }
}

fn open(directory: Option<&Path>) -> Result<PolicyTrial, Failure> {
    PolicyTrial::open(directory).map_err(|error| Failure::from_error(&error))
}

fn read(path: &Path) -> Result<PolicyCases, Failure> {
    let fault = |problem: String| Failure::failed(format!("{}: {problem}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).map_err(|error| fault(error.to_string()));
    }
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        fault(format!("line {line}: {}", error.message()))
    })
}

fn row(outcome: &CaseOutcome) -> [String; 5] {
    let word = |answer: Expected| match answer {
        Expected::Allow => "allow",
        Expected::Deny => "deny",
    };
    let by = match outcome.errors.is_empty() {
        true => outcome.policies.join(", "),
        false => outcome.errors.join("; "),
    };
    [
        outcome.name.clone(),
        word(outcome.expected).to_owned(),
        output::or_dash(outcome.answered.map(word).unwrap_or_default().to_owned()),
        output::or_dash(by),
        if outcome.passed { "ok" } else { "FAILED" }.to_owned(),
    ]
}

pub(super) fn show(args: &ShowArgs, global: &Global) -> Result<(), Failure> {
    let stem = |file: &str| file.trim_end_matches(".cedar").to_owned();
    let mut texts: Vec<_> = builtin_policies().iter().map(|(file, text)| (stem(file), *text)).collect();
    texts.push((SCHEMA.to_owned(), policy_schema()));
    if let Some(name) = &args.name {
        let wanted = stem(name);
        texts.retain(|(known, _)| *known == wanted);
        if texts.is_empty() {
            return Err(Failure::usage(format!("there is no {name}"))
                .hint("`secretfs policy show` shows all there are"));
        }
    }
    if global.json {
        let texts: serde_json::Map<_, _> =
            texts.into_iter().map(|(name, text)| (name, text.into())).collect();
        return Ok(output::json(&texts)?);
    }
    let shown = |(name, text): &(String, &str)| match args.name {
        Some(_) => (*text).to_owned(),
        None => format!("// ---- {name} ----\n\n{text}"),
    };
    Ok(output::verbatim(&texts.iter().map(shown).collect::<Vec<_>>().join("\n"))?)
}
