//! A record as people read it: one line. Some of its texts come from nodes, so what could move a cursor
//! is written out.

use secretfs_wire::audit::{Event, Object, Record};

use crate::cli::output;

pub(super) fn line(record: &Record) -> String {
    let Record { sequence, time, event, .. } = record;
    let mut words = vec![
        output::time(*time),
        sequence.to_string(),
        event.outcome.as_str().to_owned(),
        event.action.to_string(),
        event.actor.to_string(),
    ];
    words.extend(event.environment.as_ref().map(ToString::to_string));
    words.extend(object(&event.object));
    words.extend(event.address.map(|address| format!("from {address}")));
    words.extend(event.inputs.iter().map(|input| format!("with {}:{}", input.secret, input.version)));
    words.extend(process(event));
    words.extend(event.count.map(|count| format!("{count} times")));
    words.extend(event.reason.as_ref().map(|reason| format!("({reason})")));
    words.extend(event.doubts.iter().map(|doubt| format!("doubtful: {}", doubt.as_str())));
    if !event.policies.is_empty() {
        words.push(format!("by {}", event.policies.join(", ")));
    }
    words.join("  ").chars().flat_map(visible).collect()
}

fn object(object: &Object) -> Vec<String> {
    let Object { secret, version, service, target, node, operator, key } = object;
    let mut words = Vec::new();
    words.extend(secret.as_ref().map(|name| match version {
        Some(version) => format!("secret {name}:{version}"),
        None => format!("secret {name}"),
    }));
    words.extend(service.as_ref().map(|name| match target {
        Some(target) => format!("file {name}/{target}"),
        None => format!("service {name}"),
    }));
    words.extend(node.as_ref().map(|name| format!("node {name}")));
    words.extend(operator.as_ref().map(|name| format!("operator {name}")));
    words.extend(key.as_ref().map(|name| format!("key {name}")));
    words
}

fn process(event: &Event) -> Option<String> {
    let process = event.process.as_ref()?;
    let mut words = vec![format!("uid {} pid {}", process.uid, process.pid)];
    words.extend(process.executable.clone());
    words.extend(process.unseen.map(|why| format!("(unseen: {})", why.as_str())));
    words.extend(process.container.as_ref().map(|id| format!("container {id}")));
    Some(words.join(" "))
}

fn visible(character: char) -> Vec<char> {
    match character.is_control() {
        true => character.escape_default().collect(),
        false => vec![character],
    }
}

#[cfg(test)]
mod tests {
    use secretfs_wire::audit::{Actor, Outcome, Process};
    use secretfs_wire::{Action, ChainId};

    use super::*;

    #[test]
    fn what_a_program_is_called_moves_no_cursor() {
        let mut event = Event::new(Action::FileOpen, Outcome::Done, Actor::Manager);
        event.process = Some(Process {
            uid: 0,
            gid: 0,
            pid: 1,
            unseen: None,
            started: None,
            executable: Some("/tmp/\u{1b}[2J\nroot".to_owned()),
            cgroup: None,
            container: None,
        });
        let time = jiff::Timestamp::UNIX_EPOCH;
        let chain = ChainId::random();
        let record = Record { chain, sequence: 1, time, previous: None, event, key: None, follows: None };
        let line = line(&record);
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.contains("uid 0 pid 1 /tmp/\\u{1b}[2J\\nroot"), "{line}");
    }
}
