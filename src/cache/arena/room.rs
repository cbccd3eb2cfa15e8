//! Which entries and which words of an arena are in use: known to the process, not to its memory.

use std::collections::BTreeMap;
use std::ops::Range;

use super::directory::ENTRIES;

/// What is in use and what is not.
#[derive(Debug)]
pub(super) struct Room {
    /// End by start.
    used: BTreeMap<usize, usize>,
    /// Words that there are.
    size: usize,
    /// Entries that are free, below the first that was never used.
    free: Vec<u32>,
    untouched: u32,
}

impl Room {
    /// All free.
    pub(super) const fn new(size: usize) -> Self {
        Self { used: BTreeMap::new(), size, free: Vec::new(), untouched: 0 }
    }

    /// How many words there are.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Takes an entry and the first gap of so many words.
    pub(super) fn take(&mut self, words: usize) -> Option<(u32, usize)> {
        if self.free.is_empty() && self.untouched == ENTRIES {
            return None;
        }
        let offset = self.gap(words)?;
        self.used.insert(offset, offset + words);
        let entry = self.free.pop().unwrap_or_else(|| {
            self.untouched += 1;
            self.untouched - 1
        });
        Some((entry, offset))
    }

    /// First fit: what is in use stays together at the beginning, in few pages.
    fn gap(&self, words: usize) -> Option<usize> {
        let mut end = 0;
        for (start, next) in &self.used {
            if start - end >= words {
                return Some(end);
            }
            end = *next;
        }
        (self.size - end >= words).then_some(end)
    }

    pub(super) fn give_back(&mut self, entry: u32, offset: usize) {
        self.used.remove(&offset);
        self.free.push(entry);
    }

    /// Takes these words, unless some are taken. They are as many as there are at the most.
    pub(super) fn claim(&mut self, range: &Range<usize>) -> bool {
        let is_free = self.used.range(..range.end).next_back().is_none_or(|(_, end)| *end <= range.start);
        if is_free {
            self.used.insert(range.start, range.end);
        }
        is_free
    }

    /// From now on entries below `untouched` are free only if they are in `free`.
    pub(super) fn set_entries(&mut self, free: Vec<u32>, untouched: u32) {
        (self.free, self.untouched) = (free, untouched);
    }

    /// The parts of `ranges` that are not in use, each word once, whatever the ranges are.
    pub(super) fn unused(&self, mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut parts = Vec::new();
        let mut done = 0;
        for range in ranges {
            let mut at = range.start.max(done);
            while at < range.end {
                let before = self.used.range(..=at).next_back();
                if let Some((_, end)) = before.filter(|(_, end)| **end > at) {
                    at = *end;
                    continue;
                }
                let next = self.used.range(at..).next().map_or(range.end, |(start, _)| range.end.min(*start));
                parts.push(at..next);
                at = next;
            }
            done = done.max(range.end);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again() {
        let mut room = Room::new(10);
        assert_eq!(room.take(4), Some((0, 0)));
        assert_eq!(room.take(4), Some((1, 4)));
        assert_eq!(room.take(4), None);
        room.give_back(0, 0);
        assert_eq!(room.take(3), Some((0, 0)));
        assert_eq!(room.take(2), Some((2, 8)));
        assert_eq!(room.take(1), Some((3, 3)));
        assert_eq!(room.take(1), None);
    }

    #[test]
    fn entries_run_out_as_words_do() {
        let mut room = Room::new(usize::MAX);
        for entry in 0..ENTRIES {
            assert_eq!(room.take(1), Some((entry, entry as usize)));
            // One range instead of many, which would all be looked through again and again.
            room.used.clear();
            room.used.insert(0, entry as usize + 1);
        }
        assert_eq!(room.take(1), None);
    }

    proptest! {
        #[test]
        fn unused_parts_are_what_is_left(
            claims in prop::collection::vec((0..60usize, 1..10usize), 0..8),
            ranges in prop::collection::vec((0..60usize, 0..20usize), 0..8),
        ) {
            let mut room = Room::new(100);
            let mut used = [false; 100];
            for (start, words) in claims {
                let range = start..start + words;
                let free = !used[range.clone()].contains(&true);
                prop_assert_eq!(room.claim(&range), free);
                if free {
                    used[range].fill(true);
                }
            }
            let ranges: Vec<_> = ranges.into_iter().map(|(start, words)| start..start + words).collect();
            let parts = room.unused(ranges.clone());
            for (word, used) in used.iter().enumerate() {
                let wanted = !used && ranges.iter().any(|range| range.contains(&word));
                let times = parts.iter().filter(|part| part.contains(&word)).count();
                prop_assert_eq!(times, usize::from(wanted), "word {}", word);
            }
        }
    }
}
