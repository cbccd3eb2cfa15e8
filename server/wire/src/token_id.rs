use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const BYTES: usize = 6;

/// Tells join tokens apart without being one: the first bytes of the digest that the manager keeps of a
/// token's secret, as 12 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{12}$"))]
pub struct TokenId([u8; BYTES]);

/// Why a text does not name a join token. Never repeats the text: it may be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token's id is 12 lower-case hexadecimal digits, as `secretfs node token ls` shows it")]
pub struct InvalidTokenId;

impl TokenId {
    /// The id of the token whose secret has this digest.
    pub fn of_digest(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, ..] = *digest;
        Self([a, b, c, d, e, f])
    }

    /// The digest's first bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;
    fn from_str(given: &str) -> Result<Self, InvalidTokenId> {
        let is_canonical =
            given.len() == 2 * BYTES && given.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let number = is_canonical.then(|| u64::from_str_radix(given, 16).ok()).flatten();
        let [_, _, bytes @ ..] = number.ok_or(InvalidTokenId)?.to_be_bytes();
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for TokenId {
    type Error = InvalidTokenId;
    fn try_from(given: String) -> Result<Self, InvalidTokenId> {
        given.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_beginning_of_the_digest() {
        let mut digest = [0xff; 32];
        digest[..7].copy_from_slice(&[0, 1, 0x2a, 0xb3, 4, 5, 6]);
        let id = TokenId::of_digest(&digest);
        assert_eq!(id.to_string(), "00012ab30405");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.as_bytes(), &digest[..6]);
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for bad in ["", "00012ab3040", "00012ab304050", "00012AB30405", "+0012ab30405", "00012ab3040g"] {
            assert_eq!(bad.parse::<TokenId>(), Err(InvalidTokenId), "{bad}");
        }
    }
}
