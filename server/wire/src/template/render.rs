//! Rendering, with nothing of a value left behind.
//!
//! To the template engine a secret is an object of which it can learn nothing. Only our own filters and
//! our own formatter look into it: a filter makes another such object, and the formatter writes to the
//! buffer that becomes the result. All of them are wiped.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior};
use zeroize::{Zeroize as _, Zeroizing};

use super::TemplateError;
use super::filters;
use crate::{InvalidSecretSize, SECRET_MAX_BYTES, SecretBytes, TargetName};

/// How much a template may do. Putting out 1 MiB takes 262,144 of it and the rest is for instructions;
/// all of it is used up within milliseconds.
const FUEL: u64 = 400_000;

/// A value, or what a filter made of one.
pub(super) struct Hidden {
    /// Whose value it is or was made of, if it is a secret's.
    pub(super) of: Option<TargetName>,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Object for Hidden {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    /// Nothing: whatever the engine makes a text of, for an error or a variable, has no value in it.
    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

/// What is wrong with a value. Displays nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("the value of {0} is not UTF-8 text; use the filter b64encode, or attach it as a file")]
    NotText(TargetName),
    #[error("the value of {0} is not base64")]
    NotBase64(TargetName),
    #[error("what the filter was given is not base64, or not text")]
    Unusable,
    #[error("a filter makes more than 1 MiB")]
    TooLarge,
    #[error("indent takes a number of spaces from 0 to 64")]
    Indent,
}

impl From<Problem> for minijinja::Error {
    fn from(problem: Problem) -> Self {
        Self::new(ErrorKind::InvalidOperation, "").with_source(problem)
    }
}

/// Jinja's syntax, except that the last newline stays: a file has what its template has.
pub(super) fn syntax() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.keep_trailing_newline(true);
    // Only other delimiters could be refused.
    builder.build().unwrap_or_default()
}

pub(super) fn render(
    text: &str,
    values: BTreeMap<TargetName, SecretBytes>,
) -> Result<SecretBytes, TemplateError> {
    let environment = environment();
    let template = environment.template_from_named_str("template", text).map_err(|error| failed(&error))?;
    let secrets = values.into_iter().map(|(name, value)| {
        let bytes = Zeroizing::new(value.expose_secret().to_vec());
        (name.to_string(), Value::from_object(Hidden { of: Some(name), bytes }))
    });
    let context = Value::from_pairs([("secrets", Value::from_pairs(secrets))]);
    let run = |buffer: &mut Buffer| {
        let rendered = template.render_captured_to(context.clone(), &mut *buffer);
        match rendered {
            _ if buffer.full => Err(TemplateError::TooLarge),
            Err(error) => Err(failed(&error)),
            Ok(_) => Ok(()),
        }
    };
    // Once to count and once to write, so that the buffer never grows: growing leaves copies behind.
    let mut counted = Buffer::default();
    run(&mut counted)?;
    let mut written = Buffer { bytes: Some(Vec::with_capacity(counted.size)), ..Buffer::default() };
    run(&mut written)?;
    let bytes = written.bytes.take().unwrap_or_default();
    SecretBytes::new(bytes).map_err(|error| match error {
        InvalidSecretSize::Empty => TemplateError::Empty,
        InvalidSecretSize::TooLarge => TemplateError::TooLarge,
    })
}

fn environment() -> Environment<'static> {
    // Empty: no loader, no functions, and no filters and tests but ours.
    let mut environment = Environment::empty();
    environment.set_syntax(syntax());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(put_out);
    filters::add(&mut environment);
    environment
}

/// The one way out for a value.
fn put_out(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    let Some(hidden) = value.downcast_object_ref::<Hidden>() else {
        if value.is_undefined() {
            return Err(ErrorKind::UndefinedError.into());
        }
        return Ok(write!(out, "{value}")?);
    };
    match (std::str::from_utf8(&hidden.bytes), &hidden.of) {
        (Ok(text), _) => Ok(out.write_str(text)?),
        (Err(_), Some(of)) => Err(Problem::NotText(of.clone()).into()),
        (Err(_), None) => Err(Problem::Unusable.into()),
    }
}

/// Of an error of the engine only its kind and its line are told: it may quote what it was working on.
fn failed(error: &minijinja::Error) -> TemplateError {
    let problem = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Problem>());
    let problem = match (problem, error.kind()) {
        (Some(problem), _) => problem.to_string(),
        (None, ErrorKind::UndefinedError) => "there is no such name".to_owned(),
        (None, ErrorKind::OutOfFuel) => "this is too much work for a template".to_owned(),
        (None, kind) => kind.to_string(),
    };
    TemplateError::At { line: error.line().unwrap_or(1), problem }
}

/// Counts what is written, and keeps it if it has bytes to keep it in. Wiped when it is dropped.
#[derive(Default)]
struct Buffer {
    bytes: Option<Vec<u8>>,
    size: usize,
    full: bool,
}

impl io::Write for Buffer {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.size += part.len();
        let fits = self.size <= SECRET_MAX_BYTES
            && self.bytes.as_ref().is_none_or(|bytes| self.size <= bytes.capacity());
        if !fits {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(bytes) = &mut self.bytes {
            bytes.extend_from_slice(part);
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
