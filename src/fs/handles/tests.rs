use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use secretfs_wire::SecretBytes;

use super::super::test_memory::arena;
use super::*;
use crate::cache::{Arena, Key};

const FILE: Inode = Inode::from_u64(7);
const SERVICE: Inode = Inode::from_u64(70);

fn memory() -> Words {
    Words::private(Handles::words()).expect("memory")
}

fn version(id: u64) -> VersionId {
    VersionId::from_u64(id).expect("an id")
}

fn value(arena: &Arc<Arena>, id: u64) -> Arc<Value> {
    let (service, target) = ("web".parse().expect("a name"), "db".parse().expect("a name"));
    let key = Key { service, target, version: version(id) };
    let value = SecretBytes::new(format!("v{id}").into_bytes()).expect("a secret");
    Arc::new(arena.keep(&key, &value).expect("room"))
}

fn request(number: u64) -> RequestId {
    RequestId { number, repeated: false }
}

fn read(handles: &Handles, handle: Handle) -> Option<Vec<u8>> {
    let Opened::Value(value) = handles.opened(FILE, handle)? else { return None };
    Some(value.copy(0..99).expose_secret().to_vec())
}

#[test]
fn the_last_release_drops_the_value() {
    let (arena, handles) = (arena(100), Handles::over(memory()));
    let first = value(&arena, 1);
    let watch = Arc::downgrade(&first);
    let one = handles.pin(FILE, SERVICE, version(1), first.clone(), request(2)).expect("a row");
    let two = handles.pin(FILE, SERVICE, version(1), first, request(4)).expect("a row");
    assert_ne!(one, two);
    assert_eq!((handles.len(), handles.pinned()), (2, 1));
    for _ in 0..3 {
        handles.release(FILE, one);
    }
    assert_eq!(read(&handles, two).expect("pinned"), b"v1");
    handles.release(FILE, two);
    assert_eq!((handles.len(), handles.pinned(), arena.used()), (0, 0, 0));
    assert!(watch.upgrade().is_none(), "somebody still holds the cleartext");
}

#[test]
fn a_closed_file_is_never_taken_for_the_next_in_its_row() {
    let (arena, handles) = (arena(100), Handles::over(memory()));
    let old = handles.pin(FILE, SERVICE, version(1), value(&arena, 1), request(2)).expect("a row");
    handles.release(FILE, old);
    let new = handles.pin(FILE, SERVICE, version(2), value(&arena, 2), request(4)).expect("a row");
    assert_eq!(old.row(), new.row());
    handles.release(FILE, old);
    assert_eq!((read(&handles, old), read(&handles, new)), (None, Some(b"v2".to_vec())));
    assert!(handles.opened(Inode::from_u64(8), new).is_none(), "another file's handle");
}

#[test]
fn rows_end_and_come_back() {
    let (arena, handles) = (arena(100), Handles::over(memory()));
    let value = value(&arena, 1);
    let open =
        |request_number| handles.pin(FILE, SERVICE, version(1), value.clone(), request(request_number));
    let first = open(2).expect("a row");
    for number in 1..ROWS as u64 {
        open(2 + 2 * number).expect("a row");
    }
    assert_eq!(open(1), Err(FsError::TooManyOpenFiles));
    assert_eq!((handles.len(), handles.pinned()), (ROWS, 1));
    handles.release(FILE, first);
    assert_eq!(open(1).expect("a row").row(), first.row());
    handles.adopt(|_, _| Some(value.clone()));
    assert_eq!((handles.len(), handles.pinned()), (ROWS, 1));
}

#[test]
fn open_files_and_who_waits_for_them_outlive_a_worker() {
    let (arena, memory) = (arena(100), memory());
    let values = [value(&arena, 1), value(&arena, 2)];
    let former = Handles::over(memory.clone());
    let kept = former.pin(FILE, SERVICE, version(1), values[0].clone(), request(2)).expect("a row");
    let lost = former.pin(FILE, SERVICE, version(2), values[1].clone(), request(4)).expect("a row");
    let closed = former.pin(FILE, SERVICE, version(2), values[1].clone(), request(6)).expect("a row");
    former.wait(FILE, lost, 11);
    former.wait(FILE, closed, 12);
    former.release(FILE, closed);
    assert_eq!(former.polled(), 1);
    // It was killed before it could wake them.
    assert_eq!(former.take_pollers(FILE), [11]);
    assert_eq!((former.polled(), former.take_pollers(FILE)), (0, vec![]));

    let next = Handles::over(memory);
    next.adopt(|entry, version| {
        values.iter().find(|value| value.entry() == entry && version.as_u64() == 1).cloned()
    });
    assert_eq!(read(&next, kept).expect("pinned"), b"v1");
    assert_eq!((read(&next, lost), next.version(FILE, lost)), (None, Some(version(2))));
    assert_eq!((next.len(), next.pinned(), next.polled()), (2, 1, 1));
    assert_eq!(next.take_pollers(FILE), [11]);
    let new = next.pin(FILE, SERVICE, version(1), values[0].clone(), request(8)).expect("a row");
    assert!(new != closed && new.row() == closed.row());
}

#[test]
fn an_open_that_is_repeated_leaves_one_row() {
    let (arena, memory) = (arena(100), memory());
    let former = Handles::over(memory.clone());
    let other = former.pin(FILE, SERVICE, version(1), value(&arena, 1), request(2)).expect("a row");
    former.pin(FILE, SERVICE, version(1), value(&arena, 1), request(4)).expect("a row");
    let next = Handles::over(memory);
    next.adopt(|_, _| None);
    next.undo(request(4));
    assert_eq!(next.len(), 2, "only what is repeated is undone");
    for _ in 0..2 {
        next.undo(RequestId { number: 4, repeated: true });
        assert_eq!(next.len(), 1);
    }
    assert_eq!(next.version(FILE, other), Some(version(1)));
}

#[test]
fn a_row_that_a_kill_cut_short_does_not_count() {
    let (arena, memory) = (arena(100), memory());
    let former = Handles::over(memory.clone());
    let handle = former.pin(FILE, SERVICE, version(1), value(&arena, 1), request(2)).expect("a row");
    // The handle is written last and cleared first.
    memory[8].store(0, Relaxed);
    let next = Handles::over(memory);
    next.adopt(|_, _| panic!("nothing is open"));
    assert_eq!((next.len(), next.version(FILE, handle)), (0, None));
}

#[test]
fn a_revoked_file_stays_so_for_every_worker_and_only_its_service_s_are() {
    let (arena, memory) = (arena(100), memory());
    let former = Handles::over(memory.clone());
    let value = value(&arena, 1);
    let watch = Arc::downgrade(&value);
    let other = Inode::from_u64(71);
    let kept = former.pin(FILE, other, version(1), value.clone(), request(2)).expect("a row");
    let taken = former.pin(FILE, SERVICE, version(1), value, request(4)).expect("a row");
    former.wait(FILE, taken, 11);
    // A standby learns of it first, and leaves the rows to whom they belong.
    Handles::over(memory.clone()).revoke(|_, _| false);
    assert_eq!(former.version(FILE, taken), Some(version(1)));
    let revoked = former.revoke(|_, directory| directory == Some(other));
    assert_eq!(revoked, HashSet::from([FILE]));
    assert!(former.revoke(|_, directory| directory == Some(other)).is_empty(), "no news");
    let is_revoked = |handles: &Handles| matches!(handles.opened(FILE, taken), Some(Opened::Revoked));
    assert!(is_revoked(&former) && former.version(FILE, taken).is_none());
    assert_eq!((former.len(), former.pinned(), former.take_pollers(FILE)), (2, 1, vec![11]));

    let next = Handles::over(memory);
    next.adopt(|_, _| watch.upgrade());
    assert!(is_revoked(&next), "the value is still to be had, and it is not pinned again");
    assert_eq!(read(&next, kept).expect("another service's"), b"v1");
    next.release(FILE, taken);
    assert_eq!(next.len(), 1);
    drop(former);
    next.release(FILE, kept);
    assert_eq!(arena.used(), 0);
}

#[test]
fn a_directory_that_another_file_left_in_the_row_is_not_believed() {
    let (arena, memory) = (arena(100), memory());
    let handles = Handles::over(memory.clone());
    let old = handles.pin(FILE, SERVICE, version(1), value(&arena, 1), request(2)).expect("a row");
    // As a worker of an older version opens the next file in this row.
    let words: Vec<_> = (0..8).map(|word| memory[8 + word].load(Relaxed)).collect();
    handles.release(FILE, old);
    let new = handles.pin(FILE, SERVICE, version(1), value(&arena, 1), request(4)).expect("a row");
    assert_eq!(old.row(), new.row());
    for word in [6, 7] {
        memory[8 + word].store(words[word], Relaxed);
    }
    handles.revoke(|_, directory| {
        assert_eq!(directory, None);
        true
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_row_is_believed(
        mark in prop_oneof![0..12u64, any::<u64>()],
        tag in any::<u64>(),
        rows in prop::collection::vec(prop::array::uniform8(prop_oneof![0..12u64, any::<u64>()]), 0..12),
    ) {
        let (arena, memory) = (arena(100), memory());
        memory[0].store(mark, Relaxed);
        memory[1].store(tag, Relaxed);
        for (row, words) in rows.iter().enumerate() {
            for (word, content) in words.iter().enumerate() {
                memory[8 + row * 8 + word].store(*content, Relaxed);
            }
        }
        let value = value(&arena, 1);
        let handles = Handles::over(memory);
        handles.adopt(|entry, _| (entry % 2 == 0).then(|| value.clone()));
        handles.revoke(|inode, _| inode.as_u64() % 3 != 0);
        let before = handles.len();
        prop_assert!(before <= 12 && handles.pinned() <= before && handles.polled() <= before);
        let handle = handles.pin(FILE, SERVICE, version(1), value.clone(), request(2)).expect("a row");
        handles.undo(RequestId { number: 3, repeated: true });
        prop_assert_eq!(read(&handles, handle), Some(b"v1".to_vec()));
        for inode in handles.waited_for() {
            handles.take_pollers(inode);
        }
        handles.release(FILE, handle);
        prop_assert_eq!(handles.polled(), 0);
    }
}
