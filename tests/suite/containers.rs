//! What containers of Docker Engine see at /run/secrets.

use std::fs;

use crate::harness::engine::{Container, Engine};
use crate::harness::requirement::trials;
use crate::harness::watch::WatchingContainer;
use crate::harness::{Node, Site, deadline};
use crate::in_use;

trials! {
    needs [Mount, Containers];
    a_container_reads_its_services_directory_and_nothing_else,
    a_programs_file_variable_names_a_secret,
    a_container_user_is_held_to_owner_and_mode,
    a_rotation_reaches_a_directory_bind,
    a_rotation_reaches_a_single_file_bind,
    a_handle_that_a_container_holds_reads_the_old_value,
    a_detached_secret_is_gone_from_a_container,
    a_handle_that_a_container_holds_is_waited_for,
    a_program_in_a_container_is_told_what_changes_comes_and_goes,
}

fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("db_password", b"hunter2")]);
    site.serve("web-1", "other", &[("private", b"not for web")]);
    let node = site.node("web-1");
    (site, node)
}

/// `--volume` for the service's directory.
fn directory(node: &Node) -> String {
    format!("{}:/run/secrets:ro", node.path("web").display())
}

/// `--volume` for a single file.
fn single_file(node: &Node) -> String {
    format!("{}:/run/secrets/db_password:ro", node.path("web/db_password").display())
}

/// A container that idles.
fn idle(volume: &str) -> Container {
    Engine::shared().start_container(&["--volume", volume], &["/bin/sleep", "1000"])
}

fn read(container: &Container) -> String {
    let outcome = container.exec(&["/bin/cat", "/run/secrets/db_password"]);
    assert_eq!(outcome.code, 0, "no read fails: {}", outcome.stderr);
    outcome.stdout
}

fn a_container_reads_its_services_directory_and_nothing_else() {
    let (_site, node) = serving();
    let script = "ls /run/secrets; cat /run/secrets/db_password";
    let outcome = Engine::shared().run(&["--volume", &directory(&node)], &["/bin/sh", "-c", script]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "db_password\nhunter2"), "{outcome:?}");
}

/// As official images take them: `X_FILE` names a file whose content becomes `X`.
fn a_programs_file_variable_names_a_secret() {
    let (_site, node) = serving();
    let entrypoint = r#"
        file_env() {
            eval "file=\${$1_FILE:-}"
            [ -z "$file" ] || eval "export $1=\"\$(cat "$file")\""
        }
        file_env DB_PASSWORD
        echo "password: $DB_PASSWORD"
    "#;
    let outcome = Engine::shared().run(
        &["--volume", &directory(&node), "--env", "DB_PASSWORD_FILE=/run/secrets/db_password"],
        &["/bin/sh", "-c", entrypoint],
    );
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "password: hunter2\n"), "{outcome:?}");
}

fn a_container_user_is_held_to_owner_and_mode() {
    let (site, node) = serving();
    site.attach("web", "db_password", &["--uid", "1001", "--mode", "0400"]);
    deadline::eventually("the owner changes", || {
        use std::os::unix::fs::MetadataExt as _;
        node.path("web/db_password").metadata().is_ok_and(|file| file.uid() == 1001)
    });
    let read_as = |user: &str| {
        let options = ["--user", user, "--volume", &directory(&node)];
        Engine::shared().run(&options, &["/bin/cat", "/run/secrets/db_password"])
    };
    assert_eq!(read_as("1001:1001").stdout, "hunter2");
    let refused = read_as("1002:1002");
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
}

fn a_rotation_reaches_a_directory_bind() {
    let (site, node) = serving();
    let container = idle(&directory(&node));
    assert_eq!(read(&container), "hunter2");
    site.rotate("db_password", b"changed");
    deadline::eventually("the container reads the new value", || read(&container) == "changed");
}

fn a_rotation_reaches_a_single_file_bind() {
    let (site, node) = serving();
    let container = idle(&single_file(&node));
    assert_eq!(read(&container), "hunter2");
    site.rotate("db_password", b"changed");
    deadline::eventually("the container reads the new value", || read(&container) == "changed");
    site.operator.ok(&["secret", "rollback", "db_password"]);
    deadline::eventually("the container reads the old value", || read(&container) == "hunter2");
}

fn a_handle_that_a_container_holds_reads_the_old_value() {
    let (site, node) = serving();
    let signals = site.area().directory("signals");
    // Opens, says so, waits to be told that the value has changed, then reads the handle and the file.
    let script = "exec 3</run/secrets/db_password; echo open; \
        while [ ! -e /signals/rotated ]; do sleep 0.05; done; cat <&3; echo; cat /run/secrets/db_password";
    let container = Engine::shared().start_container(
        &["--volume", &single_file(&node), "--volume", &format!("{}:/signals:ro", signals.display())],
        &["/bin/sh", "-c", script],
    );
    deadline::eventually("the container holds the file open", || container.printed() == "open\n");
    site.rotate("db_password", b"changed");
    node.wait_for("web/db_password", b"changed");
    fs::write(signals.join("rotated"), "").expect("a signal");
    deadline::eventually("both are read", || container.printed() == "open\nhunter2\nchanged");
}

fn a_detached_secret_is_gone_from_a_container() {
    let (site, node) = serving();
    let container = idle(&directory(&node));
    assert_eq!(read(&container), "hunter2");
    site.operator.ok(&["service", "detach", "web", "db_password"]);
    deadline::eventually("the container reads it no more", || {
        let outcome = container.exec(&["/bin/cat", "/run/secrets/db_password"]);
        outcome.code != 0 && outcome.stderr.contains("No such file")
    });
}

fn a_handle_that_a_container_holds_is_waited_for() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    let container = Engine::shared().start_container(
        &["--volume", &directory(&node)],
        &["/bin/sh", "-c", "exec 3</run/secrets/key; echo open; exec sleep 1000"],
    );
    deadline::eventually("the container holds the file open", || container.printed() == "open\n");
    let waiting = in_use::begin(&site.operator, &["secret", "rotate", "key", "-", "--wait"], b"changed");
    in_use::wait_for_usage(&site, 2, &[(1, 1)]);
    assert!(!waiting.is_finished(), "the container has it open");
    drop(container);
    let (outcome, _) = waiting.join().expect("an outcome");
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

fn a_program_in_a_container_is_told_what_changes_comes_and_goes() {
    let (site, node) = serving();
    let watching = WatchingContainer::start(&directory(&node), "/run/secrets");
    site.rotate("db_password", b"changed");
    let mut expected = vec!["MODIFY db_password", "CLOSE_WRITE db_password"];
    watching.wait_for_all(&expected);
    site.create_secret("late", b"late");
    site.attach("web", "late", &[]);
    expected.extend(["CREATE late", "MODIFY late", "CLOSE_WRITE late"]);
    watching.wait_for_all(&expected);
    site.operator.ok(&["service", "detach", "web", "late"]);
    expected.push("DELETE late");
    watching.wait_for_all(&expected);
    // Another service's is nobody else's business, also not that it changes.
    site.rotate("private", b"changed too");
    node.wait_for("other/private", b"changed too");
    site.rotate("db_password", b"again");
    expected.extend(["MODIFY db_password", "CLOSE_WRITE db_password"]);
    watching.wait_for_all(&expected);

    let watching = WatchingContainer::start(&single_file(&node), "/run/secrets/db_password");
    site.rotate("db_password", b"once more");
    watching.wait_for_all(&["MODIFY", "CLOSE_WRITE"]);
}
