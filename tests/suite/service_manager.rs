//! Under a service manager that keeps descriptors, not even the end of the whole daemon costs a read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::thread;

use rustix::process::Signal;

use crate::harness::requirement::trials;
use crate::harness::service_manager::ServiceManager;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    a_daemon_that_is_killed_whole_goes_on_where_it_was,
    what_does_not_fit_the_configuration_is_not_used,
}

fn start(manager: &ServiceManager, node: &mut Node) {
    let (mut command, kept) = manager.start_command(&node.config());
    node.run_as(&mut command);
    // The service has its own copies.
    drop(kept);
    deadline::eventually("it is ready", || manager.told_ready());
}

fn kill(node: &mut Node) {
    node.wait_for_standby();
    let holder = node.holder();
    for pid in [holder.pid, holder.active, holder.standby] {
        node.signal(pid, Signal::KILL);
    }
    node.take_process().wait();
}

fn serving() -> (Site, Node, ServiceManager) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.join("web-1");
    let manager = ServiceManager::listen(site.area().path().join("notify"));
    start(&manager, &mut node);
    node.wait_for("web/key", b"value");
    (site, node, manager)
}

fn a_daemon_that_is_killed_whole_goes_on_where_it_was() {
    let (site, mut node, manager) = serving();
    let open = File::open(node.path("web/key")).expect("an open file");
    site.rotate("key", b"changed");
    node.wait_for("web/key", b"changed");
    // Nobody is there to ask for a value or a name: all of it is what was left.
    site.manager.pause();
    for _ in 0..5 {
        manager.hear();
        kill(&mut node);
        let path = node.path("web/key");
        let reader = thread::spawn(move || std::fs::read(path));
        start(&manager, &mut node);
        let read = reader.join().expect("a reader");
        assert_eq!(read.expect("it waited"), b"changed");
        let mut old = [0; 5];
        open.read_exact_at(&mut old, 0).expect("the open file");
        assert_eq!(&old, b"value");
    }
    let audit = node.status()["audit"].clone();
    assert!(audit["buffered"].as_u64() >= Some(5), "what was opened is kept too: {audit}");
    site.manager.resume();
    site.rotate("key", b"again");
    node.wait_for("web/key", b"again");
    node.stop();
    assert_eq!(manager.stored(), [""; 0], "a daemon that is stopped leaves nothing");
}

fn what_does_not_fit_the_configuration_is_not_used() {
    let (site, mut node, manager) = serving();
    manager.hear();
    kill(&mut node);
    node.add_mount(site.area().path().join("second"), Some("web"));
    start(&manager, &mut node);
    node.wait_for("web/key", b"value");
    node.stop();
}
