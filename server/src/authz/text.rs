//! The text of policies: read, named by `@id`, and held against the schema.

use std::fmt;
use std::str::FromStr as _;

use cedar_policy::{PolicyId, PolicySet, Validator};
use miette::Diagnostic;

use super::model::MODE;

/// Why policies cannot be used: where, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    file: String,
    line: Option<usize>,
    problem: String,
}

impl std::error::Error for PolicyError {}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl PolicyError {
    pub(super) fn new(file: impl fmt::Display, line: Option<usize>, problem: impl fmt::Display) -> Self {
        Self { file: file.to_string(), line, problem: one_line(&problem.to_string()) }
    }

    /// What the library says of a text, with the line that it means.
    fn of(file: &str, text: &str, problem: &dyn Diagnostic) -> Self {
        let label = problem.labels().and_then(|mut labels| labels.next());
        let line = label.map(|label| line_at(text, label.offset()));
        let help = problem.help().map(|help| format!(" ({help})")).unwrap_or_default();
        Self::new(file, line, format!("{problem}{help}"))
    }
}

/// A log line and an error on a terminal are one line each.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads the policies of a file, each under the id that its `@id` gives it.
pub(super) fn parse(file: &str, text: &str, validator: &Validator) -> Result<PolicySet, PolicyError> {
    let parsed = PolicySet::from_str(text).map_err(|errors| match errors.iter().next() {
        Some(first) => PolicyError::of(file, text, first),
        None => PolicyError::new(file, None, &errors),
    })?;
    if let Some(template) = parsed.templates().next() {
        let problem = "a policy with ?principal or ?resource is a form to fill in, and nobody fills it in";
        return Err(PolicyError::new(file, line(text, &template.to_string()), problem));
    }
    let mut named = PolicySet::new();
    for policy in parsed.policies() {
        let problem = |problem: String| PolicyError::new(file, line(text, &policy.to_string()), problem);
        let id = policy.annotation("id").filter(|id| !id.is_empty()).ok_or_else(|| {
            problem("a policy has no @id(\"...\"), by which decisions and the audit log name it".to_owned())
        })?;
        let policy = policy.new_id(PolicyId::new(id));
        named.add(policy).map_err(|_| problem(format!("there are two policies with the @id {id:?}")))?;
    }
    let validated = validator.validate(&named, MODE);
    let errors = validated.validation_errors().map(|error| PolicyError::of(file, text, error));
    // Among the warnings is that a policy applies to nothing: a forbid that is none.
    let warnings = validated.validation_warnings().map(|warning| PolicyError::of(file, text, warning));
    match errors.chain(warnings).min_by_key(|error| error.line) {
        Some(first) => Err(first),
        None => Ok(named),
    }
}

/// The line that a part of a text begins in.
fn line(text: &str, part: &str) -> Option<usize> {
    text.find(part).map(|offset| line_at(text, offset))
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
