//! Batches of data keys as the Transit engine takes and gives them. Data keys are in buffers that are
//! wiped, and never in a tree of JSON.

use std::fmt;

use aws_lc_rs::digest::{self, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use secretfs_wire::KeyName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::answer::{Answer, harmless, malformed, not_allowed};
use crate::keys::{Context, Key, KeyError, Wrapped};

/// How many data keys one request has at most. OpenBao refuses one with more than 1000 strings, and each
/// data key makes four.
pub(super) const BATCH: usize = 200;

/// Every item of a batch is shorter as JSON, so that its buffer never grows.
const ITEM_BYTES: usize = 512;
/// A data key as text, and what its decoding may need.
const KEY_TEXT_BYTES: usize = 44;
const MAX_KEY_BYTES: usize = 33;

#[derive(Serialize)]
struct Encrypt {
    /// Vault makes a key that it is asked to encrypt with, if the token may do that, and asks for
    /// this type only then. It cannot encrypt with this one, so none is ever made by accident.
    r#type: &'static str,
    batch_input: Vec<Plaintext>,
}

#[derive(Serialize)]
struct Plaintext {
    plaintext: Zeroizing<String>,
    associated_data: String,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    batch_input: Vec<Ciphertext<'a>>,
}

#[derive(Serialize)]
struct Ciphertext<'a> {
    ciphertext: &'a str,
    associated_data: String,
}

#[derive(Deserialize)]
struct Batch {
    data: Results,
}

#[derive(Deserialize)]
struct Results {
    batch_results: Vec<Item>,
}

#[derive(Deserialize)]
pub(super) struct Item {
    plaintext: Option<Zeroizing<String>>,
    ciphertext: Option<String>,
    error: Option<String>,
}

/// A request to encrypt data keys.
pub(super) fn encrypt(data_keys: &[(&Context, &Key)]) -> Result<Bytes, KeyError> {
    let plaintext = |(context, key): &(&Context, &Key)| {
        let mut plaintext = Zeroizing::new(String::with_capacity(KEY_TEXT_BYTES));
        STANDARD.encode_string(key.expose_secret(), &mut plaintext);
        Plaintext { plaintext, associated_data: associated_data(context) }
    };
    let batch_input: Vec<_> = data_keys.iter().map(plaintext).collect();
    body(batch_input.len() * ITEM_BYTES, &Encrypt { r#type: "ecdsa-p256", batch_input })
}

/// A request to decrypt data keys, each of which is of the form that [`ciphertext`] lets pass.
pub(super) fn decrypt(wrapped: &[(&Context, &str)]) -> Result<Bytes, KeyError> {
    let bytes = wrapped.iter().map(|(_, ciphertext)| ITEM_BYTES + ciphertext.len()).sum();
    let batch_input = wrapped
        .iter()
        .map(|(context, ciphertext)| Ciphertext { ciphertext, associated_data: associated_data(context) })
        .collect();
    body(bytes, &Decrypt { batch_input })
}

/// JSON in a buffer that is wiped.
pub(super) fn body(capacity: usize, value: &impl Serialize) -> Result<Bytes, KeyError> {
    let mut body = Zeroizing::new(Vec::with_capacity(ITEM_BYTES + capacity));
    serde_json::to_writer(&mut *body, value).map_err(|_| KeyError::Crypto)?;
    Ok(Bytes::from_owner(body))
}

/// A digest: where a data key belongs is nothing that Vault need know.
fn associated_data(context: &Context) -> String {
    STANDARD.encode(digest::digest(&SHA256, context.as_bytes()))
}

/// The items of a batch, as many as it had. A batch that failed in part has them as well.
pub(super) fn items(answer: &Answer, count: usize) -> Option<Vec<Item>> {
    let Batch { data: Results { batch_results } } = answer.json().ok()?;
    (batch_results.len() == count).then_some(batch_results)
}

/// A data key as Vault has encrypted it.
pub(super) fn wrapped(item: Item, name: &KeyName) -> Result<Wrapped, KeyError> {
    match item {
        Item { error: Some(error), .. } if !error.is_empty() => Err(item_error(name, None, &error)),
        Item { ciphertext: Some(text), .. } => {
            let version = version(&text).ok_or_else(unknown_item)?;
            Ok(Wrapped { version, bytes: text.into_bytes() })
        }
        _ => Err(unknown_item()),
    }
}

/// A data key as Vault has decrypted it, of this version of its key.
pub(super) fn unwrapped(item: Item, name: &KeyName, version: u64) -> Result<Key, KeyError> {
    match item {
        Item { error: Some(error), .. } if !error.is_empty() => Err(item_error(name, Some(version), &error)),
        Item { plaintext: Some(text), .. } => data_key(&text).ok_or(KeyError::Refused),
        _ => Err(unknown_item()),
    }
}

fn unknown_item() -> KeyError {
    malformed("Vault's answer has neither a data key nor an error in the place of one")
}

fn data_key(text: &str) -> Option<Key> {
    let mut bytes = Zeroizing::new([0; MAX_KEY_BYTES]);
    let length = STANDARD.decode_slice(text, bytes.as_mut()).ok()?;
    Key::from_bytes(&bytes[..length])
}

/// What Vault says of one item of a batch.
fn item_error(name: &KeyName, version: Option<u64>, said: &str) -> KeyError {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let words = || harmless(said);
    match version {
        _ if says(&["non-AEAD", "associated_data", "missing 'context'"]) => not_allowed(format!(
            "key {name} must be of type aes256-gcm96 or chacha20-poly1305, and not derived; Vault says: {}",
            words()
        )),
        Some(version) if says(&["too old", "too new", "disallowed by policy"]) => {
            KeyError::Missing(format!("{name}:{version}"))
        }
        Some(_) if says(&["message authentication failed", "invalid ciphertext", "could not decode"]) => {
            KeyError::Refused
        }
        _ => malformed(format!("Vault cannot use key {name}: {}", words())),
    }
}

/// What is stored as text, if it is a ciphertext of the key's version that is stored with it. What is
/// not would be refused by Vault, one way or the other.
pub(super) fn ciphertext(wrapped: &Wrapped) -> Option<&str> {
    let text = str::from_utf8(&wrapped.bytes).ok()?;
    (version(text)? == wrapped.version).then_some(text)
}

/// The version in `vault:v1:BASE64`.
fn version(text: &str) -> Option<u64> {
    let (number, ciphertext) = text.strip_prefix("vault:v")?.split_once(':')?;
    let version =
        number.parse().ok().filter(|version: &u64| *version > 0 && version.to_string() == number)?;
    (!ciphertext.is_empty() && STANDARD.decode(ciphertext).is_ok()).then_some(version)
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("error", &self.error).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn name() -> KeyName {
        "prod".parse().expect("a name")
    }

    fn answer(body: &str) -> Answer {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Answer { status: StatusCode::OK, retry_after: None, body }
    }

    fn results(items: &str) -> Answer {
        answer(&format!(r#"{{"data":{{"batch_results":[{items}]}}}}"#))
    }

    #[test]
    fn a_ciphertext_says_its_version() {
        for (text, expected) in [
            ("vault:v1:AAAA", Some(1)),
            ("vault:v12:AA==", Some(12)),
            ("vault:v01:AAAA", None),
            ("vault:v+1:AAAA", None),
            ("vault:v0:AAAA", None),
            ("vault:v1:", None),
            ("vault:v1:A$AA", None),
            ("vault:v1", None),
            ("Vault:v1:AAAA", None),
            ("", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
        let relabelled = Wrapped { version: 2, bytes: b"vault:v1:AAAA".to_vec() };
        assert!(ciphertext(&relabelled).is_none());
    }

    #[test]
    fn each_item_has_an_answer_of_its_own() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let refused = KeyError::Refused.to_string();
        for (item, version, expected) in [
            (r#"{"plaintext":"","error":"cipher: message authentication failed"}"#, 1, refused.as_str()),
            (r#"{"error":"invalid ciphertext length"}"#, 1, &refused),
            (r#"{"plaintext":"AAAA"}"#, 1, &refused),
            (r#"{"error":"version is disallowed by policy (too old)"}"#, 1, "there is no key prod:1"),
            (r#"{"error":"invalid ciphertext: version is too new"}"#, 9, "there is no key prod:9"),
            (
                r#"{"error":"'[0].associated_data' provided for non-AEAD cipher suite rsa-2048"}"#,
                1,
                "aes256-gcm96",
            ),
            (r#"{"error":"of another kind"}"#, 1, "of another kind"),
            ("{}", 1, "neither a data key nor an error"),
        ] {
            let answer = results(&format!(r#"{{"plaintext":"{key}","reference":""}},{item}"#));
            let mut items = items(&answer, 2).expect("two items").into_iter();
            let (first, second) = (items.next().expect("one"), items.next().expect("two"));
            assert_eq!(unwrapped(first, &name(), 1).expect("a key").expose_secret(), [0; 32]);
            let error = unwrapped(second, &name(), version).expect_err(item).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn another_number_of_items_is_no_answer() {
        let item = r#"{"ciphertext":"vault:v1:AAAA"}"#;
        let one = items(&results(item), 1).expect("one item").pop().expect("one");
        assert_eq!(wrapped(one, &name()).expect("wrapped").version, 1);
        for (answer, count) in
            [(results(item), 2), (results(""), 1), (answer("<html>"), 1), (answer(r#"{"data":null}"#), 1)]
        {
            assert!(items(&answer, count).is_none());
        }
    }

    #[test]
    fn a_request_fits_its_buffer_and_names_no_place() {
        let context = Context::new([&b"environment canary"[..]]);
        let keys: Vec<_> = (0..BATCH).map(|_| Key::generate().expect("a key")).collect();
        let data_keys: Vec<_> = keys.iter().map(|key| (&context, key)).collect();
        let body = encrypt(&data_keys).expect("a body");
        assert!(body.len() <= ITEM_BYTES * (BATCH + 1));
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert!(!text.contains("canary") && !text.contains(&STANDARD.encode("environment canary")));
    }
}
