//! Labels, and selectors over them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NAME_MAX_BYTES;

/// Labels of a secret or a node: keys and values in the grammar of names, values may be empty.
///
/// Written as `k=v,k2=v2`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
pub struct Labels(BTreeMap<String, String>);

/// A text that is not `key=value`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// There is no `=`.
    #[error("label {0:?} is not of the form key=value")]
    NoEquals(String),
    /// The key or the value is not in the grammar.
    #[error(
        "label {0:?}: keys and values are ASCII letters, digits, '.', '_', '-' and '/', at most 195 bytes"
    )]
    Grammar(String),
    /// One key has two values.
    #[error("label key {0:?} is given twice")]
    Twice(String),
}

impl Labels {
    /// Adds one label, over an older one of the same key.
    ///
    /// # Errors
    /// When the key or the value is not in the grammar.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), InvalidLabel> {
        let allowed = |text: &str| {
            text.len() <= NAME_MAX_BYTES
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
        };
        if key.is_empty() || !allowed(key) || !allowed(value) {
            return Err(InvalidLabel::Grammar(format!("{key}={value}")));
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Takes one label away; nothing happens when it is not there.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Keys and values, in the keys' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Labels {
    type Err = InvalidLabel;
    fn from_str(given: &str) -> Result<Self, InvalidLabel> {
        let mut labels = Self::default();
        for pair in given.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| InvalidLabel::NoEquals(pair.to_owned()))?;
            if labels.0.contains_key(key) {
                return Err(InvalidLabel::Twice(key.to_owned()));
            }
            labels.set(key, value)?;
        }
        Ok(labels)
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = InvalidLabel;
    fn try_from(given: BTreeMap<String, String>) -> Result<Self, InvalidLabel> {
        let mut labels = Self::default();
        for (key, value) in given {
            labels.set(&key, &value)?;
        }
        Ok(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Chooses nodes: those that have all of these labels. An empty selector is refused, since it would
/// choose every node by oversight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, examples("role=web,zone=a")))]
pub struct Selector(Labels);

impl Selector {
    /// The labels that a node has to have.
    pub fn labels(&self) -> &Labels {
        &self.0
    }

    /// Whether a node with these labels is chosen.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.0.get(key).is_some_and(|has| has == value))
    }
}

impl FromStr for Selector {
    type Err = InvalidLabel;
    fn from_str(given: &str) -> Result<Self, InvalidLabel> {
        let labels: Labels = given.parse()?;
        if labels.is_empty() {
            return Err(InvalidLabel::NoEquals(given.to_owned()));
        }
        Ok(Self(labels))
    }
}

impl TryFrom<String> for Selector {
    type Error = InvalidLabel;
    fn try_from(given: String) -> Result<Self, InvalidLabel> {
        given.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_chooses_nodes_that_have_all_its_labels() {
        let selector: Selector = "role=web,zone=a".parse().expect("a selector");
        for (labels, chosen) in [
            ("role=web,zone=a", true),
            ("role=web,zone=a,extra=1", true),
            ("role=web", false),
            ("role=web,zone=b", false),
            ("", false),
        ] {
            assert_eq!(selector.matches(&labels.parse().expect(labels)), chosen, "{labels}");
        }
    }

    #[test]
    fn malformed_labels_are_refused() {
        for bad in ["novalue", "=v", "k=v=w", "k=a b", "k=1,k=2"] {
            assert!(bad.parse::<Labels>().is_err(), "{bad}");
        }
        assert!("".parse::<Selector>().is_err());
        assert_eq!("b=2,a=1".parse::<Labels>().expect("labels").to_string(), "a=1,b=2");
    }
}
