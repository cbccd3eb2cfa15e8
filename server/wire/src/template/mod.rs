//! Templates: files that a node makes from several secrets of one service.
//!
//! The text of a template is configuration and no secret. The manager checks it when it is set, and a
//! node checks it again and renders it in its own memory. Both do so here, so that they agree.
//!
//! The syntax is Jinja's, and less of it than usual: what touches a secret may put it out and filter
//! it, and nothing else. So a value can neither decide what is rendered nor get into a variable, an
//! error or any memory that is not wiped, and a template that renders once renders always, unless a
//! value is no text or too large.

mod filters;
#[cfg(test)]
mod memory_test;
mod render;
mod syntax;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::{SecretBytes, TargetName, VersionId};

/// The largest template, in bytes of its text: 64 KiB.
pub const TEMPLATE_MAX_BYTES: usize = 64 << 10;

/// Begins the digest that the version of a rendered template comes from. To be changed with whatever
/// changes what is rendered, so that no worker takes a rendering of another program for its own.
const DOMAIN: &[u8] = b"secretfs template 1";

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    /// With the line that names it first.
    inputs: BTreeMap<TargetName, usize>,
}

/// Why a text is no template, or cannot be rendered. Displays no value and no part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is too large, or there is none.
    #[error("the text of a template has 1 byte to 64 KiB")]
    Size,
    /// Something in the text.
    #[error("line {line}: {problem}")]
    At {
        /// The line, from 1.
        line: usize,
        /// What is wrong there. Quotes the template at most, never a value.
        problem: String,
    },
    /// Nothing is rendered, and a file has one byte at least.
    #[error("it renders to nothing")]
    Empty,
    /// More is rendered than a file may have.
    #[error("it renders to more than 1 MiB")]
    TooLarge,
}

impl Template {
    /// Checks a text.
    ///
    /// # Errors
    /// When it is no template, or one that can never be rendered.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() || text.len() > TEMPLATE_MAX_BYTES {
            return Err(TemplateError::Size);
        }
        let template = Self { text: text.into(), inputs: syntax::check(text)? };
        // No value decides what is rendered, so what fails with these fails with all. They are text, and
        // base64 of base64 of text.
        let value = || SecretBytes::new(b"WXpKYWVnPT0=".to_vec()).ok();
        let trial = |name: &TargetName| Some((name.clone(), value()?));
        template.render(template.inputs().filter_map(trial).collect())?;
        Ok(template)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The targets whose values it is made from.
    pub fn inputs(&self) -> impl Iterator<Item = &TargetName> {
        self.inputs.keys()
    }

    /// What to say of an input that is not there.
    pub fn missing(&self, input: &TargetName) -> TemplateError {
        let line = self.inputs.get(input).copied().unwrap_or(1);
        TemplateError::At { line, problem: format!("no secret is attached to this service as {input}") }
    }

    /// The version that is rendered from these versions of the inputs. Whoever renders it comes to the
    /// same, and a change of the text or of an input makes another one.
    pub fn version<'a>(&self, inputs: impl IntoIterator<Item = (&'a TargetName, VersionId)>) -> VersionId {
        let mut digest = digest::Context::new(&digest::SHA256);
        // Each part with its length before it, so that no two lists of parts look alike.
        let mut part = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(DOMAIN);
        part(self.text.as_bytes());
        let inputs: BTreeMap<_, _> = inputs.into_iter().collect();
        for (name, version) in inputs {
            part(name.as_str().as_bytes());
            part(&version.as_u64().to_be_bytes());
        }
        let digest = digest.finish();
        VersionId::of_digest(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Renders it. The same text and values always make the same bytes: there is no time, no
    /// randomness, no file and no environment.
    ///
    /// # Errors
    /// When a value is no text where text is put out, or the result is empty or larger than 1 MiB.
    pub fn render(&self, values: BTreeMap<TargetName, SecretBytes>) -> Result<SecretBytes, TemplateError> {
        render::render(&self.text, values)
    }
}
