use std::os::fd::AsFd as _;
use std::sync::LazyLock;
use std::thread;

use secretfs_wire::audit::Unseen;
use secretfs_wire::manifest::Target;

use super::super::Caller;
use super::*;
use crate::fs::test_manifest::target;

const SMALL: usize = LEAST_WORDS * size_of::<u64>();

fn draft(number: u64) -> Draft<'static> {
    static DETAILS: LazyLock<Target> = LazyLock::new(|| target(1, 5));
    Draft {
        number,
        at: Timestamp::from_microsecond(number.cast_signed()).expect("a time"),
        caller: Caller { uid: 1, gid: 2, pid: 3 },
        service: "web",
        target: "db",
        details: &DETAILS,
        failure: "",
        process: Err(Unseen::NoWitness),
    }
}

fn push(ring: &Ring, number: u64) -> Option<Position> {
    ring.push(&draft(number), false, false)
}

fn numbers(ring: &Ring) -> Vec<u64> {
    ring.oldest().filter_map(|kept| record::number_of(&kept.words)).collect()
}

/// Fills it to what is kept free for those that are required. Tells how many went in.
fn fill(ring: &Ring) -> u64 {
    (1..).take_while(|number| push(ring, *number).is_some()).count() as u64
}

#[test]
fn what_is_written_is_there_until_it_is_acknowledged_in_whatever_order() {
    let ring = Ring::private(SMALL).expect("memory");
    let positions: Vec<_> = (1..=5).map(|number| push(&ring, number).expect("room")).collect();
    assert_eq!(numbers(&ring), [1, 2, 3, 4, 5]);
    ring.acknowledge([positions[3], positions[1]]);
    assert_eq!(numbers(&ring), [1, 3, 5]);
    assert_eq!(ring.backlog().buffered, 5, "the room is not free yet");
    ring.acknowledge([positions[0], positions[0]]);
    assert_eq!((numbers(&ring), ring.backlog().buffered), (vec![3, 5], 3));
    assert!(ring.is_acknowledged(positions[3]) && !ring.is_acknowledged(positions[4]));
    let found: Vec<_> = ring.at(positions.clone()).iter().map(|kept| kept.position).collect();
    assert_eq!(found, [positions[2], positions[4]]);
    assert_eq!(ring.backlog().oldest, Timestamp::from_microsecond(3).ok());
    ring.acknowledge(positions);
    assert!(ring.is_empty());
    assert_eq!(ring.backlog(), Backlog { buffered: 0, lost: 0, oldest: None });
}

#[test]
fn what_there_is_no_room_for_is_counted_and_what_is_required_has_its_own() {
    let ring = Ring::private(SMALL).expect("memory");
    let kept = fill(&ring);
    assert_eq!((ring.lost(), ring.backlog().buffered), (1, kept));
    let required = ring.push(&draft(1_000_000), true, false).expect("its own room");
    assert!(ring.oldest().last().is_some_and(|kept| kept.required && kept.position == required));
    assert_eq!(numbers(&ring).len() as u64, kept + 1);
    for number in 0..10 {
        assert_eq!(push(&ring, 2_000_000 + number), None);
    }
    assert_eq!(ring.lost(), 11);
    let first = ring.oldest().next().expect("a record");
    assert_eq!(record::number_of(&first.words), Some(1), "nothing that is there is lost");
    let all: Vec<_> = ring.oldest().map(|kept| kept.position).collect();
    ring.acknowledge(all);
    push(&ring, 7).expect("room again");
    assert_eq!(numbers(&ring), [7]);
}

#[test]
fn a_request_that_is_sent_again_has_one_record() {
    let ring = Ring::private(SMALL).expect("memory");
    let one = push(&ring, 1).expect("room");
    push(&ring, 2).expect("room");
    assert_eq!(ring.push(&draft(1), false, true), Some(one));
    assert_eq!(numbers(&ring), [1, 2]);
    // Another version, whose number is the same now and then.
    let rotated = Draft { details: &target(2, 5), ..draft(1) };
    let rotated = ring.push(&rotated, false, true).expect("room");
    assert_ne!(rotated, one, "it is another open");
    ring.acknowledge([one, rotated]);
    ring.push(&draft(1), false, true).expect("room");
    assert_eq!(numbers(&ring), [2, 1], "the manager knows it by its number");
}

#[test]
fn the_next_worker_goes_on_with_what_is_there() {
    let memory = Ring::create(SMALL).expect("memory");
    let first = Ring::map(memory.as_fd()).expect("a ring");
    // Round and round.
    for round in 0..40 {
        let pushed: Vec<_> = (0..50).map(|number| push(&first, round * 50 + number).expect("room")).collect();
        first.acknowledge(pushed);
    }
    push(&first, 1).expect("room");
    push(&first, 2).expect("room");
    let next = Ring::map(memory.as_fd()).expect("the same");
    next.adopt();
    assert_eq!((numbers(&next), next.log()), (vec![1, 2], first.log()));
    assert_eq!(next.backlog().buffered, 2);
    // Killed with a record half written, and before it was counted.
    let head = next.load(HEAD);
    next.data[next.index(head)].store(17, Relaxed);
    next.header[WRITTEN].fetch_add(1, Relaxed);
    let third = Ring::map(memory.as_fd()).expect("the same");
    third.adopt();
    assert_eq!((numbers(&third), third.backlog().buffered, third.lost()), (vec![1, 2], 2, 0));
    push(&third, 3).expect("room");
    assert_eq!(numbers(&third), [1, 2, 3]);
}

#[test]
fn nonsense_costs_what_is_behind_it_and_is_counted() {
    let ring = Ring::private(SMALL).expect("memory");
    let positions: Vec<_> = (1..=5).map(|number| push(&ring, number).expect("room")).collect();
    ring.data[ring.index(positions[2].0)].store(u64::from(u32::MAX), Relaxed);
    ring.adopt();
    assert_eq!((numbers(&ring), ring.lost(), ring.backlog().buffered), (vec![1, 2], 3, 2));
    push(&ring, 6).expect("room");
    assert_eq!(numbers(&ring), [1, 2, 6]);
    ring.header[TAIL].store(u64::MAX / 2, Relaxed);
    ring.adopt();
    assert_eq!(numbers(&ring), [0; 0]);
    push(&ring, 7).expect("room");
    assert_eq!(numbers(&ring), [7]);
    let memory = shared_memory::create("test", HEADER + LEAST_WORDS).expect("memory");
    Words::map(memory.as_fd(), 1).expect("a mapping")[0].store(1, Relaxed);
    assert!(Ring::map(memory.as_fd()).is_err(), "another kind of memory");
}

/// More is offered than any machine opens; nobody waits, and what is not there is in the count.
#[test]
fn under_many_threads_each_record_is_there_once_or_counted_as_lost() {
    const THREADS: u64 = 8;
    const EACH: u64 = 25_000;
    let ring = Ring::private(1 << 20).expect("memory");
    let received = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let ring = &ring;
                scope.spawn(move || {
                    (1..=EACH).filter(|number| push(ring, thread * EACH + number).is_none()).count() as u64
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut received = Vec::new();
            loop {
                let batch: Vec<_> = ring.oldest().collect();
                received.extend(batch.iter().filter_map(|kept| record::number_of(&kept.words)));
                ring.acknowledge(batch.iter().map(|kept| kept.position));
                let ended = writers.iter().all(thread::ScopedJoinHandle::is_finished);
                if ended && ring.is_empty() {
                    break;
                }
                thread::yield_now();
            }
            let lost: u64 = writers.into_iter().map(|writer| writer.join().expect("a writer")).sum();
            (received, lost)
        });
        reader.join().expect("the reader")
    });
    let (mut received, lost) = received;
    assert_eq!(ring.lost(), lost);
    assert_eq!(received.len() as u64 + lost, THREADS * EACH);
    received.sort_unstable();
    received.dedup();
    assert_eq!(received.len() as u64 + lost, THREADS * EACH, "none twice");
}
