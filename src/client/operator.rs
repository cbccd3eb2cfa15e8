//! What an operator says to the manager. No call returns a value.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use secretfs_wire::api::{
    ApproveNode, Assignment, Attach, Attachment, ChangeLabels, CreateEnvironment, CreateToken, CreatedToken,
    Environment, EnvironmentKeys, Explain, Explanation, MigrateKey, Node, Operator, PLAIN_TEXT,
    PoliciesInForce, RenewRequest, Renewed, RetiredKey, RewrapStep, Rewrapped, Rollback, Rotated, RotatedKey,
    Secret, SecretDetails, Service, ServiceDetails, Template, TemplateDetails, Token,
};
use secretfs_wire::{
    EnvironmentName, KeyName, Labels, NodeName, OperatorName, Ownership, SecretBytes, SecretName,
    ServiceName, TargetName, TokenId,
};
use serde::de::DeserializeOwned;
use url::Url;

use super::http::{Http, json, success, with_value};
use super::operators::OperatorsClient;
use super::{ClientError, Credentials, ManagerClock};

/// How long any one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a new value comes from.
pub(crate) enum NewValue {
    /// From the operator.
    Given(SecretBytes),
    /// From the manager's random source: this many characters, which nobody ever sees.
    Generated(u32),
}

/// An operator's calls.
#[derive(Clone)]
pub(crate) struct OperatorClient {
    pub(super) http: Http,
}

impl OperatorClient {
    /// Calls under an operator's credentials.
    pub(crate) fn new(manager: Url, credentials: &Credentials) -> Result<Self, ClientError> {
        let tls = credentials
            .to_config()
            .map_err(|error| ClientError::Unreachable { reason: error.to_string() })?;
        Ok(Self { http: Http::new(manager, tls, TIMEOUT)? })
    }

    /// All environments.
    pub(crate) async fn environments(&self) -> Result<Vec<Environment>, ClientError> {
        self.http.get(&["v1", "environments"]).await
    }

    /// Creates an environment.
    pub(crate) async fn create_environment(
        &self,
        request: &CreateEnvironment,
    ) -> Result<Environment, ClientError> {
        self.http.send(Method::POST, &["v1", "environments"], request).await
    }

    /// Removes an empty environment.
    pub(crate) async fn remove_environment(&self, name: &EnvironmentName) -> Result<(), ClientError> {
        self.http.delete(&["v1", "environments", name.as_str()], &[]).await
    }

    /// The keys of all environments.
    pub(crate) async fn keys(&self) -> Result<Vec<EnvironmentKeys>, ClientError> {
        self.http.get(&["v1", "keys"]).await
    }

    /// Has the manager take in a local key.
    pub(crate) async fn import_key(&self, name: &KeyName, key: SecretBytes) -> Result<(), ClientError> {
        let request = self.http.request(Method::POST, &["v1", "keys", name.as_str()]);
        success(with_value(request, Bytes::from_owner(Exposed(key)))).await.map(drop)
    }

    /// The policies that count.
    pub(crate) async fn policies(&self) -> Result<PoliciesInForce, ClientError> {
        self.http.get(&["v1", "policies"]).await
    }

    /// Whether an operator may do something, and why; without a name the one who asks.
    pub(crate) async fn explain(
        &self,
        operator: Option<&OperatorName>,
        asked: &Explain,
    ) -> Result<Explanation, ClientError> {
        let path = ["v1", "policies", "explain"].into_iter().chain(operator.map(OperatorName::as_str));
        self.http.send(Method::POST, &path.collect::<Vec<_>>(), asked).await
    }

    /// Who calls, and what roles they have.
    pub(crate) async fn whoami(&self) -> Result<Operator, ClientError> {
        self.http.get(&["v1", "operator"]).await
    }

    /// Asks for a certificate for a new key of one's own.
    pub(crate) async fn renew(&self, request: &RenewRequest) -> Result<Renewed, ClientError> {
        self.http.send(Method::POST, &["v1", "operator", "renew"], request).await
    }

    /// The manager's clock.
    pub(crate) fn clock(&self) -> &ManagerClock {
        self.http.clock()
    }

    /// The calls that decide over operators, in one environment or everywhere.
    pub(crate) fn operators<'a>(&'a self, scope: Option<&'a EnvironmentName>) -> OperatorsClient<'a> {
        OperatorsClient { http: &self.http, scope: scope.map(EnvironmentName::as_str) }
    }

    /// The calls inside one environment.
    pub(crate) fn environment<'a>(&'a self, name: &'a EnvironmentName) -> EnvironmentClient<'a> {
        EnvironmentClient { http: &self.http, name: name.as_str() }
    }
}

/// An operator's calls inside one environment.
#[derive(Clone, Copy)]
pub(crate) struct EnvironmentClient<'a> {
    http: &'a Http,
    name: &'a str,
}

impl EnvironmentClient<'_> {
    fn path<'b, const N: usize>(&'b self, rest: [&'b str; N]) -> Vec<&'b str> {
        ["v1", "environments", self.name].into_iter().chain(rest).collect()
    }

    /// Gives its key a new version.
    pub(crate) async fn rotate_key(&self) -> Result<RotatedKey, ClientError> {
        self.http.send(Method::POST, &self.path(["key", "rotate"]), &()).await
    }

    /// Makes another key its own.
    pub(crate) async fn migrate_key(&self, asked: &MigrateKey) -> Result<Environment, ClientError> {
        self.http.send(Method::POST, &self.path(["key", "migrate"]), asked).await
    }

    /// Moves some data keys to its key's newest version.
    pub(crate) async fn rewrap_keys(&self, step: &RewrapStep) -> Result<Rewrapped, ClientError> {
        self.http.send(Method::POST, &self.path(["key", "rewrap"]), step).await
    }

    /// Destroys the versions of its keys that nothing is wrapped under.
    pub(crate) async fn retire_keys(&self) -> Result<Vec<RetiredKey>, ClientError> {
        self.http.send(Method::POST, &self.path(["key", "retire"]), &()).await
    }

    /// All secrets.
    pub(crate) async fn secrets(&self) -> Result<Vec<Secret>, ClientError> {
        self.http.get(&self.path(["secrets"])).await
    }

    /// One secret with its versions and attachments.
    pub(crate) async fn secret(&self, name: &SecretName) -> Result<SecretDetails, ClientError> {
        self.http.get(&self.path(["secrets", name.as_str()])).await
    }

    /// Creates a secret with its first version.
    pub(crate) async fn create_secret(
        &self,
        name: &SecretName,
        labels: &Labels,
        value: NewValue,
    ) -> Result<Secret, ClientError> {
        let labels = labels.to_string();
        let query: &[(&str, &str)] = if labels.is_empty() { &[] } else { &[("labels", &labels)] };
        self.send_value(&self.path(["secrets", name.as_str()]), query, value).await
    }

    /// Gives a secret a new current version.
    pub(crate) async fn rotate_secret(
        &self,
        name: &SecretName,
        value: NewValue,
    ) -> Result<Rotated, ClientError> {
        self.send_value(&self.path(["secrets", name.as_str(), "versions"]), &[], value).await
    }

    /// Makes an older version the current one.
    pub(crate) async fn roll_back_secret(
        &self,
        name: &SecretName,
        request: &Rollback,
    ) -> Result<Rotated, ClientError> {
        self.http.send(Method::POST, &self.path(["secrets", name.as_str(), "rollback"]), request).await
    }

    /// Removes a secret and all its versions.
    pub(crate) async fn remove_secret(&self, name: &SecretName) -> Result<(), ClientError> {
        self.http.delete(&self.path(["secrets", name.as_str()]), &[]).await
    }

    /// All services.
    pub(crate) async fn services(&self) -> Result<Vec<Service>, ClientError> {
        self.http.get(&self.path(["services"])).await
    }

    /// One service with its attachments and assignments.
    pub(crate) async fn service(&self, name: &ServiceName) -> Result<ServiceDetails, ClientError> {
        self.http.get(&self.path(["services", name.as_str()])).await
    }

    /// Creates a service.
    pub(crate) async fn create_service(&self, name: &ServiceName) -> Result<Service, ClientError> {
        json(self.http.request(Method::POST, &self.path(["services", name.as_str()]))).await
    }

    /// Removes a service with its attachments and assignments.
    pub(crate) async fn remove_service(&self, name: &ServiceName) -> Result<(), ClientError> {
        self.http.delete(&self.path(["services", name.as_str()]), &[]).await
    }

    /// Attaches a secret to a service.
    pub(crate) async fn attach(
        &self,
        service: &ServiceName,
        request: &Attach,
    ) -> Result<Attachment, ClientError> {
        let path = self.path(["services", service.as_str(), "attachments"]);
        self.http.send(Method::POST, &path, request).await
    }

    /// Detaches a secret from a service: from one target, or from all.
    pub(crate) async fn detach(
        &self,
        service: &ServiceName,
        secret: &SecretName,
        target: Option<&TargetName>,
    ) -> Result<(), ClientError> {
        let path = self.path(["services", service.as_str(), "attachments", secret.as_str()]);
        let query: Vec<_> = target.map(|target| ("target", target.as_str())).into_iter().collect();
        self.http.delete(&path, &query).await
    }

    /// One template with its text.
    pub(crate) async fn template(
        &self,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<TemplateDetails, ClientError> {
        let path = self.path(["services", service.as_str(), "templates", target.as_str()]);
        self.http.get(&path).await
    }

    /// Creates or replaces a template.
    pub(crate) async fn set_template(
        &self,
        service: &ServiceName,
        target: &TargetName,
        text: Vec<u8>,
        ownership: Ownership,
    ) -> Result<Template, ClientError> {
        let path = self.path(["services", service.as_str(), "templates", target.as_str()]);
        let Ownership { uid, gid, mode } = ownership;
        let query = [("uid", uid.to_string()), ("gid", gid.to_string()), ("mode", mode.to_string())];
        let request = self.http.request(Method::PUT, &path).query(&query);
        json(request.header("content-type", PLAIN_TEXT).body(text)).await
    }

    /// Removes a template.
    pub(crate) async fn remove_template(
        &self,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<(), ClientError> {
        let path = self.path(["services", service.as_str(), "templates", target.as_str()]);
        self.http.delete(&path, &[]).await
    }

    /// Assigns a service to a node or to nodes with labels.
    pub(crate) async fn assign(
        &self,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<Assignment, ClientError> {
        let path = self.path(["services", service.as_str(), "assignments"]);
        self.http.send(Method::POST, &path, assignment).await
    }

    /// Takes an assignment back.
    pub(crate) async fn unassign(
        &self,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<(), ClientError> {
        let path = self.path(["services", service.as_str(), "assignments"]);
        match assignment {
            Assignment::Node(node) => self.http.delete(&path, &[("node", node.as_str())]).await,
            Assignment::Selector(selector) => {
                self.http.delete(&path, &[("selector", &selector.to_string())]).await
            }
        }
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.http.get(&self.path(["nodes"])).await
    }

    /// One node.
    pub(crate) async fn node(&self, name: &NodeName) -> Result<Node, ClientError> {
        self.http.get(&self.path(["nodes", name.as_str()])).await
    }

    /// Lets a pending node in, and takes note that a duplicate was looked into.
    pub(crate) async fn approve_node(
        &self,
        name: &NodeName,
        approve: &ApproveNode,
    ) -> Result<Node, ClientError> {
        self.http.send(Method::POST, &self.path(["nodes", name.as_str(), "approve"]), approve).await
    }

    /// Shuts a node out, for good.
    pub(crate) async fn revoke_node(&self, name: &NodeName) -> Result<Node, ClientError> {
        json(self.http.request(Method::POST, &self.path(["nodes", name.as_str(), "revoke"]))).await
    }

    /// Forgets a node; its name is free again.
    pub(crate) async fn remove_node(&self, name: &NodeName) -> Result<(), ClientError> {
        self.http.delete(&self.path(["nodes", name.as_str()]), &[]).await
    }

    /// Sets and takes away labels of a node.
    pub(crate) async fn label_node(
        &self,
        name: &NodeName,
        change: &ChangeLabels,
    ) -> Result<Node, ClientError> {
        self.http.send(Method::PATCH, &self.path(["nodes", name.as_str(), "labels"]), change).await
    }

    /// Creates a join token.
    pub(crate) async fn create_token(&self, request: &CreateToken) -> Result<CreatedToken, ClientError> {
        self.http.send(Method::POST, &self.path(["tokens"]), request).await
    }

    /// All join tokens that are not forgotten yet.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, ClientError> {
        self.http.get(&self.path(["tokens"])).await
    }

    /// Withdraws a join token that nobody has used.
    pub(crate) async fn remove_token(&self, id: TokenId) -> Result<(), ClientError> {
        self.http.delete(&self.path(["tokens", &id.to_string()]), &[]).await
    }

    async fn send_value<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        value: NewValue,
    ) -> Result<T, ClientError> {
        let request = self.http.request(Method::POST, path).query(query);
        json(match value {
            NewValue::Generated(length) => request.query(&[("generate", length)]),
            // The body's buffer is the SecretBytes itself, which is wiped when the call is over.
            NewValue::Given(value) => with_value(request, Bytes::from_owner(Exposed(value))),
        })
        .await
    }
}

/// A value as the body of a request.
struct Exposed(SecretBytes);

impl AsRef<[u8]> for Exposed {
    fn as_ref(&self) -> &[u8] {
        self.0.expose_secret()
    }
}
