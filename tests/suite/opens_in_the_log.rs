//! Opens of programs in containers, and what the manager's own log says of opens.

use std::collections::BTreeSet;

use secretfs_wire::audit::{AuditMode, Event, Outcome};
use serde_json::Value;

use crate::audited_opens::{FIRST_USER, audited_opens, cat_as, manager, node, open_while_killing, path_of};
use crate::harness::area::Area;
use crate::harness::engine::Engine;
use crate::harness::requirement::trials;
use crate::harness::{Site, deadline};

trials! {
    needs [Mount, Containers];
    opens_in_containers_are_on_record_with_their_containers,
    // From here on the manager's own log is read.
    a_hundred_opens_are_in_the_log_of_the_manager_as_they_were,
    over_killed_workers_and_managers_every_success_is_in_the_log,
}

fn opens_in_containers_are_on_record_with_their_containers() {
    let area = Area::new();
    let manager = manager(AuditMode::Buffered);
    let node = node(&area, &manager, "");
    let volume = format!("{}:/run/secrets:ro", node.path("web").display());
    let engine = Engine::shared();
    let containers: Vec<_> = (0..3)
        .map(|number| {
            let user = (3_000 + number).to_string();
            let options = ["--volume", volume.as_str(), "--user", user.as_str()];
            engine.clone().start_container(&options, &["/bin/sleep", "1000"])
        })
        .collect();
    for (number, container) in containers.iter().enumerate() {
        for _ in 0..3 {
            let outcome = container.exec(&["/bin/cat", "/run/secrets/key"]);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "value"), "{number}: {outcome:?}");
        }
    }
    let opens =
        deadline::poll("all are on record", || Some(manager.opens()).filter(|opens| opens.len() >= 9));
    assert_eq!(opens.len(), 9);
    for (number, container) in containers.iter().enumerate() {
        let of_container =
            opens.iter().filter(|open| open.process.container.as_deref() == Some(container.id()));
        let of_container: Vec<_> = of_container.collect();
        assert_eq!(of_container.len(), 3, "{opens:?}");
        for open in of_container {
            assert_eq!(open.process.uid as usize, 3_000 + number);
            assert_eq!(open.process.executable.as_deref(), Some("/bin/busybox"), "its own path");
        }
    }
}

/// The opens that the manager has in its log.
fn logged(site: &Site) -> Vec<Event> {
    let exported = site.operator.ok(&["audit", "export"]);
    let lines = exported.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    let events = lines.filter(|line| line["record"]["event"]["action"] == "file.open");
    events.map(|line| serde_json::from_value(line["record"]["event"].clone()).expect("an event")).collect()
}

fn a_hundred_opens_are_in_the_log_of_the_manager_as_they_were() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    node.wait_for("web/key", b"value");
    let volume = format!("{}:/run/secrets:ro", node.path("web").display());
    let engine = Engine::shared();
    let containers: Vec<_> = (0..3)
        .map(|_| engine.clone().start_container(&["--volume", &volume], &["/bin/sleep", "1000"]))
        .collect();
    let cat = path_of("cat");
    // User, process id where it is known, program, container.
    let mut expected = Vec::new();
    for number in 0..100_u32 {
        let user = 4_000 + number % 5;
        match containers.get((number % 4) as usize) {
            Some(container) => {
                let outcome = container.exec_as(user, &["/bin/cat", "/run/secrets/key"]);
                assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "value"), "{outcome:?}");
                expected.push((user, None, "/bin/busybox".to_owned(), Some(container.id().to_owned())));
            }
            None => expected.push((user, Some(cat_as(user, &node.path("web/key"))), cat.clone(), None)),
        }
    }
    let opens = deadline::poll("all are in the log", || {
        let opens = logged(&site);
        let of_users = |event: &Event| event.process.as_ref().is_some_and(|process| process.uid >= 4_000);
        let opens: Vec<_> = opens.into_iter().filter(of_users).collect();
        (opens.len() >= 100).then_some(opens)
    });
    assert_eq!(opens.len(), 100);
    let mut pids = BTreeSet::new();
    let mut found: Vec<_> = opens
        .into_iter()
        .map(|event| {
            assert_eq!(event.outcome, Outcome::Done);
            let process = event.process.expect("a process");
            pids.insert(process.pid);
            let pid = process.container.is_none().then_some(process.pid);
            (process.uid, pid, process.executable.expect("a program"), process.container)
        })
        .collect();
    assert_eq!(pids.len(), 100, "each was a process of its own");
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

fn over_killed_workers_and_managers_every_success_is_in_the_log() {
    let mut site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    site.attach("web", "key", &["--audit", "required"]);
    let mut node = site.join("web-1");
    node.configure("deadline = \"5s\"");
    node.run_connected();
    node.wait_for("web/key", b"value");
    let manager = &mut site.manager;
    // Some twenty times; without a pause hardly any open would succeed.
    let each = audited_opens() / 20;
    let mut next = each;
    let (succeeded, kills) = open_while_killing(&node, |ended| {
        if ended >= next {
            manager.kill();
            manager.run();
            next = ended + each;
        }
    });
    assert!(kills > 0 && !succeeded.is_empty(), "{kills} kills, {} opens", succeeded.len());
    let done = logged(&site).into_iter().filter(|event| event.outcome == Outcome::Done);
    let users = done.filter_map(|event| Some(event.process?.uid));
    let recorded: BTreeSet<_> = users.filter(|user| *user >= FIRST_USER).collect();
    let missing: Vec<_> = succeeded.difference(&recorded).collect();
    assert!(missing.is_empty(), "these users opened it, and that is not in the log: {missing:?}");
}
