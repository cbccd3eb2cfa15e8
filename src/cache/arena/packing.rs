//! Bytes in words: eight each, the first in the lowest, the last word filled up with zeroes.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes in a word.
const WORD: usize = size_of::<u64>();

/// How many words hold so many bytes.
pub(super) const fn words(bytes: usize) -> usize {
    bytes.div_ceil(WORD)
}

/// Writes `bytes` to the beginning of `words`, which must be long enough.
pub(super) fn write(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_le_bytes(*chunk), Relaxed);
    }
    if !rest.is_empty() {
        // In a register: an array would leave some of the bytes behind on the stack.
        let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        words[whole.len()].store(last, Relaxed);
    }
}

/// Reads from the byte `from` on, as many bytes as `into` has, which must be there.
pub(super) fn read(words: &[AtomicU64], from: usize, into: &mut [u8]) {
    let mut words = words[from / WORD..].iter().map(|word| word.load(Relaxed).to_le_bytes());
    let skipped = from % WORD;
    let (head, rest) = match skipped {
        0 => into.split_at_mut(0),
        _ => into.split_at_mut((WORD - skipped).min(into.len())),
    };
    if !head.is_empty()
        && let Some(word) = words.next()
    {
        head.copy_from_slice(&word[skipped..skipped + head.len()]);
    }
    let (whole, tail) = rest.as_chunks_mut();
    for (chunk, word) in whole.iter_mut().zip(words.by_ref()) {
        *chunk = word;
    }
    if let Some(word) = words.next().filter(|_| !tail.is_empty()) {
        tail.copy_from_slice(&word[..tail.len()]);
    }
}

/// Overwrites with zeroes. Stores to atomic words are not optimized away.
pub(super) fn wipe(words: &[AtomicU64]) {
    for word in words {
        word.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_part_of_what_was_written_is_read(
            bytes in prop::collection::vec(any::<u8>(), 1..100),
            from in 0..100usize,
            size in 0..100usize,
        ) {
            let memory: Vec<AtomicU64> = (0..words(bytes.len())).map(|_| AtomicU64::new(u64::MAX)).collect();
            write(&memory, &bytes);
            let from = from.min(bytes.len());
            let mut read_back = vec![0; size.min(bytes.len() - from)];
            read(&memory, from, &mut read_back);
            prop_assert_eq!(&read_back, &bytes[from..from + read_back.len()]);
            wipe(&memory);
            prop_assert!(memory.iter().all(|word| word.load(Relaxed) == 0));
        }
    }
}
