//! A manager that is broken or taken over can withhold secrets from a node. It can do no more: each
//! of its lies costs one file, with a clear reason, and the rest of the mount works on.

use rustix::io::Errno;
use secretfs_wire::manifest::{RawService, RawTarget, RawTemplate};
use serde_json::Value;

use crate::harness::Node;
use crate::harness::area::{Area, Logs};
use crate::harness::fake_manager::{Answer, FakeManager, target};
use crate::harness::requirement::trials;

trials! {
    needs [Mount];
    a_manifests_bad_entries_are_left_out_by_name_and_the_rest_works,
    a_value_that_is_not_what_the_manifest_says_is_eio_and_the_rest_works,
}

fn node(area: &Area, manager: &FakeManager) -> Node {
    let logs = Logs::at(area.directory("logs"));
    let mut node = Node::new("web-1", &area.directory("hosts"), &area.directory("mounts"), &logs);
    let outcome = node.join(&manager.url(), &manager.token());
    assert_eq!(outcome.code, 0, "{outcome:?}");
    node.run_connected();
    node
}

fn a_manifests_bad_entries_are_left_out_by_name_and_the_rest_works() {
    let good = target("good", 5);
    let targets = vec![
        good.clone(),
        target("../escape", 5),
        target("control\u{1b}[2J", 5),
        target(".hidden", 5),
        target("", 5),
        target("huge", 1 << 40),
        target("empty", 0),
        RawTarget { mode: 0o4755, ..target("set_user_id", 5) },
        RawTarget { size: 6, ..target("good", 6) },
        target("also_good", 4),
    ];
    let template = |target: &str, text: String| RawTemplate {
        target: target.to_owned(),
        text,
        uid: 0,
        gid: 0,
        mode: 0o444,
        modified: jiff::Timestamp::now(),
    };
    // Some of them end a process that only parses them.
    let templates = vec![
        template("minus", format!("{{{{ {}1 }}}}", "-".repeat(60_000))),
        template("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(5_000))),
        template("large", "x".repeat(70_000)),
        template("endless", "{% for a in [1,2,3,4,5,6,7,8,9] %}".repeat(12) + &"{% endfor %}".repeat(12)),
        template("absent", "{{ secrets.good }}".to_owned()),
        template("../escape", "x".to_owned()),
    ];
    let bad = targets.len() - 2 + templates.len();
    let others = vec![
        RawService { name: "..".to_owned(), targets: vec![], templates: vec![] },
        RawService { name: "web".to_owned(), targets: vec![target("second_web", 5)], templates: vec![] },
        RawService { name: "files".to_owned(), targets: vec![], templates: templates.clone() },
    ];
    let answers =
        [("good", Answer::Value(b"value".to_vec())), ("also_good", Answer::Value(b"four".to_vec()))];
    let area = Area::new();
    let manager = FakeManager::start(targets, &answers, others);
    let node = node(&area, &manager);

    assert_eq!(node.read("web/good").expect("the first of two counts"), b"value");
    assert_eq!(node.read("web/also_good").expect("after the bad ones"), b"four");
    let listed = std::fs::read_dir(node.path("web")).expect("a listing").count();
    assert_eq!(listed, 2, "nothing else is there");
    let status = node.status();
    let rejected = status["rejected"].as_array().expect("a list");
    assert_eq!(rejected.len(), bad + 1, "{status}");
    for name in ["web/../escape", "web/huge", "web/good", "web/set_user_id", "files/minus", "files/elif"] {
        assert!(rejected.iter().any(|entry| entry["entry"] == name), "{name} is not named: {status}");
    }
    let log = node.process().log();
    assert!(!log.contains('\u{1b}'), "a name must not drive the terminal of who reads the log");
}

fn a_value_that_is_not_what_the_manifest_says_is_eio_and_the_rest_works() {
    let lies = [
        ("wrong_size", Answer::Value(b"more than five bytes".to_vec())),
        ("cut_short", Answer::CutShort(vec![b'x'; 100_000])),
        ("of_another", Answer::SealedForAnother(b"value".to_vec())),
        ("noise", Answer::Noise),
    ];
    let mut targets: Vec<_> = lies.iter().map(|(name, _)| target(name, 5)).collect();
    targets[1].size = 100_000;
    targets.push(target("good", 5));
    let answers = [&lies[..], &[("good", Answer::Value(b"value".to_vec()))]].concat();
    let area = Area::new();
    let manager = FakeManager::start(targets, &answers, vec![]);
    let node = node(&area, &manager);
    for (name, _) in &lies {
        let error = node.read(&format!("web/{name}")).expect_err(name);
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{name}: {error}");
        let status = node.status();
        assert!(matches!(&status["trouble"]["reason"], Value::String(_)), "it does not say why: {status}");
        assert_eq!(node.read("web/good").expect("the rest works"), b"value", "after {name}");
    }
}
