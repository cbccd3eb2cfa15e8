//! Tokens by which somebody becomes known to a manager: `sfj1.<secret>.<CA pin>` for a node that joins,
//! `sfo1.<secret>.<CA pin>` for an operator who logs in.
//!
//! It is all that they are given: something that only the manager and they know, once, and
//! the SHA-256 of the manager's CA bundle, so that they can tell the manager from anybody else
//! before they send a byte of the secret.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

const SECRET_BYTES: usize = 32;
const PIN_BYTES: usize = 32;

/// Why a text is not a token of its kind. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {kind} token: it has the form {prefix}.<secret>.<pin>; copy it whole from `{made_by}`")]
pub struct InvalidToken {
    kind: &'static str,
    prefix: &'static str,
    made_by: &'static str,
}

/// Why a text is not the secret part of a token. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the secret part of a token")]
pub struct InvalidTokenSecret;

/// SHA-256 over the manager's whole CA bundle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaPin([u8; PIN_BYTES]);

impl CaPin {
    /// The pin of a bundle: SHA-256 over its certificates' DER, in order, each preceded by its
    /// length as a 32-bit big-endian number, so that no two bundles share one.
    pub fn of_bundle<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for certificate in certificates {
            // A certificate of 4 GiB does not exist; saturating keeps this total.
            let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX);
            context.update(&length.to_be_bytes());
            context.update(certificate);
        }
        let mut pin = [0; PIN_BYTES];
        pin.copy_from_slice(context.finish().as_ref());
        Self(pin)
    }
}

impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaPin({})", URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The part of a token that only the manager and whom it is for may know.
pub struct TokenSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl TokenSecret {
    /// Draws a new one.
    ///
    /// # Panics
    /// When the system's random source fails.
    #[allow(clippy::expect_used, reason = "no token can be drawn without randomness")]
    pub fn random() -> Self {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(secret.as_mut()).expect("the system's random source failed");
        Self(secret)
    }

    /// What the manager stores instead of the secret: its SHA-256. The secret is 256 random bits,
    /// so the digest can be looked up but not guessed back.
    pub fn digest(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_ref()).as_ref());
        out
    }

    /// As text: base64 for URLs without padding.
    pub fn expose_text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.as_ref()))
    }
}

impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_ref(), other.0.as_ref()).is_ok()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(REDACTED)")
    }
}

impl FromStr for TokenSecret {
    type Err = InvalidTokenSecret;
    fn from_str(given: &str) -> Result<Self, InvalidTokenSecret> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(given).map_err(|_| InvalidTokenSecret)?);
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        if bytes.len() != SECRET_BYTES {
            return Err(InvalidTokenSecret);
        }
        secret.copy_from_slice(&bytes);
        Ok(Self(secret))
    }
}

macro_rules! tokens {
    ($($(#[$doc:meta])* $name:ident = $kind:literal $prefix:literal from $made_by:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            /// What is sent to the manager, once its pin is proven.
            pub secret: TokenSecret,
            /// What the manager's CA bundle must hash to.
            pub pin: CaPin,
        }

        impl $name {
            /// As text. It is a credential until it is used or expires.
            pub fn expose_text(&self) -> Zeroizing<String> {
                write($prefix, &self.secret, self.pin)
            }
        }

        impl FromStr for $name {
            type Err = InvalidToken;
            fn from_str(given: &str) -> Result<Self, InvalidToken> {
                let invalid = InvalidToken { kind: $kind, prefix: $prefix, made_by: $made_by };
                read($prefix, given).map(|(secret, pin)| Self { secret, pin }).ok_or(invalid)
            }
        }
    )*};
}

tokens! {
    /// A whole join token, as an operator hands it to a new node.
    JoinToken = "a join" "sfj1" from "secretfs node token create";
    /// A whole enrolment token, as an operator hands it to another one.
    EnrolmentToken = "an enrolment" "sfo1" from "secretfs operator add";
}

fn write(prefix: &str, secret: &TokenSecret, pin: CaPin) -> Zeroizing<String> {
    let secret = secret.expose_text();
    Zeroizing::new(format!("{prefix}.{}.{}", secret.as_str(), URL_SAFE_NO_PAD.encode(pin.0)))
}

fn read(expected: &str, given: &str) -> Option<(TokenSecret, CaPin)> {
    let mut parts = given.trim().split('.');
    let (Some(prefix), Some(secret), Some(pin), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let pin = URL_SAFE_NO_PAD.decode(pin).ok()?.try_into().ok()?;
    (prefix == expected).then_some((secret.parse().ok()?, CaPin(pin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_copied() {
        let token = JoinToken { secret: TokenSecret::random(), pin: CaPin::of_bundle([&b"ca"[..]]) };
        let text = token.expose_text();
        let copied: JoinToken = format!(" {}\n", text.as_str()).parse().expect("a token");
        assert_eq!(copied.secret, token.secret);
        assert_eq!(copied.pin, token.pin);
        assert!(!format!("{token:?}").contains(token.secret.expose_text().as_str()));
    }

    #[test]
    fn a_mangled_token_is_refused_without_repeating_it() {
        let text = JoinToken { secret: TokenSecret::random(), pin: CaPin::of_bundle([]) }.expose_text();
        let cut = &text[..text.len() - 1];
        for bad in ["", "sfj1", "sfj1..", "sfj2.a.b", cut, &format!("{}.x", text.as_str())] {
            let error = bad.parse::<JoinToken>().expect_err(bad);
            assert!(bad.len() < 6 || !error.to_string().contains(bad));
        }
    }

    #[test]
    fn a_token_of_the_other_kind_is_refused() {
        let (secret, pin) = (TokenSecret::random(), CaPin::of_bundle([]));
        let join = JoinToken { secret, pin }.expose_text();
        let error = join.parse::<EnrolmentToken>().expect_err("a join token");
        assert!(error.to_string().contains("sfo1.") && error.to_string().contains("secretfs operator add"));
        let enrolment = join.replacen("sfj1", "sfo1", 1);
        assert!(enrolment.parse::<EnrolmentToken>().is_ok());
        assert!(enrolment.parse::<JoinToken>().is_err());
    }

    #[test]
    fn the_pin_covers_the_whole_bundle_and_its_boundaries() {
        let pin = |parts: &[&'static [u8]]| CaPin::of_bundle(parts.iter().copied());
        assert_ne!(pin(&[b"ab", b"c"]), pin(&[b"a", b"bc"]));
        assert_ne!(pin(&[b"ab"]), pin(&[b"ab", b""]));
        assert_eq!(pin(&[b"ab", b"c"]), pin(&[b"ab", b"c"]));
    }
}
