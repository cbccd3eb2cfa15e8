//! What commands print: a table or a line for people, JSON for programs.

use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::Global;

/// Standard output that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct WriteError(#[from] io::Error);

/// Prints a listing: rows under headings, or as JSON the values themselves.
pub(super) fn listing<T: Serialize, const N: usize>(
    global: &Global,
    headings: [&str; N],
    values: &[T],
    row: impl Fn(&T) -> [String; N],
) -> Result<(), WriteError> {
    if global.json {
        return json(&values);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for value in values {
        table.add_row(row(value));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let text: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    line(&text.join("\n"))
}

/// Prints one thing: as a line, or as JSON.
pub(super) fn one<T: Serialize>(global: &Global, value: &T, text: &str) -> Result<(), WriteError> {
    if global.json { json(value) } else { line(text) }
}

/// Prints what is shown only once: that nobody reads it is an error.
pub(super) fn once<T: Serialize>(global: &Global, value: &T, text: &str) -> Result<(), WriteError> {
    let text = match global.json {
        true => serde_json::to_string_pretty(value).map_err(io::Error::from)?,
        false => text.to_owned(),
    };
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), WriteError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    line(&text)
}

/// Prints a line.
pub(super) fn line(text: &str) -> Result<(), WriteError> {
    verbatim(&format!("{text}\n"))
}

/// Prints a text as it is, with no newline after it.
pub(super) fn verbatim(text: &str) -> Result<(), WriteError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough: `secretfs secret ls | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A time as people read it: UTC, to the second.
pub(super) fn time(timestamp: Timestamp) -> String {
    timestamp.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `-` for what is not there, as in `docker ps`.
pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
