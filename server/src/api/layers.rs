//! What happens around each request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use secretfs_wire::Action;
use secretfs_wire::api::INSTANCE_HEADER;
use tokio::time::{Instant, timeout};

use super::extract::address_in;
use super::limiting::Limiting;
use crate::app::{App, Speaker, now};
use crate::authn::Identity;
use crate::authz::Resource;
use crate::ca::PeerCertificate;
use crate::error::Error;
use crate::listener::{PeerAddress, PeerConnection};

/// Lets a request through when its caller may use the route, and in the time it may take.
///
/// A change is carried out in a task of its own: whether its caller waits, hangs up or runs into the
/// time limit, a change that was begun is finished and announced, or not made at all.
pub(super) async fn authorize(
    State((action, app)): State<(Action, Arc<App>)>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<PeerCertificate>().cloned();
    let address = request.extensions().get().map(|PeerAddress(address)| *address);
    let limiting = Limiting::of(&app, action, peer.as_ref(), address);
    if let Err(error) = limiting.admit() {
        return error.into_response();
    }
    let identity = match Identity::of(peer.clone(), app.store.as_ref(), now()).await {
        Ok(identity) => identity,
        Err(error) => return limiting.unidentified(error).into_response(),
    };
    #[cfg(test)]
    let identity = crate::testing::with_grants(identity, request.extensions());
    let resource = match resource(path) {
        Ok(resource) => resource,
        // What is wrong with a name is for those to hear who might have named something.
        Err(error) => {
            let refusal = app.authorizer.refusal_of_caller(&identity, action);
            return limiting.unidentified(refusal.unwrap_or(error)).into_response();
        }
    };
    let decision = match app.authorizer.decide(&identity, action, &resource, address_in(request.extensions()))
    {
        Ok(decision) => decision,
        Err(error) => return Error::from(error).into_response(),
    };
    for error in &decision.errors {
        tracing::warn!(%identity, %action, error, "a policy cannot be evaluated");
    }
    if let Some(error) = decision.refusal(action, &resource) {
        let policies = decision.policies.join(" ");
        let address = address.map(tracing::field::display);
        tracing::warn!(%identity, address, %action, policies, path = request.uri().path(), "refused");
        return limiting.unidentified(error).into_response();
    }
    if let Identity::Node(node) = &identity {
        match speaker(&request, address) {
            Ok(speaker) => {
                app.hear(node, &speaker).await;
                request.extensions_mut().insert(speaker);
            }
            Err(error) => return error.into_response(),
        }
    }
    let caller = Caller(identity.to_string());
    request.extensions_mut().insert(identity);
    let limit = app.config.request_timeout;
    let changes = !request.method().is_safe();
    let answered = async {
        if !changes {
            return Ok(next.run(request).await);
        }
        tokio::spawn(next.run(request)).await.map_err(Error::internal)
    };
    let mut response = match timeout(limit, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(elapsed) => Error::Unavailable(Box::new(elapsed)).into_response(),
    };
    limiting.answered(response.status());
    response.extensions_mut().insert(caller);
    response
}

/// Which daemon of a node asks. One that does not say is a daemon as well.
fn speaker(request: &Request, address: Option<IpAddr>) -> Result<Speaker, Error> {
    let instance = request.headers().get(INSTANCE_HEADER).map(|given| {
        let instance = given.to_str().ok().and_then(|text| text.parse().ok());
        instance.ok_or_else(|| Error::Invalid(format!("the header {INSTANCE_HEADER} is not an id")))
    });
    let connection = request.extensions().get::<PeerConnection>().cloned();
    Ok(Speaker {
        instance: instance.transpose()?,
        address,
        // Missing only where there is no listener, in tests: each request is then on one of its own.
        connection: connection.unwrap_or_else(PeerConnection::now),
    })
}

/// What a request is about, by its path.
fn resource(path: Result<RawPathParams, RawPathParamsRejection>) -> Result<Resource, Error> {
    let path = path.map_err(|error| Error::Invalid(error.body_text()))?;
    Resource::from_path(path.iter()).map_err(|error| Error::Invalid(error.to_string()))
}

/// Who asked, for the log.
#[derive(Clone)]
struct Caller(String);

/// Counts and logs each request: who, what and how it went. Paths hold names and never a value; what
/// stands after the `?` is left out.
pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |route| route.as_str().to_owned());
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    // Unknown methods are of any text; they must not make metrics without end.
    let known = if route == "unknown" { "other" } else { method.as_str() };
    app.metrics.answered(known, &route, status, took);
    let caller = response.extensions().get::<Caller>().map_or("unknown", |caller| caller.0.as_str());
    // What nodes ask for all day would bury what operators change.
    if method.is_safe() || route.starts_with("/v1/node/") {
        tracing::debug!(caller, %method, path, status, took_us = took.as_micros(), "answered");
    } else {
        tracing::info!(caller, %method, path, status, took_us = took.as_micros(), "answered");
    }
    response
}
