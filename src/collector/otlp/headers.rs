//! Headers in a file, a line each, as HTTP has them. Their values may be credentials.

use std::path::Path;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::CollectorError;

/// Reads them.
pub(super) fn read(path: &Path) -> Result<HeaderMap, CollectorError> {
    let unusable = |reason| CollectorError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let (name, value) =
            header(line).ok_or_else(|| unusable(format!("line {number} is not `Name: value`")))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value: HeaderValue = value.trim().parse().ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_line_and_what_is_none_is_not_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "Authorization: Bearer a:b\n\nX-Scope: one\n").unwrap();
        let headers = read(file.path()).unwrap();
        assert_eq!((headers["authorization"].to_str().unwrap(), headers.len()), ("Bearer a:b", 2));
        assert!(!format!("{headers:?}").contains("Bearer"));
        std::fs::write(&file, "Authorization: Bearer a\nonly a canary\n").unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("canary"), "{error}");
    }
}
