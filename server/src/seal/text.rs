//! How keys and shares are written: a prefix that says what it is, then in base64 for URLs the bytes and
//! the first four of their SHA-256.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// One chance in four billion that a typo goes unnoticed here; the keys' tags notice the rest.
const CHECKSUM_BYTES: usize = 4;

pub(super) fn write(prefix: &str, content: &[u8]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(content.len() + CHECKSUM_BYTES));
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&checksum(content));
    let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    Zeroizing::new([prefix, encoded.as_str()].concat())
}

/// `None` when it is something else, or has a typo.
pub(super) fn read(prefix: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim().strip_prefix(prefix)?).ok()?);
    let length = bytes.len().checked_sub(CHECKSUM_BYTES)?;
    if bytes[length..] != checksum(&bytes[..length]) {
        return None;
    }
    bytes.truncate(length);
    Some(bytes)
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest::digest(&digest::SHA256, content).as_ref()[..CHECKSUM_BYTES]);
    sum
}

/// Changes each character of a text in turn.
#[cfg(test)]
pub(super) fn typos(text: &str) -> impl Iterator<Item = String> {
    (0..text.len()).map(move |position| {
        let mut typo = text.as_bytes().to_vec();
        typo[position] = if typo[position] == b'A' { b'B' } else { b'A' };
        String::from_utf8(typo).expect("text")
    })
}
