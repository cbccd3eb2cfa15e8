//! Numbers and texts as words, and back: whatever is there, it is read as what it should be or refused.

/// The longest texts that are kept, in bytes. Names are far shorter; of what is longer a part is kept.
pub(super) const MOST_TEXT: usize = 512;
/// Stands where a text was cut.
const CUT: &str = "…";

/// Which part of a text counts, if it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// What it begins with.
    Start,
    /// What it ends with: a path names the file there.
    End,
}

/// How many words a text of so many bytes takes.
pub(super) const fn words_of_text(bytes: usize) -> usize {
    1 + bytes.div_ceil(8)
}

/// Appends a text: its length in bytes, and the bytes, eight in a word.
pub(super) fn push_text(words: &mut Vec<u64>, text: &str, keep: Keep) {
    const ROOM: usize = MOST_TEXT - CUT.len();
    let (start, cut, end) = match (text.len() <= MOST_TEXT, keep) {
        (true, _) => (text, "", ""),
        (false, Keep::Start) => (&text[..text.floor_char_boundary(ROOM)], CUT, ""),
        (false, Keep::End) => ("", CUT, &text[text.ceil_char_boundary(text.len() - ROOM)..]),
    };
    if cut.is_empty() {
        return push_bytes(words, start.as_bytes());
    }
    push_bytes(words, [start, cut, end].concat().as_bytes());
}

fn push_bytes(words: &mut Vec<u64>, bytes: &[u8]) {
    words.push(bytes.len() as u64);
    let (whole, rest) = bytes.as_chunks::<8>();
    words.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u64::from_le_bytes(last));
    }
}

/// Takes the next word.
pub(super) fn take(words: &mut &[u64]) -> Option<u64> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(*first)
}

/// Takes the next text.
pub(super) fn take_text(words: &mut &[u64]) -> Option<String> {
    let length = usize::try_from(take(words)?).ok().filter(|length| *length <= MOST_TEXT)?;
    let (text, rest) = words.split_at_checked(length.div_ceil(8))?;
    *words = rest;
    let mut bytes: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str, keep: Keep) -> String {
        let mut words = Vec::new();
        push_text(&mut words, text, keep);
        assert!(words.len() <= words_of_text(MOST_TEXT));
        take_text(&mut words.as_slice()).expect("a text")
    }

    #[test]
    fn of_a_long_text_the_part_that_counts_is_kept_and_the_cut_is_seen() {
        let long = format!("/{}/program", "é".repeat(1000));
        let end = kept(&long, Keep::End);
        assert!(end.starts_with("…é") && end.ends_with("é/program"), "{end}");
        let start = kept(&long, Keep::Start);
        assert!(start.starts_with("/é") && start.ends_with("é…"), "{start}");
        for text in [start, end] {
            assert!((MOST_TEXT - 1..=MOST_TEXT).contains(&text.len()), "{}", text.len());
        }
        for whole in ["", "a", "/usr/bin/cat", "a".repeat(MOST_TEXT).as_str()] {
            assert_eq!((kept(whole, Keep::Start), kept(whole, Keep::End)), (whole.into(), whole.into()));
        }
    }
}
