use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::Operator;
use secretfs_wire::{EnvironmentName, Grant, OperatorId, OperatorName};

use super::StoreError;

/// An operator to be added: with a certificate, or with a token to get one.
pub(crate) struct NewOperator {
    pub(crate) name: OperatorName,
    pub(crate) id: OperatorId,
    /// The one environment that answers for who it is; `None` for all.
    pub(crate) scope: Option<EnvironmentName>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) created: Timestamp,
    pub(crate) certificate_expires: Option<Timestamp>,
    pub(crate) enrolment: Option<NewEnrolment>,
}

/// An enrolment token to be remembered by the SHA-256 of its secret part.
pub(crate) struct NewEnrolment {
    pub(crate) digest: [u8; 32],
    /// The one environment that whoever made it may answer for; `None` for all.
    pub(crate) scope: Option<EnvironmentName>,
    pub(crate) expires: Timestamp,
}

/// Operators, the roles that they have, and the tokens that they log in with.
///
/// A `scope` is the one environment that the caller may decide in, or `None` for all. Whoever makes a token
/// can become who it is for, so an operator keeps the scope that the token was made in and has no role
/// outside of it. Within an environment nobody is enrolled who has another scope, and an operator is shown
/// with the roles that count there.
#[async_trait]
pub(crate) trait Operators: Send + Sync {
    /// Refuses a name that is taken.
    async fn add_operator(&self, new: NewOperator) -> Result<(), StoreError>;

    /// The roles of exactly this operator, or `None` when there is none: asked at each of their requests.
    async fn operator_grants(
        &self,
        name: &OperatorName,
        id: Option<OperatorId>,
    ) -> Result<Option<Vec<Grant>>, StoreError>;

    /// By name; within a scope those who have it, and those who have a role that counts there.
    async fn operators(
        &self,
        scope: Option<&EnvironmentName>,
        now: Timestamp,
    ) -> Result<Vec<Operator>, StoreError>;

    async fn operator(&self, name: &OperatorName, now: Timestamp) -> Result<Operator, StoreError>;

    /// Within an environment only the roles there are taken, unless it is the operator's scope. Refuses the
    /// last one who can act as an administrator of everything. The open join tokens that the operator has
    /// made, in that environment or, with the operator, in any, go too; how many these were.
    async fn remove_operator(
        &self,
        name: &OperatorName,
        scope: Option<&EnvironmentName>,
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Gives a role that the operator may have already. Refuses one outside of the operator's scope.
    async fn grant(&self, name: &OperatorName, grant: &Grant, now: Timestamp)
    -> Result<Operator, StoreError>;

    /// Takes a role that the operator has. Refuses to take that of the last one who can act as an
    /// administrator of everything.
    async fn ungrant(
        &self,
        name: &OperatorName,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Operator, StoreError>;

    /// Remembers an enrolment token in the place of an older one, unless that has a wider scope. An operator
    /// as whom nobody has logged in has its scope at once.
    async fn enroll(
        &self,
        name: &OperatorName,
        enrolment: NewEnrolment,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Forgets an enrolment token that is still good, unless it has a wider scope.
    async fn cancel_enrolment(
        &self,
        name: &OperatorName,
        scope: Option<&EnvironmentName>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Whose a token is that is still good, so that a certificate can be made out.
    async fn enrolled(&self, digest: &[u8; 32], now: Timestamp) -> Result<OperatorName, StoreError>;

    /// Uses a token up and gives the operator a new id and the token's scope, all or nothing. Certificates
    /// with another id are good for nothing from then on.
    async fn log_in(
        &self,
        digest: &[u8; 32],
        id: OperatorId,
        certificate_expires: Timestamp,
        now: Timestamp,
    ) -> Result<Operator, StoreError>;

    /// [`StoreError::Missing`] when it is another operator, or none, by now.
    async fn operator_renewed(
        &self,
        name: &OperatorName,
        id: Option<OperatorId>,
        certificate_expires: Timestamp,
    ) -> Result<(), StoreError>;

    /// Makes an operator an administrator of everything, who may be there already, and remembers an
    /// enrolment token for them. One whom a single environment enrolled is shut out until it is used.
    async fn recover(
        &self,
        name: &OperatorName,
        enrolment: NewEnrolment,
        now: Timestamp,
    ) -> Result<(), StoreError>;
}
