//! Tokens that are typed once.

use std::io::Read as _;

use zeroize::Zeroizing;

use super::error::Failure;

/// A token is some 100 bytes.
const MOST_BYTES: u64 = 1024;

/// The token that was given, or what standard input has if that is `-`.
pub(super) fn read(given: &str) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    if given != "-" {
        text.push_str(given);
        return Ok(text);
    }
    std::io::stdin()
        .lock()
        .take(MOST_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("cannot read the token from standard input: {error}")))?;
    Ok(text)
}
