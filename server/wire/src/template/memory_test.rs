//! What is left of a value in the memory of a process that has rendered it. A test that searches its own
//! memory, freed parts too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::rand;

use super::Template;
use crate::SecretBytes;

/// Bytes that occur nowhere by chance, kept such that the search does not find itself.
struct Canary(Vec<u8>);

const MASK: u8 = 0x80;

impl Canary {
    fn new() -> Self {
        let mut bytes = [0; 24];
        rand::fill(&mut bytes).expect("randomness");
        Self(bytes.iter().map(|byte| (b'a' + byte % 26) ^ MASK).collect())
    }

    fn value(&self) -> SecretBytes {
        SecretBytes::new(self.0.iter().map(|byte| byte ^ MASK).collect()).expect("a value")
    }

    /// How many pieces of it are in the memory that this process can write to.
    fn traces(&self) -> usize {
        // Begin and middle: what frees memory writes over the first bytes of it.
        let pieces = [&self.0[..8], &self.0[16..]];
        let maps = fs::read_to_string("/proc/self/maps").expect("the memory map");
        let memory = File::open("/proc/self/mem").expect("the memory");
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (begin, end) =
                line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let at = |text| u64::from_str_radix(text, 16).expect("an address");
            let mut bytes = vec![0; usize::try_from(at(end) - at(begin)).expect("a size")];
            // Unmapped since, or not to be read.
            if memory.read_exact_at(&mut bytes, at(begin)).is_err() {
                continue;
            }
            found += pieces.iter().map(|piece| occurrences(piece, &bytes)).sum::<usize>();
            // Or the next search would find what this one read.
            bytes.fill(0);
            black_box(&bytes);
        }
        found
    }
}

/// How often the value behind a piece is there. Compared byte by byte, so that nothing but the value itself
/// ever looks like it.
fn occurrences(piece: &[u8], bytes: &[u8]) -> usize {
    let is_it = |at: &usize| {
        bytes
            .get(*at..at + piece.len())
            .is_some_and(|window| piece.iter().zip(window).all(|(a, b)| a ^ MASK == *b))
    };
    let first = piece[0] ^ MASK;
    bytes.iter().enumerate().filter(|(_, byte)| **byte == first).map(|(at, _)| at).filter(is_it).count()
}

#[test]
fn nothing_of_a_value_is_left_in_memory() {
    let canary = Canary::new();
    assert_eq!(canary.traces(), 0);
    let value = canary.value();
    assert!(canary.traces() >= 2, "what is there is found");
    drop(value);
    assert_eq!(canary.traces(), 0);

    let text = "{{ secrets.a }}{{ secrets.a | trim }}{{ secrets.a | tojson }}{{ secrets.a | escape }}\
                {{ secrets.a | indent(4) }}{{ secrets.a | urlencode }}\
                {{ secrets.a | b64encode | b64decode }}{{ secrets.a | trim | tojson | trim }}";
    let template = Template::parse(text).expect("a template");
    let given = || BTreeMap::from([("a".parse().expect("a name"), canary.value())]);
    let rendered = template.render(given()).expect("rendered");
    assert!(canary.traces() >= 16, "the result is there");
    drop(rendered);
    // One that fails when much of it is written.
    let text = format!("{text}{{{{ secrets.a | b64decode | b64decode }}}}");
    let failing = Template::parse(&text).expect("a template");
    failing.render(given()).expect_err("no base64");
    assert_eq!(canary.traces(), 0, "pieces of the value are left");
}
