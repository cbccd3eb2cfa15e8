//! The one name grammar.
//!
//! A name is a file name on every node and a segment of a URL path, so it is what both allow
//! without quoting: 1 to 195 ASCII letters, digits, `.`, `_` and `-`, beginning with a letter, a
//! digit or `_`. No leading dot keeps `.`, `..` and hidden files out; no leading dash keeps a name
//! from reading as an option.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes. A file name may have 255; 60 are left for suffixes that tools add.
pub const NAME_MAX_BYTES: usize = 195;

/// Why a text is not a name. Displays the offending text (a name is never a secret).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {given:?} {problem}")]
pub struct InvalidName {
    kind: &'static str,
    given: String,
    problem: &'static str,
}

fn check(kind: &'static str, given: String) -> Result<String, InvalidName> {
    let problem = match given.as_bytes() {
        [] => "is empty",
        bytes if bytes.len() > NAME_MAX_BYTES => "is longer than 195 bytes",
        [b'.', ..] => "begins with a dot",
        [b'-', ..] => "begins with a dash",
        bytes if bytes.iter().all(|byte| is_name_byte(*byte)) => return Ok(given),
        _ => "may hold only ASCII letters, digits, '.', '_' and '-'",
    };
    // A hostile name may be long or hold control characters: {:?} escapes, and this bounds it.
    let given = given.chars().take(NAME_MAX_BYTES).collect();
    Err(InvalidName { kind, given, problem })
}

const fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-')
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]{0,194}$"))]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(given: String) -> Result<Self, InvalidName> {
                check($kind, given).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(given: &str) -> Result<Self, InvalidName> {
                Self::try_from(given.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

names! {
    /// The scope of everything: `prod`, `staging`.
    EnvironmentName = "environment";
    /// A secret's name in its environment.
    SecretName = "secret";
    /// A named consumer in an environment.
    ServiceName = "service";
    /// The file name under which a service sees a secret.
    TargetName = "target";
    /// A host that joined an environment.
    NodeName = "node";
    /// A person or a CI job with a role.
    OperatorName = "operator";
    /// The key of an environment in the key backend.
    KeyName = "key";
}

impl From<SecretName> for TargetName {
    /// A target is by default named as its secret; both share one grammar.
    fn from(name: SecretName) -> Self {
        Self(name.0)
    }
}

impl From<EnvironmentName> for KeyName {
    /// An environment's key is by default named as the environment.
    fn from(name: EnvironmentName) -> Self {
        Self(name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_file_name_and_a_url_segment_both_allow_is_a_name() {
        for good in ["db_password", "a", "A.b-c_9", "_", "0", &"x".repeat(195)] {
            assert_eq!(good.parse::<SecretName>().expect(good).as_str(), good);
        }
    }

    #[test]
    fn everything_else_is_refused_with_what_is_wrong() {
        for (bad, why) in [
            ("", "is empty"),
            (".", "begins with a dot"),
            ("..", "begins with a dot"),
            (".hidden", "begins with a dot"),
            ("-e", "begins with a dash"),
            ("a/b", "may hold only"),
            ("a b", "may hold only"),
            ("a\0b", "may hold only"),
            ("pässword", "may hold only"),
            ("a%2fb", "may hold only"),
            (&"x".repeat(196), "is longer than 195 bytes"),
        ] {
            let error = bad.parse::<SecretName>().expect_err(bad).to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
            assert!(error.starts_with("secret name"), "{error}");
        }
    }

    #[test]
    fn a_name_is_checked_when_it_is_deserialized() {
        assert!(serde_json::from_str::<SecretName>("\"../etc\"").is_err());
        assert_eq!(serde_json::from_str::<SecretName>("\"ok\"").expect("ok").as_str(), "ok");
    }

    proptest! {
        #[test]
        fn a_name_is_one_path_component(given in "\\PC{0,220}") {
            if let Ok(name) = given.parse::<TargetName>() {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(given.as_str()));
            }
        }
    }
}
