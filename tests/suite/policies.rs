//! Who may do what: own policies at a manager that runs, and before one gets them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::area::Logs;
use crate::harness::process::{Outcome, finish, secretfs};
use crate::harness::requirement::trials;
use crate::harness::{Area, Site, deadline};

trials! {
    needs [];
    own_policies_count_and_cease_to_count_while_the_manager_runs,
    a_manager_with_a_wrong_policy_does_not_start,
    policies_are_checked_and_tried_without_a_manager,
}

const FROZEN: &str = "// Nobody changes secrets in prod from this host.\n@id(\"acme/frozen\")\n\
    forbid (principal, action in Action::\"edit\", resource in Environment::\"prod\") \
    when { context.address.isLoopback() };\n";
const SEPARATION: &str = "@id(\"acme/separation\")\n\
    forbid (principal is Operator, action in Action::\"grant\", resource)\n\
    when { principal in resource.environment.editors };\n";

/// A site whose manager has this directory of policies.
fn site(policies: &Path) -> Site {
    Site::with(&format!("policies = {policies:?}"))
}

fn own_policies_count_and_cease_to_count_while_the_manager_runs() {
    let area = Area::new();
    let policies = area.directory("policies");
    let site = site(&policies);
    site.create_secret("first", b"value");
    let explained = || site.operator.ok(&["policy", "explain", "secret.rotate", "--secret", "first"]);
    assert_eq!(explained(), "allowed by secretfs/admin\n");

    fs::write(policies.join("frozen.cedar"), FROZEN).expect("written");
    deadline::eventually("the policy counts", || explained() == "forbidden by acme/frozen\n");
    let refused = site.operator.run_with(&["secret", "rotate", "first", "-"], b"another value");
    assert_eq!(refused.code, 4, "{refused:?}");
    let said = "policy acme/frozen forbids this operator secret.rotate in environment prod";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    // The hint works as it is printed.
    let hint = refused.stderr.split('`').nth(1).expect("a command");
    let hint: Vec<_> = hint.split(' ').skip(1).collect();
    assert_eq!(site.operator.ok(&hint), "forbidden by acme/frozen\n", "{hint:?}");
    let of_another = site.operator.run_with(&["secret", "rotate", "absent", "-"], b"another value");
    let same = of_another.stderr.replace("absent", "first");
    assert_eq!(same, refused.stderr, "what is denied is not said to exist or not");
    let everywhere = ["--all-environments", "operator.grant", "--operator", "bob", "--role", "admin"];
    let explained_of = |what: &[&str]| site.operator.ok(&[&["policy", "explain"], what].concat());
    assert_eq!(explained_of(&everywhere), "allowed by secretfs/admin-everywhere\n");
    assert_eq!(
        explained_of(&everywhere[1..]),
        "allowed by secretfs/admin, secretfs/admin-everywhere\n",
        "in prod"
    );
    assert_eq!(site.operator.run(&["policy", "explain", "operator.grant"]).code, 1, "whom, and what?");
    site.operator.ok(&["secret", "ls"]);

    // A set that is wrong does not count, not even in what is right about it.
    fs::write(policies.join("frozen.cedar"), "").expect("written");
    fs::write(policies.join("wrong.cedar"), "\n\npermit (principal, action);").expect("written");
    deadline::eventually("the wrong policy is refused", || {
        let listed = site.operator.run(&["policy", "ls"]);
        listed.code == 1 && listed.stderr.contains("wrong.cedar:3: ") && listed.stdout.contains("acme/frozen")
    });
    assert_eq!(explained(), "forbidden by acme/frozen\n");
    let log = site.manager.process().log();
    assert!(log.contains("those from before still count") && log.contains("wrong.cedar:3: "), "{log}");

    fs::remove_file(policies.join("wrong.cedar")).expect("removed");
    deadline::eventually("the policy is gone", || explained() == "allowed by secretfs/admin\n");
    site.rotate("first", b"another value");
    let listed = site.operator.ok(&["policy", "ls"]);
    assert!(listed.contains("secretfs/admin-everywhere") && !listed.contains("acme"), "{listed}");
}

fn a_manager_with_a_wrong_policy_does_not_start() {
    let area = Area::new();
    let policies = area.directory("policies");
    let mut site = site(&policies);
    site.manager.stop();
    fs::write(policies.join("wrong.cedar"), FROZEN.replace("prod\")", "prod\"")).expect("written");
    let outcome = site.manager.command(&["run"], b"");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("wrong.cedar:3: "), "{}", outcome.stderr);
    fs::write(policies.join("wrong.cedar"), FROZEN).expect("mended");
    site.manager.run();
    let denied = site.operator.run(&["secret", "create", "new", "--generate"]);
    assert_eq!(denied.code, 4, "it counts from the start: {denied:?}");
}

fn policies_are_checked_and_tried_without_a_manager() {
    let area = Area::new();
    let (policies, logs) = (area.directory("policies"), Logs::at(area.directory("logs")));
    let run = |arguments: &[&str]| -> Outcome {
        let mut command = secretfs();
        command.arg("policy").args(arguments).env("SECRETFS_CONFIG", "/dev/null");
        finish(&mut command, b"", &logs)
    };
    let write = |name: &str, text: &str| -> PathBuf {
        fs::write(area.directory("policies").join(name), text).expect("written");
        policies.join(name)
    };
    let directory = policies.to_str().expect("text");

    write("separation.cedar", SEPARATION);
    let checked = run(&["check", directory]);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    assert!(checked.stdout.starts_with("1 policies are valid"), "{}", checked.stdout);
    let wrong = write("wrong.cedar", &SEPARATION.replace("editors", "writers"));
    let checked = run(&["check", directory]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.stderr.contains("wrong.cedar:3: ") && checked.stderr.contains("writers"), "{checked:?}");
    fs::remove_file(wrong).expect("removed");
    assert_eq!(run(&["check"]).code, 2, "no directory is named");

    let case = |grants: &str, expect: &str| {
        format!(
            "[[case]]\nname = \"who rotates attaches\"\noperator = \"alice\"\ngrants = [{grants}]\n\
             action = \"service.attach\"\nenvironment = \"prod\"\nobject = {{ service = \"web\", secret = \"db\" }}\n\
             expect = \"{expect}\"\n"
        )
    };
    let granter = "{ role = \"granter\", environment = \"prod\" }";
    let both = format!("{granter}, {{ role = \"editor\" }}");
    let cases = write("cases.toml", &(case(granter, "allow") + &case(&both, "deny")));
    let cases = cases.to_str().expect("text");
    let tried = run(&["test", "--policies", directory, cases]);
    assert_eq!(tried.code, 0, "{tried:?}");
    assert_eq!(tried.stdout.matches(" ok").count(), 2, "{}", tried.stdout);
    assert!(tried.stdout.contains("acme/separation"), "{}", tried.stdout);
    // The built-in policies alone do not separate the two.
    let tried = run(&["test", cases]);
    assert_eq!(tried.code, 1, "{tried:?}");
    assert!(tried.stdout.contains("FAILED") && tried.stderr.contains("1 of 2 cases failed"), "{tried:?}");
    fs::write(cases, "[[case]]\naction = \"secret.read\"\nexpect = \"deny\"").expect("written");
    assert!(run(&["test", cases]).stderr.contains("line 2: "), "it names the line");

    let shown = run(&["show"]);
    assert!(shown.stdout.contains("@id(\"secretfs/editor\")") && shown.stdout.contains("entity Operator"));
    assert!(run(&["show", "node-admin"]).stdout.starts_with("// Lets hosts join"));
    assert_eq!(run(&["show", "root"]).code, 2);
}
