use secretfs_wire::api::{ApproveNode, ChangeLabels, Node};
use secretfs_wire::{EnvironmentName, NodeName};

use super::{App, now};
use crate::error::Error;
use crate::store::NodeRecord;

impl App {
    pub(crate) async fn nodes(&self, environment: &EnvironmentName) -> Result<Vec<Node>, Error> {
        let records = self.store.nodes(environment).await?;
        Ok(records.into_iter().map(|record| self.node_view(record)).collect())
    }

    pub(crate) async fn node(&self, environment: &EnvironmentName, name: &NodeName) -> Result<Node, Error> {
        Ok(self.node_view(self.store.node(environment, name).await?))
    }

    pub(crate) async fn approve_node(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        asked: &ApproveNode,
    ) -> Result<Node, Error> {
        let node = self.store.approve(environment, name, asked.fingerprint, now()).await?;
        // If there are still several daemons, that is found anew, and at once.
        self.instances.forget(node.id);
        self.presence.end_all(node.id);
        self.presence.touch(node.id);
        Ok(self.node_view(node))
    }

    pub(crate) async fn revoke_node(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
    ) -> Result<Node, Error> {
        let node = self.store.revoke(environment, name).await?;
        self.sessions.close_all(node.id);
        self.usage.forget(node.id);
        self.instances.forget(node.id);
        self.presence.touch(node.id);
        Ok(self.node_view(node))
    }

    pub(crate) async fn remove_node(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
    ) -> Result<(), Error> {
        let id = self.store.remove_node(environment, name).await?;
        self.sessions.close_all(id);
        self.usage.forget(id);
        self.instances.forget(id);
        self.presence.touch(id);
        Ok(())
    }

    pub(crate) async fn label_node(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        change: &ChangeLabels,
    ) -> Result<Node, Error> {
        let node = self.store.change_labels(environment, name, change).await?;
        self.presence.touch(node.id);
        Ok(self.node_view(node))
    }

    /// How many nodes have their change stream up at this manager.
    pub(crate) fn connected_nodes(&self) -> usize {
        self.presence.count()
    }

    fn node_view(&self, record: NodeRecord) -> Node {
        let mut duplicate = record.duplicate;
        if let Some(duplicate) = &mut duplicate {
            self.instances.refresh(record.id, duplicate);
        }
        Node {
            connected: self.presence.is_connected(record.id),
            name: record.name,
            id: record.id,
            state: record.state,
            labels: record.labels,
            services: record.services,
            joined: record.joined,
            certificate_expires: record.certificate_expires,
            certificate_ended: record.certificate_expires <= now(),
            fingerprint: record.fingerprint,
            address: record.address,
            host: record.host,
            duplicate,
        }
    }
}
