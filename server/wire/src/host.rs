//! What a host says of itself when it joins. It helps a human to recognise the host, and proves nothing.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many characters a fact has at most.
const FACT_MAX_CHARACTERS: usize = 128;
/// How many addresses a host may say that it has.
pub const HOST_MAX_ADDRESSES: usize = 16;

/// A short text that a host says of itself, as it may be shown in a terminal: printable ASCII, at most
/// 128 characters.
///
/// Whatever is given becomes one: other characters are written as `\u{1b}`, and what is too long is cut.
/// So a host cannot paint over what an operator sees, and a strange name refuses nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, max_length = 128))]
pub struct HostFact(String);

impl HostFact {
    /// What of a text may be shown.
    pub fn new(given: &str) -> Self {
        let mut shown = String::new();
        for character in given.trim().chars() {
            let before = shown.len();
            match character {
                ' '..='~' => shown.push(character),
                other => shown.extend(other.escape_unicode()),
            }
            if shown.len() > FACT_MAX_CHARACTERS {
                // Not in the middle of what stands for one character.
                shown.truncate(before);
                break;
            }
        }
        // Where it was cut.
        shown.truncate(shown.trim_end().len());
        Self(shown)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for HostFact {
    fn from(given: String) -> Self {
        Self::new(&given)
    }
}

impl From<HostFact> for String {
    fn from(fact: HostFact) -> Self {
        fact.0
    }
}

impl fmt::Display for HostFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a host says of itself; each fact may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFacts {
    /// Its name, as its kernel knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostFact>,
    /// Its operating system: `PRETTY_NAME` of os-release(5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<HostFact>,
    /// Its kernel's release, such as `6.12.0-amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<HostFact>,
    /// Its architecture, such as `x86_64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<HostFact>,
    /// Which installation it is, also if it joins again; a machine that was cloned has the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineDigest>,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub booted: Option<Timestamp>,
    /// The addresses from which it reaches the manager, before anything translates them; at most
    /// [`HOST_MAX_ADDRESSES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>, max_items = 16))]
    pub addresses: Vec<IpAddr>,
}

impl HostFacts {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What machine-id(5) wants told instead of the machine's id: a keyed hash of it for one application.
///
/// It is what `systemd-id128 machine-id --app-specific=f0b7e06ba5914cd2a5e7d5e87ab54a3f` prints on that
/// host, so that an operator can compare them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{32}$"))]
pub struct MachineDigest(u128);

/// Names secretfs in [`MachineDigest`].
const APPLICATION: u128 = 0xf0b7_e06b_a591_4cd2_a5e7_d5e8_7ab5_4a3f;

/// Why a text is no digest of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a machine's digest is 32 lower-case hexadecimal digits")]
pub struct InvalidMachineDigest;

impl MachineDigest {
    /// The digest of the machine whose `/etc/machine-id` this is: HMAC-SHA-256, keyed with the id, over
    /// what names this application, cut to 128 bits and marked as a random UUID, as
    /// sd_id128_get_machine_app_specific(3) does it. `None` if it is not an id.
    pub fn of_machine_id(text: &str) -> Option<Self> {
        let MachineDigest(id) = Self::parse(text.trim()).ok()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &id.to_be_bytes());
        let tag = hmac::sign(&key, &APPLICATION.to_be_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(tag.as_ref().get(..16)?);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Some(Self(u128::from_be_bytes(bytes)))
    }

    fn parse(text: &str) -> Result<Self, InvalidMachineDigest> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = canonical.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(InvalidMachineDigest)
    }
}

impl fmt::Display for MachineDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for MachineDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for MachineDigest {
    type Error = InvalidMachineDigest;
    fn try_from(given: String) -> Result<Self, InvalidMachineDigest> {
        Self::parse(&given)
    }
}

impl From<MachineDigest> for String {
    fn from(digest: MachineDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (given, shown) in [
            ("web-1", "web-1"),
            ("  Debian GNU/Linux 12 (bookworm)\n", "Debian GNU/Linux 12 (bookworm)"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("a\r\nb\tc\x7f\0", "a\\u{d}\\u{a}b\\u{9}c\\u{7f}\\u{0}"),
            // C1 controls, what turns text around, and what cannot be seen.
            ("\u{9b}31m\u{202e}evil\u{200b}", "\\u{9b}31m\\u{202e}evil\\u{200b}"),
        ] {
            assert_eq!(HostFact::new(given).as_str(), shown);
        }
        assert_eq!(HostFact::new(&"x".repeat(1000)).as_str().len(), 128);
        let cut = HostFact::new(&format!("{}\x1b", "x".repeat(125)));
        assert_eq!(cut.as_str(), "x".repeat(125), "not the half of an escape");
        let sent: HostFact = serde_json::from_str(r#""\u001b]0;title""#).expect("a fact");
        assert_eq!(sent.as_str(), "\\u{1b}]0;title");
    }

    proptest! {
        #[test]
        fn a_fact_is_printable_bounded_and_stays_as_it_is(given in any::<String>()) {
            let fact = HostFact::new(&given);
            prop_assert!(fact.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(fact.as_str().len() <= FACT_MAX_CHARACTERS);
            prop_assert_eq!(HostFact::new(fact.as_str()), fact);
        }
    }

    #[test]
    fn a_machine_is_known_by_what_systemd_says_of_it() {
        // What systemd-id128 printed on a machine with this id.
        let digest = MachineDigest::of_machine_id("3d1219c7c4c5404aaa1f6d2a48adfda4\n").expect("an id");
        assert_eq!(digest.to_string(), "75027571c1964d04a390a7751aba8c8d");
        for none in ["", "uninitialized\n", "3D1219C7C4C5404AAA1F6D2A48ADFDA4", "3d12"] {
            assert_eq!(MachineDigest::of_machine_id(none), None, "{none}");
        }
        let json = serde_json::to_string(&digest).expect("JSON");
        assert_eq!(serde_json::from_str::<MachineDigest>(&json).expect("and back"), digest);
    }
}
