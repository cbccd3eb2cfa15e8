//! `secretfs run` where it is all that a container starts: no privileges, no socket, no network.

use std::sync::Arc;

use crate::harness::engine::{Container, Engine};
use crate::harness::process::SECRETFS;
use crate::harness::requirement::trials;
use crate::harness::supervised::shared_libraries;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount, Containers];
    an_unprivileged_container_is_told_of_a_rotation,
    the_first_process_of_a_container_reaps_orphans,
}

/// Starts a script as the first process of a container, under `secretfs run`.
fn start(node: &Node, script: &str) -> Container {
    let mut volumes = vec![format!("{SECRETFS}:/secretfs:ro")];
    // The program is linked with the host's C library, and the image has none.
    volumes.extend(shared_libraries(SECRETFS).iter().map(|path| format!("{0}:{0}:ro", path.display())));
    volumes.push(format!("{}:/run/secrets:ro", node.path("web").display()));
    let mut options = vec!["--user", "1001:1001", "--cap-drop", "ALL", "--read-only"];
    options.extend(volumes.iter().flat_map(|volume| ["--volume", volume.as_str()]));
    let run = ["/secretfs", "run", "--directory", "/run/secrets", "--on-change", "SIGHUP", "--"];
    let engine: Arc<Engine> = Engine::shared();
    engine.start_container(&options, &[&run[..], &["/bin/sh", "-c", script]].concat())
}

fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"one")]);
    let node = site.node("web-1");
    (site, node)
}

fn an_unprivileged_container_is_told_of_a_rotation() {
    let (site, node) = serving();
    let script = "trap 'echo changed to $(cat /run/secrets/key)' HUP; echo started; \
        while :; do sleep 0.02; done";
    let container = start(&node, script);
    deadline::eventually("it starts", || container.printed() == "started\n");
    site.rotate("key", b"two");
    deadline::eventually("it is told", || container.printed() == "started\nchanged to two\n");
    site.rotate("key", b"three");
    deadline::eventually("it is told again", || {
        container.printed() == "started\nchanged to two\nchanged to three\n"
    });
}

fn the_first_process_of_a_container_reaps_orphans() {
    let (_site, node) = serving();
    // A grandchild whose parent ends first is the first process's.
    let script = "sh -c '(sleep 0.1; echo orphan ends) & ' ; echo started; while :; do sleep 0.02; done";
    let container = start(&node, script);
    deadline::eventually("the orphan ends", || container.printed().contains("orphan ends"));
    deadline::eventually("no zombie is left", || {
        let processes = container.exec(&["/bin/sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null"]).stdout;
        assert!(processes.contains("(secretfs)") || processes.contains("secretfs"), "{processes}");
        !processes.lines().any(|line| line.contains(") Z "))
    });
}
