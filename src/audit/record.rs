//! A record of an open as words: whatever is in the memory that a former worker left, it is read as a
//! record or refused, and never believed.

use jiff::Timestamp;
use secretfs_wire::api::Open;
use secretfs_wire::audit::{EventId, Process};
use secretfs_wire::{OpenLogId, VersionId};

use super::Caller;

/// The longest texts that are kept, in bytes. Names are far shorter; what is longer is cut.
const MOST_TEXT: usize = 512;
/// Words before the first text.
const FIXED: usize = 5;
/// Texts of a record: service, target, failure, executable, control group, container.
const TEXTS: usize = 6;
/// The largest record.
pub(super) const MOST_WORDS: usize = FIXED + 1 + TEXTS * (1 + MOST_TEXT.div_ceil(8));

/// What is known of a process, as a record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessWords(Box<[u64]>);

/// An open as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<'a> {
    /// See [`number`].
    pub(super) number: u64,
    pub(super) at: Timestamp,
    pub(super) version_id: VersionId,
    pub(super) caller: Caller,
    pub(super) service: &'a str,
    pub(super) target: &'a str,
    /// Empty if it succeeds.
    pub(super) failure: &'a str,
    pub(super) process: Option<&'a ProcessWords>,
}

/// Bits of a [`number`]: whether the open failed and the kernel's request; above them some of the
/// version and the mount's place.
const REQUEST_BITS: u32 = 48;
const VERSION_BITS: u32 = 7;
const FAILED: u64 = 1;

/// The number of an open in its log: a positive one, the same when its request is sent again to the next
/// worker and comes to the same end, and otherwise another.
///
/// A request that was recorded and not answered may end in another way with the next worker: fail, or get
/// another version. That is another event then, and the one that the program saw is the later one. The
/// kernel's numbers are even, so that the lowest bit is free.
pub(super) fn number(mount: usize, request: u64, version: VersionId, failed: bool) -> u64 {
    let request = request & ((1 << REQUEST_BITS) - 1) & !FAILED;
    let version = version.as_u64() & ((1 << VERSION_BITS) - 1);
    // A daemon has fewer than 256 mounts: their descriptors travel in one message.
    let mount = (mount as u64) & 0xff;
    (mount << (REQUEST_BITS + VERSION_BITS)) | (version << REQUEST_BITS) | request | u64::from(failed)
}

/// The number of the same open, as one that failed.
pub(super) const fn failed(number: u64) -> u64 {
    number | FAILED
}

impl ProcessWords {
    /// What the witness tells.
    pub(super) fn new(started: Option<Timestamp>, texts: [&str; 3]) -> Self {
        let mut words = vec![started.map_or(0, |started| started.as_microsecond().cast_unsigned())];
        texts.into_iter().for_each(|text| push_text(&mut words, text));
        Self(words.into())
    }
}

impl Draft<'_> {
    /// Appends the words.
    pub(super) fn write(&self, words: &mut Vec<u64>) {
        let Caller { uid, gid, pid } = self.caller;
        words.extend([
            self.number,
            self.at.as_microsecond().cast_unsigned(),
            self.version_id.as_u64(),
            u64::from(uid) | u64::from(gid) << 32,
            u64::from(pid),
        ]);
        [self.service, self.target, self.failure].into_iter().for_each(|text| push_text(words, text));
        match self.process {
            Some(ProcessWords(process)) => words.extend_from_slice(process),
            None => words.extend([0; 4]),
        }
    }
}

/// The number of a record.
#[cfg(test)]
pub(super) fn number_of(words: &[u64]) -> Option<u64> {
    words.first().copied()
}

/// When it was made.
pub(super) fn time_of(words: &[u64]) -> Option<Timestamp> {
    Timestamp::from_microsecond(words.get(1)?.cast_signed()).ok()
}

/// Reads a record, unless it makes no sense.
pub(super) fn read(log: OpenLogId, words: &[u64]) -> Option<Open> {
    let (fixed, mut rest) = words.split_first_chunk::<FIXED>()?;
    let [number, at, version, who, pid] = *fixed;
    let rest = &mut rest;
    let (service, target, failure) = (take_text(rest)?, take_text(rest)?, take_text(rest)?);
    let started = take(rest)?;
    let (executable, cgroup, container) = (take_text(rest)?, take_text(rest)?, take_text(rest)?);
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Some(Open {
        id: EventId { log, number },
        at: Timestamp::from_microsecond(at.cast_signed()).ok()?,
        service: service.parse().ok()?,
        target: target.parse().ok()?,
        version_id: VersionId::from_u64(version)?,
        process: Process {
            uid: who as u32,
            gid: (who >> 32) as u32,
            pid: u32::try_from(pid).ok()?,
            started: match started {
                0 => None,
                started => Some(Timestamp::from_microsecond(started.cast_signed()).ok()?),
            },
            executable: some(executable),
            cgroup: some(cgroup),
            container: some(container),
        },
        failure: some(failure),
    })
}

/// At most how many bytes a report has for it, JSON.
pub(super) fn size(open: &Open) -> usize {
    // Names of fields, numbers and times.
    const REST: usize = 384;
    let escaped = |text: &str| match text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        true => text.len(),
        // As \u0000.
        false => 6 * text.len(),
    };
    let process = [&open.process.executable, &open.process.cgroup, &open.process.container, &open.failure];
    let texts = process.into_iter().flatten().map(|text| escaped(text));
    REST + open.service.as_str().len() + open.target.as_str().len() + texts.sum::<usize>()
}

/// Its length in bytes, and the bytes, eight in a word.
fn push_text(words: &mut Vec<u64>, text: &str) {
    let text = &text.as_bytes()[..text.floor_char_boundary(MOST_TEXT)];
    words.push(text.len() as u64);
    let (whole, rest) = text.as_chunks::<8>();
    words.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u64::from_le_bytes(last));
    }
}

fn take(words: &mut &[u64]) -> Option<u64> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(*first)
}

fn take_text(words: &mut &[u64]) -> Option<String> {
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

    fn version(number: u64) -> VersionId {
        VersionId::from_u64(number).expect("an id")
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let started = Timestamp::from_second(1_700_000_000).expect("a time");
        let long = "é".repeat(1000);
        let process = ProcessWords::new(Some(started), ["/usr/bin/cat", &long, ""]);
        let caller = Caller { uid: 33, gid: u32::MAX, pid: 4711 };
        let draft = Draft {
            number: number(3, 42, version(9), false),
            at: Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
            version_id: version(9),
            caller,
            service: "web",
            target: "db.password",
            failure: "",
            process: Some(&process),
        };
        let mut words = Vec::new();
        draft.write(&mut words);
        let log = OpenLogId::random();
        let open = read(log, &words).expect("a record");
        assert_eq!((open.id.log, open.id.number, open.at), (log, draft.number, draft.at));
        assert_eq!((open.service.as_str(), open.target.as_str()), ("web", "db.password"));
        assert_eq!((open.process.uid, open.process.gid, open.process.pid), (33, u32::MAX, 4711));
        assert_eq!((open.process.started, open.failure.clone()), (Some(started), None));
        assert_eq!(open.process.executable.as_deref(), Some("/usr/bin/cat"));
        assert_eq!(open.process.cgroup.as_deref(), Some("é".repeat(MOST_TEXT / 2).as_str()), "it is cut");
        assert_eq!(open.process.container, None);
        assert!(serde_json::to_vec(&open).expect("JSON").len() <= size(&open));
        for end in 0..words.len() {
            assert_eq!(read(log, &words[..end]), None, "cut at {end}");
        }
        assert!(words.len() <= MOST_WORDS);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut words = Vec::new();
        let draft = Draft {
            number: 2,
            at: Timestamp::UNIX_EPOCH,
            version_id: version(1),
            caller: Caller { uid: 0, gid: 0, pid: 0 },
            service: "web",
            target: "db",
            failure: "no such thing",
            process: None,
        };
        draft.write(&mut words);
        let log = OpenLogId::random();
        let open = read(log, &words).expect("a record");
        assert_eq!((open.process.executable, open.process.started), (None, None));
        assert_eq!(open.failure.as_deref(), Some("no such thing"));
        // The version, the length of the service, its first letter.
        for (place, nonsense) in [(2, 0), (5, u64::MAX), (6, u64::from(b'/'))] {
            let mut words = words.clone();
            words[place] = nonsense;
            assert_eq!(read(log, &words), None, "{place}");
        }
    }

    #[test]
    fn a_number_is_the_same_for_the_same_end_of_the_same_request_only() {
        let one = number(1, 1000, version(5), false);
        assert_eq!(one, number(1, 1000, version(5), false));
        let others = [
            number(2, 1000, version(5), false),
            number(1, 1002, version(5), false),
            number(1, 1000, version(6), false),
            number(1, 1000, version(5), true),
        ];
        assert!(others.iter().all(|other| *other != one));
        assert_eq!(failed(one), others[3]);
        assert!(number(255, u64::MAX, version(i64::MAX as u64), true) <= i64::MAX as u64);
    }
}
