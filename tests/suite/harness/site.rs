//! A manager with one environment, `prod`, and what an operator does there, in as few words as a
//! test can bear.

use std::path::Path;

use serde_json::Value;

use super::area::{Area, Logs};
use super::manager::{Manager, free_address};
use super::network::Network;
use super::node::Node;
use super::operator::Operator;

pub(crate) const ENVIRONMENT: &str = "prod";

pub(crate) struct Site {
    pub(crate) manager: Manager,
    /// The first operator, in `prod`.
    pub(crate) operator: Operator,
    logs: Logs,
    // The last one, since all the others are kept in it.
    area: Area,
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// With `settings` in the manager's section of the configuration.
    pub(crate) fn with(settings: &str) -> Self {
        let area = Area::new();
        let home = area.directory("hosts");
        Self::start_in(area, &home, settings)
    }

    /// With more in the environment of the manager.
    pub(crate) fn with_environment(settings: &str, environment: &[(&str, &Path)]) -> Self {
        let area = Area::new();
        let (home, logs) = (area.directory("hosts"), Logs::at(area.directory("logs")));
        let manager = Manager::start_with_environment(&home, settings, environment, &logs);
        Self::around(manager, area, logs)
    }

    /// With the manager on its host of a network.
    pub(crate) fn on(network: &Network) -> Self {
        let area = Area::new();
        let (home, logs) = (area.directory("hosts"), Logs::at(area.directory("logs")));
        let [host, _] = network.hosts();
        let names = format!("names = [{:?}]", network.manager_address());
        let address = format!("{}:7443", network.manager_address()).parse().expect("an address");
        Self::around(Manager::start_on(Some(&host), address, &home, &names, &logs), area, logs)
    }

    /// Keeps the directories of manager and nodes below `home`, and the logs below `area`.
    pub(crate) fn start_in(area: Area, home: &Path, settings: &str) -> Self {
        let logs = Logs::at(area.directory("logs"));
        Self::around(Manager::start(home, settings, &logs), area, logs)
    }

    /// With a manager that is sealed by `seal`, options of `manager init`, and was unlocked with what that
    /// printed.
    pub(crate) fn sealed_by(seal: &[&str]) -> Self {
        let area = Area::new();
        let (home, logs) = (area.directory("hosts"), Logs::at(area.directory("logs")));
        let mut manager = Manager::init(seal, None, free_address(), &home, "", &[], &logs);
        manager.run_sealed();
        let unlocked = manager.command(&["unlock"], manager.unlock_lines().as_bytes());
        assert_eq!(unlocked.code, 0, "{unlocked:?}");
        Self::around(manager, area, logs)
    }

    fn around(manager: Manager, area: Area, logs: Logs) -> Self {
        manager.operator().ok(&["env", "create", ENVIRONMENT]);
        let operator = manager.operator().within(ENVIRONMENT);
        Self { manager, operator, logs, area }
    }

    pub(crate) fn create_secret(&self, name: &str, value: &[u8]) {
        self.operator.ok_with(&["secret", "create", name, "-"], value);
    }

    pub(crate) fn rotate(&self, name: &str, value: &[u8]) {
        self.operator.ok_with(&["secret", "rotate", name, "-"], value);
    }

    /// Lets `service` see `secret`; `options` are those of `service attach`.
    pub(crate) fn attach(&self, service: &str, secret: &str, options: &[&str]) {
        self.operator.ok(&[&["service", "attach", service, secret], options].concat());
    }

    /// A service that runs on the node of this name.
    pub(crate) fn create_service(&self, service: &str, node: &str) {
        self.operator.ok(&["service", "create", service]);
        self.operator.ok(&["service", "assign", service, "--node", node]);
    }

    /// One service on one node, with secrets under their own names.
    pub(crate) fn serve(&self, node: &str, service: &str, secrets: &[(&str, &[u8])]) {
        self.create_service(service, node);
        for (name, value) in secrets {
            self.create_secret(name, value);
            self.attach(service, name, &[]);
        }
    }

    /// A join token; `options` are those of `node token create`.
    pub(crate) fn token(&self, options: &[&str]) -> String {
        let created = self.operator.json(&[&["node", "token", "create"], options].concat());
        match &created["token"] {
            Value::String(token) => token.clone(),
            _ => panic!("no token in {created}"),
        }
    }

    /// A host that has not joined.
    pub(crate) fn host(&self, name: &str) -> Node {
        self.host_in(&self.area.directory("hosts"), name)
    }

    /// A host that has not joined, with its state below `home`.
    pub(crate) fn host_in(&self, home: &Path, name: &str) -> Node {
        Node::new(name, home, &self.area.directory("mounts"), &self.logs)
    }

    /// A node that has joined and does not run.
    pub(crate) fn join(&self, name: &str) -> Node {
        let node = self.host(name);
        self.admit(&node);
        node
    }

    /// Lets a host join.
    pub(crate) fn admit(&self, node: &Node) {
        let outcome = node.join(&self.manager.url(), &self.token(&[]));
        assert_eq!(outcome.code, 0, "secretfs node join: {}", outcome.stderr);
    }

    /// A node that has joined, runs and has its manifest.
    pub(crate) fn node(&self, name: &str) -> Node {
        let mut node = self.join(name);
        node.run_connected();
        node
    }

    pub(crate) fn area(&self) -> &Area {
        &self.area
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }
}
