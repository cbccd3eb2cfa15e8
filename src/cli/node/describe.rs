//! A node as an operator has to know it: who it is, from where it came, and what is odd about it.

use secretfs_wire::api::{Node, NodeState};
use secretfs_wire::{HostFact, ServiceName};

use super::super::output;

/// All that is known of a node, a line for each.
pub(super) fn node(node: &Node) -> String {
    let services: Vec<_> = node.services.iter().map(ServiceName::as_str).collect();
    let mut lines = vec![
        line("Node", &format!("{} (id {})", node.name, node.id)),
        line("State", &state(node)),
        line("Connected", if node.connected { "yes" } else { "no" }),
        line("Fingerprint", &node.fingerprint.to_string()),
        line("Joined", &joined(node)),
        line("Certificate", &certificate(node)),
        line("Labels", &output::or_dash(node.labels.to_string())),
        line("Services", &output::or_dash(services.join(", "))),
    ];
    lines.extend(host(node));
    if let Some(duplicate) = &node.duplicate {
        lines.push(line(
            "Duplicate",
            &format!("several daemons speak as this node, known since {}", output::time(duplicate.since)),
        ));
        for heard in &duplicate.instances {
            lines.push(line("", &format!("{heard}, last heard {}", output::time(heard.last_heard))));
        }
    }
    lines.join("\n")
}

/// What is to be compared before a node is approved.
pub(super) fn approved(node: &Node) -> String {
    let mut lines = vec![
        node.name.to_string(),
        line("Fingerprint", &node.fingerprint.to_string()),
        line("Joined", &joined(node)),
    ];
    lines.extend(host(node));
    lines.join("\n")
}

/// What somebody has to do about a node, if anything.
pub(super) fn attention(node: &Node) -> Option<String> {
    let name = &node.name;
    if node.duplicate.is_some() {
        return Some(format!("{name}: several daemons speak as this node; see secretfs node inspect {name}"));
    }
    (node.state == NodeState::Pending).then(|| match node.certificate_ended {
        true => format!(
            "{name} waits for approval, and its certificate has ended. To let that host join again:\n  \
             secretfs node rm {name}"
        ),
        false => format!(
            "{name} waits for approval. If `secretfs node status` on that host shows this fingerprint:\n  \
             secretfs node approve {name} --fingerprint {}",
            node.fingerprint
        ),
    })
}

/// The state, so that what needs somebody catches the eye.
pub(super) fn state(node: &Node) -> String {
    let mut words = vec![match node.state {
        NodeState::Pending => "PENDING",
        NodeState::Active => "active",
        NodeState::Revoked => "revoked",
    }];
    if node.certificate_ended && node.state != NodeState::Revoked {
        words.push("EXPIRED");
    }
    if node.duplicate.is_some() {
        words.push("DUPLICATE");
    }
    words.join(", ")
}

fn certificate(node: &Node) -> String {
    let time = output::time(node.certificate_expires);
    match node.certificate_ended {
        true => format!("ended {time}; the host has to join again"),
        false => format!("ends {time}"),
    }
}

fn joined(node: &Node) -> String {
    let from = node.address.map(|address| format!(" from {address}")).unwrap_or_default();
    format!("{}{from}", output::time(node.joined))
}

/// What the host said. Texts of a host are printable, wherever they come from.
fn host(node: &Node) -> Vec<String> {
    let host = &node.host;
    let text = |fact: &Option<HostFact>| fact.as_ref().map(ToString::to_string);
    let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
    let facts = [
        ("hostname", text(&host.hostname)),
        ("system", text(&host.system)),
        ("kernel", text(&host.kernel)),
        ("architecture", text(&host.architecture)),
        ("machine", host.machine.map(|machine| machine.to_string())),
        ("booted", host.booted.map(output::time)),
        ("addresses", (!addresses.is_empty()).then(|| addresses.join(", "))),
    ];
    let mut lines = Vec::new();
    for (name, fact) in facts {
        let Some(fact) = fact else { continue };
        let label = if lines.is_empty() { "Host claims" } else { "" };
        lines.push(line(label, &format!("{name} {fact}")));
    }
    lines
}

fn line(label: &str, text: &str) -> String {
    let label = if label.is_empty() { String::new() } else { format!("{label}:") };
    format!("{label:<14}{text}")
}
