//! What Vault's answers mean: pure functions over status and text.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::keys::{BackendFault, KeyError};
use secretfs_wire::KeyBackendKind;

/// So much of what Vault says is passed on.
const MAX_WORDS: usize = 200;
/// Every token, secret id, data key and ciphertext has more characters in a row.
const LONGEST_WORD: usize = 15;

/// An answer of Vault's.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Why an attempt has brought no answer; the next one may.
#[derive(Debug)]
pub(super) struct Trouble {
    text: String,
    /// How long Vault wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Whether Vault may have done what it was asked all the same.
    pub(super) may_be_done: bool,
}

impl Trouble {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), retry_after: None, may_be_done: false }
    }

    pub(super) fn maybe_done(self) -> Self {
        Self { may_be_done: true, ..self }
    }

    /// What is left of it when there is no time for another attempt.
    pub(super) fn into_error(self, is_repeatable: bool) -> KeyError {
        let Self { mut text, retry_after, may_be_done } = self;
        if let Some(after) = retry_after.filter(|after| !after.is_zero()) {
            text.push_str(&format!("; it asks to be left alone for {} s", after.as_secs()));
        }
        if may_be_done && !is_repeatable {
            text.push_str("; it may have done it all the same: look with `secretfs key ls`");
        }
        fault(BackendFault::Unavailable(text, None))
    }
}

/// A failure of this backend.
pub(super) fn fault(fault: BackendFault) -> KeyError {
    KeyError::Backend { backend: KeyBackendKind::Vault, fault }
}

pub(super) fn not_allowed(text: impl Into<String>) -> KeyError {
    fault(BackendFault::NotAllowed(text.into()))
}

pub(super) fn malformed(text: impl Into<String>) -> KeyError {
    fault(BackendFault::Malformed(text.into()))
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Option<Vec<String>>,
}

impl Answer {
    /// This answer, unless another attempt may bring a better one.
    pub(super) fn or_trouble(self) -> Result<Self, Trouble> {
        let trouble = match self.status.as_u16() {
            503 if self.says("sealed") => Trouble::new("Vault is sealed"),
            503 => Trouble::new("Vault is not available (503)"),
            429 => Trouble::new("Vault's rate limit quota is exhausted (429)"),
            412 => Trouble::new("this Vault has not caught up with its cluster (412)"),
            307 | 472 | 473 => Trouble::new(format!(
                "vault.url leads to a standby that does not serve ({}); set it to the active Vault, or to what \
                 finds it",
                self.status.as_u16()
            )),
            status if self.status.is_server_error() => {
                let words = self.words();
                Trouble::new(format!("Vault failed ({status}){words}")).maybe_done()
            }
            _ => return Ok(self),
        };
        Err(Trouble { retry_after: self.retry_after, ..trouble })
    }

    /// The answer to `sys/health`, whose statuses mean other things. A standby passes on what it is asked.
    pub(super) fn of_health(self) -> Result<(), Trouble> {
        match self.status.as_u16() {
            200 | 429 | 472 | 473 => Ok(()),
            501 => Err(Trouble::new("Vault is not initialized")),
            503 => Err(Trouble::new("Vault is sealed")),
            status => Err(Trouble::new(format!("Vault is not well ({status})"))),
        }
    }

    /// Whether its errors say this, in whatever case.
    pub(super) fn says(&self, text: &str) -> bool {
        self.errors().iter().any(|error| error.to_ascii_lowercase().contains(text))
    }

    /// A policy says no, and not the token: then the token is one that Vault knows.
    pub(super) fn is_refused_by_policy(&self) -> bool {
        self.status == StatusCode::FORBIDDEN && self.says("1 error occurred") && !self.says("token")
    }

    /// What Vault says, to be put behind something else; nothing when it says nothing.
    pub(super) fn words(&self) -> String {
        let errors = self.errors();
        if errors.is_empty() { String::new() } else { format!(": {}", harmless(&errors.join("; "))) }
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, KeyError> {
        serde_json::from_slice(&self.body).map_err(|_| self.not_understood())
    }

    /// Says nothing of its content, which may be a secret.
    pub(super) fn not_understood(&self) -> KeyError {
        malformed(format!(
            "what answers at vault.url ({}) does not answer as Vault does",
            self.status.as_u16()
        ))
    }

    fn errors(&self) -> Vec<String> {
        let refusal = serde_json::from_slice::<Refusal>(&self.body).ok();
        refusal.and_then(|refusal| refusal.errors).unwrap_or_default()
    }
}

/// A text of Vault's on one line and without anything that could be a token, a key or a ciphertext:
/// whoever answers may repeat what it was sent.
pub(super) fn harmless(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "+/=_.-".contains(c);
    // Long words of ordinary language, and of field names.
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let mut said = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        if !is_word(first) {
            let plain = part.chars().map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c });
            said.extend(plain);
        } else if part.len() > LONGEST_WORD && !part.bytes().all(is_plain) {
            said.push('…');
        } else {
            said.push_str(part);
        }
        rest = after;
    }
    let said: Vec<_> = said.split(' ').filter(|word| !word.is_empty()).collect();
    said.join(" ").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn each_status_that_may_pass_says_what_it_is() {
        for (status, body, text, may_be_done) in [
            (503, r#"{"errors":["Vault is sealed"]}"#, "Vault is sealed", false),
            (503, "<html>busy</html>", "not available", false),
            (429, r#"{"errors":["request path rate limit quota exceeded"]}"#, "rate limit quota", false),
            (412, "{}", "caught up", false),
            (307, "", "standby", false),
            (472, "{}", "standby", false),
            (473, "{}", "standby", false),
            (500, r#"{"errors":["1 error occurred:\n\t* disk full\n\n"]}"#, "* disk full", true),
            (502, "bad gateway", "502", true),
        ] {
            let trouble = answer(status, body).or_trouble().err().unwrap_or_else(|| panic!("{status}"));
            assert_eq!(trouble.may_be_done, may_be_done, "{status}");
            let error = trouble.into_error(true);
            assert!(error.is_transient() && error.to_string().contains(text), "{status}: {error}");
        }
        for status in [200, 204, 400, 403, 404] {
            assert!(answer(status, "{}").or_trouble().is_ok(), "{status}");
        }
    }

    #[test]
    fn a_standby_is_well() {
        for (status, is_well) in
            [(200, true), (429, true), (472, true), (473, true), (501, false), (503, false), (404, false)]
        {
            assert_eq!(answer(status, "{}").of_health().is_ok(), is_well, "{status}");
        }
    }

    #[test]
    fn a_policy_and_a_token_that_is_unknown_are_told_apart() {
        // HashiCorp Vault and OpenBao, old and new.
        for (body, by_policy) in [
            (r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#, true),
            (r#"{"errors":["permission denied"]}"#, false),
            (r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#, false),
            ("", false),
        ] {
            assert_eq!(answer(403, body).is_refused_by_policy(), by_policy, "{body}");
        }
    }

    #[test]
    fn words_are_passed_on_without_what_may_be_secret() {
        for secret in [
            "hvs.CAESIJexampleexample0123",
            "s.hCKZYFmQP4E8sYPNLJcyTFV7",
            "0359508c-1b18-b604-fc25-35f34c041c23",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            let said = harmless(&format!("no token {secret}\nis\tknown"));
            assert_eq!(said, "no token … is known");
        }
        let missing = "missing 'context' for key derivation";
        assert_eq!(harmless(missing), missing);
        assert_eq!(harmless(&"a b ".repeat(1000)).len(), MAX_WORDS);
    }

    #[test]
    fn what_must_not_be_done_twice_may_have_been_done() {
        let once = || Trouble::new("it broke").maybe_done();
        assert!(once().into_error(false).to_string().contains("may have done it"));
        assert!(!once().into_error(true).to_string().contains("may have done it"));
        assert!(!Trouble::new("it broke").into_error(false).to_string().contains("may have done it"));
    }
}
