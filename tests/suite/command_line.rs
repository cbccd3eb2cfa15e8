//! The command line's promises to scripts and to people.

use std::fs;
use std::process::Command;

use crate::harness::area::{Area, Logs};
use crate::harness::process::{Outcome, SECRETFS, finish, secretfs};
use crate::harness::requirement::trials;
use crate::harness::{Operator, Site};

trials! {
    needs [];
    exit_codes_say_what_kind_of_failure_it_was,
    an_error_is_one_line_that_says_what_to_do,
    every_listing_is_json_on_demand,
    no_output_shows_a_value,
    every_help_has_an_example,
    completions_are_scripts,
    an_unknown_key_of_the_configuration_is_refused_by_name,
    an_output_that_nobody_reads_is_no_failure,
}

fn exit_codes_say_what_kind_of_failure_it_was() {
    let site = Site::start();
    site.create_secret("key", b"value");
    let code = |arguments: &[&str]| site.operator.run_with(arguments, b"value").code;
    assert_eq!(code(&["secret", "ls"]), 0, "done");
    assert_eq!(code(&["secret", "create", "key", "-"]), 1, "failed: it exists");
    assert_eq!(code(&["secret", "destroy", "key"]), 2, "usage: no such command");
    assert_eq!(code(&["secret", "create", "bad/name", "-"]), 2, "usage: not a name");
    assert_eq!(code(&["secret", "create", "both", "-", "--generate"]), 2, "usage: two values");
    assert_eq!(code(&["secret", "inspect", "absent"]), 3, "not found");
    assert_eq!(code(&["-e", "absent", "secret", "ls"]), 3, "not found");
    assert_eq!(code(&["service", "attach", "absent", "key"]), 3, "not found");
    assert_eq!(code(&["--manager", "https://127.0.0.1:1", "env", "ls"]), 5, "unreachable");
    assert_eq!(code(&["node", "status", "--socket", "/nowhere/node.sock"]), 5, "unreachable");
    let token = site.token(&[]);
    assert_eq!(site.host("first").join(&site.manager.url(), &token).code, 0);
    assert_eq!(site.host("second").join(&site.manager.url(), &token).code, 4, "denied");
}

fn an_error_is_one_line_that_says_what_to_do() {
    let site = Site::start();
    for arguments in [
        &["secret", "inspect", "absent"][..],
        &["--manager", "https://127.0.0.1:1", "env", "ls"],
        &["node", "status", "--socket", "/nowhere/node.sock"],
        &["secret", "create", "key", "/nowhere/at/all"],
    ] {
        let Outcome { stdout, stderr, .. } = site.operator.run(arguments);
        assert_eq!(stdout, "", "{arguments:?}");
        let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("secretfs: ")).collect();
        assert_eq!((lines.len(), stderr.lines().count()), (1, 1), "{arguments:?}: {stderr}");
    }
    let logs = Logs::at(site.area().directory("logs"));
    let nobody = Operator::new(&site.host("bare").config(), None, &logs).run(&["env", "ls"]);
    assert_eq!(nobody.code, 2, "{nobody:?}");
    assert!(nobody.stderr.contains("SECRETFS_CONFIG"), "{}", nobody.stderr);
    let nowhere = site.manager.operator().run(&["secret", "ls"]);
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
    assert!(nowhere.stderr.contains("SECRETFS_ENV"), "{}", nowhere.stderr);
}

fn every_listing_is_json_on_demand() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let _node = site.join("web-1");
    for arguments in [
        &["env", "ls"][..],
        &["secret", "ls"],
        &["service", "ls"],
        &["node", "ls"],
        &["node", "token", "ls"],
        &["operator", "ls"],
    ] {
        let listed = site.operator.json(arguments);
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{arguments:?}: {listed}");
        let table = site.operator.ok(arguments);
        assert_eq!(table.lines().count(), 2, "headings and a row: {table}");
    }
    for arguments in [&["secret", "inspect", "key"][..], &["service", "inspect", "web"]] {
        assert!(site.operator.json(arguments).is_object(), "{arguments:?}");
    }
}

fn no_output_shows_a_value() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"canary-in-a-value")]);
    site.rotate("key", b"canary-in-another");
    site.operator.ok(&["secret", "ls"]);
    site.operator.ok(&["secret", "inspect", "key"]);
    site.operator.ok(&["service", "inspect", "web"]);
    site.operator.json(&["secret", "inspect", "key"]);
    for entry in fs::read_dir(site.logs().path()).expect("the logs") {
        let path = entry.expect("an entry").path();
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a log")).into_owned();
        assert!(!text.contains("canary-in-a"), "{}: {text}", path.display());
    }
}

fn every_help_has_an_example() {
    let leaves = leaves(&mut Vec::new());
    assert!(leaves.len() > 25, "{leaves:?}");
    for leaf in leaves {
        let help = help(&leaf);
        assert!(help.contains("Example"), "secretfs {}: {help}", leaf.join(" "));
        assert!(
            help.contains("  secretfs ") || help.contains("| secretfs "),
            "secretfs {}: {help}",
            leaf.join(" ")
        );
    }
}

/// Every command that has no commands below it, as clap's own help lists them.
fn leaves(path: &mut Vec<String>) -> Vec<Vec<String>> {
    let help = help(path);
    let below: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // A wrapped description goes on further to the right.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(str::to_owned)
        .collect();
    if below.is_empty() {
        return vec![path.clone()];
    }
    let mut leaves_below = Vec::new();
    for command in below {
        path.push(command);
        leaves_below.extend(leaves(path));
        path.pop();
    }
    leaves_below
}

fn help(path: &[String]) -> String {
    let output = Command::new(SECRETFS).args(path).arg("--help").output().expect("the program starts");
    assert!(output.status.success(), "secretfs {} --help", path.join(" "));
    String::from_utf8(output.stdout).expect("text")
}

fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = secretfs().args(["completions", shell]).output().expect("the program starts");
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(
            output.status.success() && script.contains("secretfs") && script.contains("rollback"),
            "{shell}"
        );
    }
    let script = secretfs().args(["completions", "bash"]).output().expect("the program starts").stdout;
    let area = Area::new();
    let logs = Logs::at(area.directory("logs"));
    let outcome = finish(Command::new("bash").arg("-n"), &script, &logs);
    assert_eq!(outcome.code, 0, "bash reads it: {outcome:?}");
}

fn an_unknown_key_of_the_configuration_is_refused_by_name() {
    let area = Area::new();
    let logs = Logs::at(area.directory("logs"));
    let config = area.path().join("config.toml");
    for (text, key) in [
        ("[operator]\nmanger = \"https://localhost:1\"\n", "manger"),
        ("[node]\ndead_line = \"2s\"\n", "dead_line"),
        ("[[node.mount]]\npath = \"/x\"\nservices = \"web\"\n", "services"),
        ("[manager]\nlissten = \"127.0.0.1:1\"\n", "lissten"),
        ("[oprator]\n", "oprator"),
    ] {
        fs::write(&config, text).expect("a configuration file");
        let outcome = Operator::new(&config, None, &logs).run(&["env", "ls"]);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.stderr.contains(key), "{key}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("config.toml:"), "it says where: {}", outcome.stderr);
    }
    // So is a value that is none.
    fs::write(&config, "[node]\ndeadline = \"soon\"\n").expect("a configuration file");
    let outcome = Operator::new(&config, None, &logs).run(&["node", "run"]);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("deadline"), "{}", outcome.stderr);
}

fn an_output_that_nobody_reads_is_no_failure() {
    let pipe = format!("{SECRETFS} completions bash | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}");
    let status = Command::new("bash").args(["-c", &pipe]).status().expect("bash starts");
    assert_eq!(status.code(), Some(0));
}
