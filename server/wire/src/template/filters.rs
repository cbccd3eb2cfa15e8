//! Filters for configuration files. Each makes a new hidden value, in memory of the right size from the
//! start and wiped when it is dropped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Value;
use minijinja::{Environment, Error};
use zeroize::Zeroizing;

use super::render::{Hidden, Problem};
use crate::{SECRET_MAX_BYTES, TargetName};

/// All filters, by name.
pub(super) const FILTERS: [&str; 7] =
    ["b64decode", "b64encode", "escape", "indent", "tojson", "trim", "urlencode"];

/// The deepest indentation.
const INDENT_MOST: usize = 64;

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("b64decode", |value: Value| filter(&value, decode));
    environment.add_filter("b64encode", |value: Value| filter(&value, |given| encode(given.bytes)));
    environment
        .add_filter("escape", |value: Value| filter(&value, |given| each_byte(given.text()?, escaped)));
    environment.add_filter("indent", |value: Value, spaces: usize| {
        filter(&value, |given| indent(given.text()?, spaces))
    });
    environment.add_filter("tojson", |value: Value| filter(&value, |given| json(given.text()?)));
    environment.add_filter("trim", |value: Value| {
        filter(&value, |given| Ok(Zeroizing::new(given.text()?.trim().as_bytes().to_vec())))
    });
    environment.add_filter("urlencode", |value: Value| {
        filter(&value, |given| each_byte(given.bytes, percent_encoded))
    });
}

/// What a filter is given.
struct Given<'a> {
    of: Option<&'a TargetName>,
    bytes: &'a [u8],
}

impl<'a> Given<'a> {
    fn text(&self) -> Result<&'a str, Problem> {
        let no_text = || self.of.map_or(Problem::Unusable, |of| Problem::NotText(of.clone()));
        std::str::from_utf8(self.bytes).map_err(|_| no_text())
    }
}

type Filtered = Result<Zeroizing<Vec<u8>>, Problem>;

fn filter(value: &Value, make: impl FnOnce(&Given<'_>) -> Filtered) -> Result<Value, Error> {
    let plain;
    let given = match value.downcast_object_ref::<Hidden>() {
        Some(hidden) => Given { of: hidden.of.as_ref(), bytes: &hidden.bytes },
        None => {
            plain = value.to_string();
            Given { of: None, bytes: plain.as_bytes() }
        }
    };
    let bytes = make(&given)?;
    Ok(Value::from_object(Hidden { of: given.of.cloned(), bytes }))
}

/// Runs `write` twice: to count, and into memory of that size.
fn build(write: impl Fn(&mut dyn FnMut(&[u8]))) -> Filtered {
    let mut size = 0;
    write(&mut |part| size += part.len());
    let mut bytes = sized(size)?;
    write(&mut |part| bytes.extend_from_slice(part));
    Ok(bytes)
}

fn sized(size: usize) -> Filtered {
    match size <= SECRET_MAX_BYTES {
        true => Ok(Zeroizing::new(Vec::with_capacity(size))),
        false => Err(Problem::TooLarge),
    }
}

fn encode(bytes: &[u8]) -> Filtered {
    let size = base64::encoded_len(bytes.len(), true).ok_or(Problem::TooLarge)?;
    let mut encoded = sized(size)?;
    encoded.resize(size, 0);
    STANDARD.encode_slice(bytes, &mut encoded).map_err(|_| Problem::TooLarge)?;
    Ok(encoded)
}

fn decode(given: &Given<'_>) -> Filtered {
    let size = base64::decoded_len_estimate(given.bytes.len());
    let mut decoded = sized(size)?;
    decoded.resize(size, 0);
    let no_base64 = || given.of.map_or(Problem::Unusable, |of| Problem::NotBase64(of.clone()));
    let length = STANDARD.decode_slice(given.bytes, &mut decoded).map_err(|_| no_base64())?;
    decoded.truncate(length);
    Ok(decoded)
}

/// What stands for a byte, or the byte itself.
fn each_byte(bytes: impl AsRef<[u8]>, instead: impl Fn(u8, &mut dyn FnMut(&[u8])) -> bool) -> Filtered {
    build(|write| {
        for byte in bytes.as_ref() {
            if !instead(*byte, write) {
                write(&[*byte]);
            }
        }
    })
}

/// For XML and HTML, in texts and in attributes of either quotes.
fn escaped(byte: u8, write: &mut dyn FnMut(&[u8])) -> bool {
    let entity: &[u8] = match byte {
        b'&' => b"&amp;",
        b'<' => b"&lt;",
        b'>' => b"&gt;",
        b'"' => b"&quot;",
        b'\'' => b"&#39;",
        _ => return false,
    };
    write(entity);
    true
}

/// All but RFC 3986's unreserved characters, so that it can stand in any part of a URL.
fn percent_encoded(byte: u8, write: &mut dyn FnMut(&[u8])) -> bool {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        return false;
    }
    write(&[b'%', hexadecimal(byte >> 4), hexadecimal(byte & 15)]);
    true
}

/// A JSON string with its quotes, which is also one of YAML and of many other formats.
fn json(text: &str) -> Filtered {
    build(|write| {
        write(b"\"");
        for byte in text.bytes() {
            match byte {
                b'"' => write(b"\\\""),
                b'\\' => write(b"\\\\"),
                b'\n' => write(b"\\n"),
                b'\r' => write(b"\\r"),
                b'\t' => write(b"\\t"),
                0..=0x1f | 0x7f => {
                    write(&[b'\\', b'u', b'0', b'0', hexadecimal(byte >> 4), hexadecimal(byte & 15)]);
                }
                _ => write(&[byte]),
            }
        }
        write(b"\"");
    })
}

const fn hexadecimal(digit: u8) -> u8 {
    b"0123456789ABCDEF"[(digit & 15) as usize]
}

/// Spaces before each line but the first and the empty ones, for blocks in YAML.
fn indent(text: &str, spaces: usize) -> Filtered {
    let spaces = [b' '; INDENT_MOST].get(..spaces).ok_or(Problem::Indent)?.to_vec();
    build(|write| {
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if number > 0 && !line.trim_end_matches(['\r', '\n']).is_empty() {
                write(&spaces);
            }
            write(line.as_bytes());
        }
    })
}
