//! Who asks too often or fails too often waits, and is told how long.

use std::time::Instant;

use secretfs_wire::{JoinToken, TokenSecret};

use crate::harness::requirement::trials;
use crate::harness::{Site, deadline};

trials! {
    needs [Mount];
    a_reader_waits_where_its_node_asks_too_often,
    who_fails_to_join_again_and_again_is_told_to_wait,
}

const SECRETS: usize = 25;

fn a_reader_waits_where_its_node_asks_too_often() {
    let site = Site::with("[manager.limits]\nnode_requests = 5\nnode_burst = 10");
    site.create_service("web", "web-1");
    for number in 0..SECRETS {
        let name = format!("key-{number}");
        site.create_secret(&name, name.as_bytes());
        site.attach("web", &name, &[]);
    }
    let mut node = site.join("web-1");
    node.configure("deadline = \"20s\"");
    node.run_connected();
    let began = Instant::now();
    for number in 0..SECRETS {
        let name = format!("key-{number}");
        node.wait_for_path(&format!("web/{name}"));
        assert_eq!(node.read(&format!("web/{name}")).expect("a value"), name.as_bytes());
    }
    // All but the burst at five each second.
    assert!(began.elapsed().as_secs() >= 2, "{:?} is no wait", began.elapsed());
    assert_eq!(node.status()["connected"], true);
}

fn who_fails_to_join_again_and_again_is_told_to_wait() {
    let site = Site::start();
    let made: JoinToken = site.token(&[]).parse().expect("a token");
    let stranger = site.host("stranger");
    let mut refused = 0;
    let told = deadline::poll("it is told to wait", || {
        let guessed = JoinToken { secret: TokenSecret::random(), pin: made.pin };
        let outcome = stranger.join(&site.manager.url(), &guessed.expose_text());
        refused += usize::from(outcome.code == 4);
        (outcome.code == 5).then_some(outcome.stderr)
    });
    assert!(told.contains("failed joins") && told.contains("try again in"), "{told}");
    assert!(refused > 5, "{refused}");
}
