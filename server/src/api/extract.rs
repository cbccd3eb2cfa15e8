//! Extractors whose refusals are error bodies like any other.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{self, FromRequestParts};
use http::Extensions;
use http::request::Parts;
use secretfs_wire::{EnvironmentName, NodeName, OperatorId, OperatorName, SecretName, ServiceName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::app::{App, Speaker};
use crate::authn::{Identity, NodeIdentity};
use crate::ca::{PeerCertificate, Subject};
use crate::error::Error;
use crate::listener::PeerAddress;

/// Names in a path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        let path = extract::Path::<T>::from_request_parts(parts, app).await;
        path.map(|extract::Path(names)| Self(names)).map_err(|error| Error::Invalid(error.body_text()))
    }
}

/// The environment that a path names, or all if it names none.
pub(super) struct Scope(pub(super) Option<EnvironmentName>);

impl FromRequestParts<Arc<App>> for Scope {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Named {
            environment: Option<EnvironmentName>,
        }
        Path::<Named>::from_request_parts(parts, app).await.map(|Path(named)| Self(named.environment))
    }
}

/// What stands after the `?`.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        let query = extract::Query::<T>::from_request_parts(parts, app).await;
        query.map(|extract::Query(query)| Self(query)).map_err(|error| Error::Invalid(error.body_text()))
    }
}

/// The node that asks, its certificate, and which of its daemons it is.
pub(super) struct Caller {
    pub(super) node: NodeIdentity,
    pub(super) certificate: PeerCertificate,
    pub(super) speaker: Speaker,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Error> {
        let extensions = &parts.extensions;
        match (extensions.get(), extensions.get(), extensions.get::<Speaker>()) {
            (Some(Identity::Node(node)), Some(certificate), Some(speaker)) => Ok(Self {
                node: node.clone(),
                certificate: PeerCertificate::clone(certificate),
                speaker: speaker.clone(),
            }),
            _ => Err(Error::internal("a node's handler stands on a route that is not a node's")),
        }
    }
}

/// Who asks and from where, for a handler whose answer depends on what that caller may see.
pub(super) struct Asker {
    pub(super) identity: Identity,
    pub(super) certificate: Option<PeerCertificate>,
    pub(super) address: IpAddr,
}

impl FromRequestParts<Arc<App>> for Asker {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Error> {
        let identity = parts.extensions.get::<Identity>().cloned();
        let identity = identity.ok_or_else(|| Error::internal("this route is not guarded"))?;
        let certificate = parts.extensions.get().cloned();
        Ok(Self { identity, certificate, address: address_in(&parts.extensions) })
    }
}

/// The address that a request comes from.
pub(super) fn address_in(extensions: &Extensions) -> IpAddr {
    // The listener gives it to every request; 0.0.0.0 is in no network that a policy would trust.
    extensions.get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |PeerAddress(address)| *address)
}

/// The operator who asks, as the certificate names them.
pub(super) struct CallingOperator {
    pub(super) name: OperatorName,
    pub(super) id: Option<OperatorId>,
}

impl FromRequestParts<Arc<App>> for CallingOperator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Error> {
        match parts.extensions.get::<PeerCertificate>().map(|certificate| &certificate.subject) {
            Some(Subject::Operator { name, id }) => Ok(Self { name: name.clone(), id: *id }),
            _ => Err(Error::internal("an operator's handler stands on a route that is not an operator's")),
        }
    }
}

/// A path that names an environment.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct InEnvironment {
    /// The environment.
    #[param(value_type = String)]
    pub(super) environment: EnvironmentName,
}

/// A path that names a secret.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfSecret {
    /// The environment.
    #[param(value_type = String)]
    pub(super) environment: EnvironmentName,
    /// The secret.
    #[param(value_type = String)]
    pub(super) secret: SecretName,
}

/// A path that names a service.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfService {
    /// The environment.
    #[param(value_type = String)]
    pub(super) environment: EnvironmentName,
    /// The service.
    #[param(value_type = String)]
    pub(super) service: ServiceName,
}

/// A path that names a node.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfNode {
    /// The environment.
    #[param(value_type = String)]
    pub(super) environment: EnvironmentName,
    /// The node.
    #[param(value_type = String)]
    pub(super) node: NodeName,
}

/// A path that names an operator.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfOperator {
    /// The operator.
    #[param(value_type = String)]
    pub(super) operator: OperatorName,
}
