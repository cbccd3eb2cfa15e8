//! What a compromised node gets: what is assigned to it, and no hint of anything else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::pki::Credential;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, Reply, certificates};
use crate::harness::{Node, Site};

trials! {
    needs [Mount];
    a_node_sees_only_its_own_services,
    a_node_cannot_get_or_learn_of_another_nodes_secrets,
    a_node_has_no_operators_rights,
    a_label_decides_which_nodes_see_a_service,
    an_environment_is_no_other_environments_business,
}

fn a_node_sees_only_its_own_services() {
    let site = Site::start();
    site.serve("node-a", "alpha", &[("a_secret", b"of a")]);
    site.serve("node-b", "beta", &[("b_secret", b"of b")]);
    let (a, b) = (site.node("node-a"), site.node("node-b"));
    assert_eq!(a.read("alpha/a_secret").expect("its own"), b"of a");
    assert_eq!(b.read("beta/b_secret").expect("its own"), b"of b");
    for foreign in ["beta", "beta/b_secret", "alpha/b_secret"] {
        a.read(foreign).expect_err(foreign);
    }
}

fn a_node_cannot_get_or_learn_of_another_nodes_secrets() {
    let site = Site::start();
    site.serve("node-a", "alpha", &[("a_secret", b"of a")]);
    site.serve("node-b", "beta", &[("b_secret", b"of b")]);
    site.create_secret("unattached", b"of nobody");
    let a = site.join("node-a");
    let mut connection = speak_as(&a, &site);
    let session = connection.request("POST", "/v1/node/session", "").expect("a session");
    assert_eq!(session.status, 200, "{session:?}");
    let session: Value = serde_json::from_str(&session.body).expect("JSON");
    let mut ask = |service: &str, target: &str| -> Reply {
        let body = json!({
            "session": session["session"],
            "salt": STANDARD.encode([7; 32]),
            "service": service,
            "target": target,
            "version_id": "0000000000000001",
        });
        connection.request("POST", "/v1/node/envelopes", &body.to_string()).expect("an answer")
    };
    let absent = ask("no_such_service", "no_such_target");
    assert_eq!(absent.status, 404, "{absent:?}");
    for (service, target) in
        [("beta", "b_secret"), ("beta", "no_such_target"), ("alpha", "b_secret"), ("alpha", "unattached")]
    {
        let answer = ask(service, target);
        assert_eq!(
            (answer.status, &answer.body),
            (absent.status, &absent.body),
            "what is another's and what does not exist look different: {service}/{target}"
        );
    }
}

fn a_node_has_no_operators_rights() {
    let site = Site::start();
    site.serve("node-a", "alpha", &[("a_secret", b"of a")]);
    let a = site.join("node-a");
    let mut connection = speak_as(&a, &site);
    for path in [
        "/v1/environments",
        "/v1/environments/prod/secrets",
        "/v1/environments/prod/secrets/a_secret",
        "/v1/environments/prod/services",
        "/v1/environments/prod/nodes",
        "/v1/environments/prod/tokens",
    ] {
        let answer = connection.request("GET", path, "").expect("an answer");
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
        assert!(!answer.body.contains("a_secret"), "{path}: {answer:?}");
    }
}

fn a_label_decides_which_nodes_see_a_service() {
    let site = Site::start();
    site.operator.ok(&["service", "create", "web"]);
    site.operator.ok(&["service", "assign", "web", "--selector", "role=web,zone=a"]);
    site.create_secret("key", b"value");
    site.attach("web", "key", &[]);
    let node = site.node("web-1");
    node.read("web/key").expect_err("no label yet");
    site.operator.ok(&["node", "label", "web-1", "role=web"]);
    site.operator.ok(&["node", "label", "web-1", "zone=a"]);
    node.wait_for("web/key", b"value");
    site.operator.ok(&["node", "label", "web-1", "zone-"]);
    node.wait_gone("web/key");
}

fn an_environment_is_no_other_environments_business() {
    let site = Site::start();
    site.manager.operator().ok(&["env", "create", "staging"]);
    let staging = site.operator.within("staging");
    // The same names there, and another value.
    site.serve("web-1", "web", &[("key", b"of prod")]);
    staging.ok_with(&["secret", "create", "key", "-"], b"of staging");
    staging.ok(&["service", "create", "web"]);
    staging.ok(&["service", "assign", "web", "--node", "web-1"]);
    staging.ok(&["service", "attach", "web", "key"]);
    assert_eq!(site.node("web-1").read("web/key").expect("a value"), b"of prod");
    assert_eq!(staging.json(&["node", "ls"]), json!([]), "the node is prod's");
}

fn speak_as(node: &Node, site: &Site) -> Connection {
    let roots = certificates(&node.state().join("ca.pem"));
    Connection::open(site.manager.address(), &roots, Some(Credential::of_node(node))).expect("a connection")
}
