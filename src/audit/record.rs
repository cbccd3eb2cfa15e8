//! A record of an open as words: whatever is in the memory that a former worker left, it is read as a
//! record or refused, and never believed.

use jiff::Timestamp;
use secretfs_wire::api::{Open, OpenedVersion};
use secretfs_wire::audit::{EventId, Process, Unseen};
use secretfs_wire::manifest::{Content, Target};
use secretfs_wire::{NAME_MAX_BYTES, OpenLogId, VersionId};

use super::Caller;
use super::words::{Keep, MOST_TEXT, push_text, take, take_text, words_of_text};

/// Words before the first text.
const FIXED: usize = 5;
/// Texts of a record: service, target, failure, executable, control group, container.
const TEXTS: usize = 6;
/// Words of a version with the longest name.
const MOST_VERSION: usize = 2 + words_of_text(NAME_MAX_BYTES);
/// Words for the versions that a file shows: of more than a hundred inputs of a template, as secrets are
/// called, and of twenty with the longest names.
const MOST_VERSIONS: usize = 20 * MOST_VERSION;
/// The largest record.
pub(super) const MOST_WORDS: usize = 1 + FIXED + 4 + TEXTS * words_of_text(MOST_TEXT) + MOST_VERSIONS;

/// What is known of a process, as a record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessWords {
    pid: u32,
    words: Box<[u64]>,
}

/// An open as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<'a> {
    /// See [`number`].
    pub(super) number: u64,
    pub(super) at: Timestamp,
    pub(super) caller: Caller,
    pub(super) service: &'a str,
    pub(super) target: &'a str,
    /// What was opened, as the manifest has it.
    pub(super) details: &'a Target,
    /// Empty if it succeeds.
    pub(super) failure: &'a str,
    pub(super) process: Result<&'a ProcessWords, Unseen>,
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
    /// What the witness tells: of which process, when it was started, and its program, control group and
    /// container.
    pub(super) fn new(pid: u32, started: Option<Timestamp>, [program, group, container]: [&str; 3]) -> Self {
        let mut words = vec![started.map_or(0, |started| started.as_microsecond().cast_unsigned())];
        push_text(&mut words, program, Keep::End);
        // Who may make groups below its own decides how it ends.
        push_text(&mut words, group, Keep::Start);
        push_text(&mut words, container, Keep::Start);
        Self { pid, words: words.into() }
    }
}

impl Draft<'_> {
    /// Appends the words.
    pub(super) fn write(&self, words: &mut Vec<u64>) {
        let Caller { uid, gid, pid } = self.caller;
        let pid = self.process.map_or(pid, |process| process.pid);
        words.extend([
            self.number,
            self.at.as_microsecond().cast_unsigned(),
            self.details.version_id.as_u64(),
            u64::from(uid) | u64::from(gid) << 32,
            u64::from(pid),
        ]);
        for text in [self.service, self.target, self.failure] {
            push_text(words, text, Keep::Start);
        }
        match self.process {
            Ok(process) => {
                words.push(SEEN);
                words.extend_from_slice(&process.words);
            }
            Err(unseen) => words.push(code_of(unseen)),
        }
        self.write_versions(words);
    }

    /// Appends how many there are, how many of them stand here, and those.
    fn write_versions(&self, words: &mut Vec<u64>) {
        let start = words.len();
        words.extend([0; 2]);
        let mut push = |target: &Target| {
            let Content::Secret(attached) = &target.content else { return };
            words[start] += 1;
            if words.len() + MOST_VERSION <= start + 2 + MOST_VERSIONS {
                words[start + 1] += 1;
                words.extend([target.version_id.as_u64(), attached.version]);
                push_text(words, attached.secret.as_str(), Keep::Start);
            }
        };
        match &self.details.content {
            Content::Secret(_) => push(self.details),
            Content::Template(recipe) => recipe.inputs.values().for_each(push),
        }
    }
}

/// Stands in a record before what is known of a process.
const SEEN: u64 = 0;

const fn code_of(unseen: Unseen) -> u64 {
    match unseen {
        Unseen::NotVisible => 1,
        Unseen::TooLate => 2,
        Unseen::NoWitness => 3,
    }
}

fn unseen_of(code: u64) -> Option<Unseen> {
    [Unseen::NotVisible, Unseen::TooLate, Unseen::NoWitness]
        .into_iter()
        .find(|unseen| code_of(*unseen) == code)
}

/// Whether a record is of the open that has this number and this version. Of one request and two versions
/// the numbers are the same now and then.
pub(super) fn is_of(words: &[u64; 3], number: u64, version: VersionId) -> bool {
    words[0] == number && words[2] == version.as_u64()
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
    let mut process = Process {
        uid: who as u32,
        gid: (who >> 32) as u32,
        pid: u32::try_from(pid).ok()?,
        unseen: None,
        started: None,
        executable: None,
        cgroup: None,
        container: None,
    };
    match take(rest)? {
        SEEN => {
            process.started = match take(rest)? {
                0 => None,
                started => Some(Timestamp::from_microsecond(started.cast_signed()).ok()?),
            };
            process.executable = some(take_text(rest)?);
            process.cgroup = some(take_text(rest)?);
            process.container = some(take_text(rest)?);
        }
        code => process.unseen = Some(unseen_of(code)?),
    }
    let (all, here) = (take(rest)?, take(rest)?);
    let versions = (0..here).map(|_| read_version(rest)).collect::<Option<Vec<_>>>()?;
    Some(Open {
        id: EventId { log, number },
        at: Timestamp::from_microsecond(at.cast_signed()).ok()?,
        service: service.parse().ok()?,
        target: target.parse().ok()?,
        version_id: VersionId::from_u64(version)?,
        versions,
        unnamed: all.checked_sub(here)?,
        process,
        failure: some(failure),
    })
}

fn read_version(words: &mut &[u64]) -> Option<OpenedVersion> {
    let (id, version) = (VersionId::from_u64(take(words)?)?, take(words)?);
    Some(OpenedVersion { id, secret: take_text(words)?.parse().ok()?, version })
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// At most how many bytes a report has for it, JSON.
pub(super) fn size(open: &Open) -> usize {
    // Names of fields, numbers and times.
    const REST: usize = 384;
    const REST_OF_VERSION: usize = 96;
    let escaped = |text: &str| match text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        true => text.len(),
        // As \u0000.
        false => 6 * text.len(),
    };
    let process = [&open.process.executable, &open.process.cgroup, &open.process.container, &open.failure];
    let texts = process.into_iter().flatten().map(|text| escaped(text));
    let versions = open.versions.iter().map(|version| REST_OF_VERSION + version.secret.as_str().len());
    let names = open.service.as_str().len() + open.target.as_str().len();
    REST + names + texts.sum::<usize>() + versions.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::test_manifest::{target, template};

    fn version(number: u64) -> VersionId {
        VersionId::from_u64(number).expect("an id")
    }

    fn draft(details: &Target) -> Draft<'_> {
        Draft {
            number: 2,
            at: Timestamp::UNIX_EPOCH,
            caller: Caller { uid: 0, gid: 0, pid: 0 },
            service: "web",
            target: "db",
            details,
            failure: "no such thing",
            process: Err(Unseen::TooLate),
        }
    }

    fn written(draft: &Draft<'_>) -> Vec<u64> {
        let mut words = Vec::new();
        draft.write(&mut words);
        // Where it is kept there is one more before it.
        assert!(words.len() < MOST_WORDS, "{} words", words.len());
        words
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let started = Timestamp::from_second(1_700_000_000).expect("a time");
        let long = "é".repeat(1000);
        let process = ProcessWords::new(4700, Some(started), ["/usr/bin/cat", &long, ""]);
        let (details, caller) = (target(9, 5), Caller { uid: 33, gid: u32::MAX, pid: 4711 });
        let draft = Draft {
            number: number(3, 42, details.version_id, false),
            at: Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
            caller,
            target: "db.password",
            failure: "",
            process: Ok(&process),
            ..draft(&details)
        };
        let words = written(&draft);
        let log = OpenLogId::random();
        let open = read(log, &words).expect("a record");
        assert_eq!((open.id.log, open.id.number, open.at), (log, draft.number, draft.at));
        assert_eq!((open.service.as_str(), open.target.as_str()), ("web", "db.password"));
        assert_eq!((open.process.uid, open.process.gid), (33, u32::MAX));
        assert_eq!((open.process.pid, open.process.unseen), (4700, None), "the process, not its thread");
        assert_eq!((open.process.started, open.failure.clone()), (Some(started), None));
        assert_eq!(open.process.executable.as_deref(), Some("/usr/bin/cat"));
        assert!(
            open.process.cgroup.as_ref().is_some_and(|group| group.starts_with("éé") && group.ends_with('…'))
        );
        assert_eq!(open.process.container, None);
        let secret = "secret".parse().expect("a name");
        assert_eq!(open.versions, [OpenedVersion { id: details.version_id, secret, version: 9 }]);
        assert!(serde_json::to_vec(&open).expect("JSON").len() <= size(&open));
        for end in 0..words.len() {
            assert_eq!(read(log, &words[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn of_a_template_there_are_its_inputs_as_far_as_there_is_room() {
        let named = |name: &str, number| {
            let mut input = target(number, 5);
            let Content::Secret(attached) = &mut input.content else { panic!("a secret") };
            attached.secret = name.parse().expect("a name");
            input
        };
        let details =
            template("{{ secrets.a }}{{ secrets.b }}", [("a", named("db", 3)), ("b", named("key", 7))]);
        let open = read(OpenLogId::random(), &written(&draft(&details))).expect("a record");
        assert_eq!((open.version_id, open.unnamed), (details.version_id, 0));
        let versions = open.versions.iter().map(|version| (version.secret.as_str(), version.version));
        assert_eq!(versions.collect::<Vec<_>>(), [("db", 3), ("key", 7)]);

        let names: Vec<_> = (0..100).map(|number| format!("n{number}")).collect();
        let text: String = names.iter().map(|name| format!("{{{{ secrets.{name} }}}}")).collect();
        let long = "s".repeat(NAME_MAX_BYTES);
        let all = template(&text, names.iter().map(|name| (name.as_str(), named(&long, 1))));
        let failure = "f".repeat(1000);
        let open = read(OpenLogId::random(), &written(&Draft { failure: &failure, ..draft(&all) }));
        let open = open.expect("a record");
        assert_eq!((open.versions.len(), open.unnamed), (20, 80));
        assert!(serde_json::to_vec(&open).expect("JSON").len() <= size(&open));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let details = target(1, 5);
        let words = written(&draft(&details));
        let log = OpenLogId::random();
        let open = read(log, &words).expect("a record");
        assert_eq!((open.process.executable, open.process.started), (None, None));
        assert_eq!(open.process.unseen, Some(Unseen::TooLate));
        assert_eq!(open.failure.as_deref(), Some("no such thing"));
        // The version, the length of the service, its first letter, why nobody saw it, how many versions.
        for (place, nonsense) in
            [(2, 0), (5, u64::MAX), (6, u64::from(b'/')), (12, 9), (13, 0), (14, u64::MAX)]
        {
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
