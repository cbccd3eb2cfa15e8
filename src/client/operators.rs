//! What an operator decides over operators.

use reqwest::Method;
use secretfs_wire::api::{AddOperator, CreatedEnrolment, Enroll, Operator, RemovedOperator};
use secretfs_wire::{OperatorName, Role};

use super::ClientError;
use super::http::{Http, json};

/// Calls that decide over operators: in one environment, or everywhere.
#[derive(Clone, Copy)]
pub(crate) struct OperatorsClient<'a> {
    pub(super) http: &'a Http,
    pub(super) scope: Option<&'a str>,
}

impl OperatorsClient<'_> {
    fn path<'b>(&'b self, rest: &[&'b str]) -> Vec<&'b str> {
        let mut path = vec!["v1"];
        path.extend(self.scope.iter().flat_map(|environment| ["environments", environment]));
        path.push("operators");
        path.extend(rest);
        path
    }

    /// All, or those who have a role that counts in the environment.
    pub(crate) async fn list(&self) -> Result<Vec<Operator>, ClientError> {
        self.http.get(&self.path(&[])).await
    }

    /// Adds an operator, and has a token made for them.
    pub(crate) async fn add(
        &self,
        name: &OperatorName,
        request: &AddOperator,
    ) -> Result<CreatedEnrolment, ClientError> {
        self.http.send(Method::POST, &self.path(&[name.as_str()]), request).await
    }

    /// Has a token made for an operator who is there.
    pub(crate) async fn enroll(
        &self,
        name: &OperatorName,
        request: &Enroll,
    ) -> Result<CreatedEnrolment, ClientError> {
        self.http.send(Method::POST, &self.path(&[name.as_str(), "enrolment"]), request).await
    }

    /// Withdraws a token that was made for an operator and that nobody has used.
    pub(crate) async fn cancel_enrolment(&self, name: &OperatorName) -> Result<(), ClientError> {
        self.http.delete(&self.path(&[name.as_str(), "enrolment"]), &[]).await
    }

    /// Takes an operator all roles in the environment, or shuts them out; then the name is free again.
    pub(crate) async fn remove(&self, name: &OperatorName) -> Result<RemovedOperator, ClientError> {
        json(self.http.request(Method::DELETE, &self.path(&[name.as_str()]))).await
    }

    /// Gives an operator a role.
    pub(crate) async fn grant(&self, name: &OperatorName, role: Role) -> Result<Operator, ClientError> {
        json(self.http.request(Method::PUT, &self.path(&[name.as_str(), "roles", role.as_str()]))).await
    }

    /// Takes a role from an operator.
    pub(crate) async fn ungrant(&self, name: &OperatorName, role: Role) -> Result<Operator, ClientError> {
        json(self.http.request(Method::DELETE, &self.path(&[name.as_str(), "roles", role.as_str()]))).await
    }
}
