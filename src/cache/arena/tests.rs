use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use secretfs_wire::SECRET_MAX_BYTES;

use super::*;

/// Words of data in these tests, which keep the memory small.
const DATA: usize = 64;

fn memory(words: usize) -> Words {
    Words::private(Directory::WORDS + words).expect("memory")
}

fn key(version: u64) -> Key {
    Key {
        service: "web".parse().expect("a name"),
        target: format!("t{version}").parse().expect("a name"),
        version: VersionId::from_u64(version).expect("an id"),
    }
}

fn secret(bytes: &[u8]) -> SecretBytes {
    SecretBytes::new(bytes.to_vec()).expect("a secret")
}

fn read(value: &Value) -> Vec<u8> {
    value.copy(0..usize::MAX).expose_secret().to_vec()
}

/// The values that the next worker finds.
fn adopted(memory: &Words) -> Vec<(u64, Vec<u8>)> {
    let adopted = Arena::over(memory.clone()).adopt();
    let found = adopted.iter().map(|(key, value)| (key.version.as_u64(), read(value))).collect();
    std::mem::forget(adopted);
    found
}

/// Whether all data is zero.
fn is_wiped(memory: &Words) -> bool {
    memory[Directory::WORDS..].iter().all(|word| word.load(Relaxed) == 0)
}

/// One value, kept by a worker that was killed.
fn killed(memory: &Words) -> (Directory, Record) {
    let arena = Arena::over(memory.clone());
    let value = arena.keep(&key(1), &secret(&[7; 100])).expect("room");
    std::mem::forget(value);
    let directory = Directory::over(memory.part(0..Directory::WORDS));
    let record = directory.record(0);
    (directory, record)
}

#[test]
fn values_and_their_names_outlive_a_kill() {
    let memory = memory(DATA);
    let arena = Arena::over(memory.clone());
    for version in 1..=3 {
        let value = arena.keep(&key(version), &secret(&[version as u8; 21])).expect("room");
        assert_eq!((value.len(), u64::from(value.entry())), (21, version - 1));
        std::mem::forget(value);
    }
    let next = Arena::over(memory.clone());
    let mut values = next.adopt();
    assert_eq!(values.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key(1), key(2), key(3)]);
    // What is given back is taken again, and nothing else.
    drop(values.remove(1));
    assert_eq!(next.used(), 2);
    let new = next.keep(&key(4), &secret(b"new")).expect("room");
    assert_eq!(new.entry(), 1);
    assert_eq!(values.iter().map(|(_, value)| read(value)).collect::<Vec<_>>(), [[1; 21], [3; 21]]);
    assert_eq!(read(&new), b"new");
    drop((values, new));
    assert!(is_wiped(&memory) && next.used() == 0);
}

#[test]
fn only_the_asked_part_is_copied() {
    let arena = Arena::over(memory(DATA));
    let value = arena.keep(&key(1), &secret(b"0123456789abcdef!")).expect("room");
    for (range, part) in [(0..0, ""), (3..9, "345678"), (8..16, "89abcdef"), (15..99, "f!"), (50..60, "")] {
        assert_eq!(value.copy(range).expose_secret(), part.as_bytes());
    }
}

#[test]
fn a_dropped_value_is_wiped_and_its_neighbours_are_not() {
    let memory = memory(DATA);
    let arena = Arena::over(memory.clone());
    let one = arena.keep(&key(1), &secret(&[1; 40])).expect("room");
    let two = arena.keep(&key(2), &secret(&[2; 40])).expect("room");
    drop(one);
    assert_eq!(read(&two), [2; 40]);
    drop(two);
    assert!(is_wiped(&memory));
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let memory = memory(DATA);
    let arena = Arena::over(memory.clone());
    assert_eq!(arena.keep(&key(1), &secret(&[1; DATA * 8])).err(), Some(Full));
    assert!(is_wiped(&memory) && adopted(&memory).is_empty());
    let all = Arena::over(Words::private(Arena::words_for(SECRET_MAX_BYTES)).expect("memory"));
    assert!(all.keep(&key(1), &secret(&[1; SECRET_MAX_BYTES])).is_ok());
}

#[test]
fn killed_before_anything_is_announced() {
    let memory = memory(DATA);
    let directory = Directory::over(memory.part(0..Directory::WORDS));
    directory.begin(0, &Record::new(&key(1), 100));
    directory.free(0);
    assert_eq!(adopted(&memory), []);
    assert_eq!(Directory::over(memory).mark(), 0);
}

#[test]
fn killed_while_it_wrote_or_wiped() {
    for interrupt in [State::Writing, State::Wiping] {
        let memory = memory(DATA);
        let (directory, record) = killed(&memory);
        match interrupt {
            State::Writing => directory.begin(0, &record),
            _ => directory.retire(0),
        }
        assert_eq!(directory.state(0), Some(interrupt));
        assert!(!is_wiped(&memory));
        assert_eq!(adopted(&memory), []);
        assert!(is_wiped(&memory), "{interrupt:?}");
        assert_eq!(directory.state(0), Some(State::Free));
    }
}

#[test]
fn killed_when_it_was_done() {
    let memory = memory(DATA);
    let (directory, _) = killed(&memory);
    assert_eq!(adopted(&memory), [(1, vec![7; 100])]);
    assert_eq!(adopted(&memory), [(1, vec![7; 100])], "however often");
    directory.retire(0);
    packing::wipe(&memory[Directory::WORDS..]);
    directory.free(0);
    assert_eq!(adopted(&memory), []);
}

#[test]
fn what_makes_no_sense_is_wiped() {
    type Spoil = fn(&mut Record);
    let spoils: [(&str, Spoil); 6] = [
        ("no bytes", |record| record.value = 0),
        ("more than a secret has", |record| record.value = SECRET_MAX_BYTES + 1),
        ("beyond the end", |record| record.offset = DATA - 1),
        ("far beyond the end", |record| record.offset = usize::MAX),
        ("no name", |record| record.service = 0),
        ("no version", |record| record.version = 0),
    ];
    for (what, spoil) in spoils {
        let memory = memory(DATA);
        let (directory, mut record) = killed(&memory);
        spoil(&mut record);
        directory.begin(0, &record);
        directory.finish(0);
        assert_eq!(adopted(&memory), [], "{what}");
        assert_eq!(directory.state(0), Some(State::Free), "{what}");
    }
}

#[test]
fn of_two_in_one_place_the_second_is_no_value_and_the_first_stays_whole() {
    let memory = memory(DATA);
    let (directory, record) = killed(&memory);
    directory.begin(1, &record);
    directory.finish(1);
    directory.begin(2, &Record { offset: record.offset + 1, ..record });
    assert_eq!(adopted(&memory), [(1, vec![7; 100])]);
    assert_eq!(directory.mark(), 1);
}

#[test]
fn nothing_that_is_printed_shows_a_value() {
    let arena = Arena::over(memory(DATA));
    let value = arena.keep(&key(1), &secret(b"canary")).expect("room");
    let shown = format!("{value:?} {:?} {Full:?} {Full}", value.copy(0..6));
    assert_eq!(shown, "Value(REDACTED) Slice(REDACTED) Full there is no room for another value");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a compromised worker leaves behind: the next one finds values of possible sizes that do
    /// not overlap, and can use the rest.
    #[test]
    fn no_directory_is_believed(
        mark in prop_oneof![0..20u64, Just(u64::MAX)],
        entries in prop::collection::vec(
            (0..5u64, prop_oneof![0..80u64, any::<u64>()], (0..5u64, 0..5u64, prop_oneof![0..200u64, any::<u64>()]), 0..3u64),
            0..20,
        ),
        fill in any::<u64>(),
    ) {
        let memory = memory(DATA);
        memory[0].store(mark, Relaxed);
        for (entry, (state, offset, (service, target, value), version)) in entries.into_iter().enumerate() {
            let words = [state, offset, service << 48 | target << 32 | value, version];
            for (word, content) in words.into_iter().enumerate() {
                memory[8 + entry * 4 + word].store(content, Relaxed);
            }
        }
        for (word, data) in memory[Directory::WORDS..].iter().enumerate() {
            // Words of letters, so that some are names.
            data.store(if fill % 2 == 0 { 0x6161_6161_6161_6161 } else { fill.wrapping_mul(word as u64) }, Relaxed);
        }
        let arena = Arena::over(memory.clone());
        let values: Vec<_> = arena.adopt().into_iter().map(|(_, value)| value).collect();
        prop_assert_eq!(arena.used(), values.len());
        for value in &values {
            prop_assert!((1..=DATA * 8).contains(&value.len()));
            prop_assert_eq!(read(value).len(), value.len());
        }
        let kept = arena.keep(&key(1), &secret(b"value"));
        for value in values {
            drop(value);
        }
        if let Ok(kept) = kept {
            prop_assert_eq!(read(&kept), b"value");
        }
        prop_assert_eq!(arena.used(), 0);
    }
}
