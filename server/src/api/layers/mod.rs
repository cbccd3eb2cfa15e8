//! What happens around each request: who asks and how often, whether that is allowed, and that it is on
//! record.

mod details;
mod observe;
mod recording;
mod stated;

use std::net::IpAddr;
use std::sync::Arc;

use axum::RequestPartsExt as _;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use secretfs_wire::Action;
use secretfs_wire::api::INSTANCE_HEADER;
use tokio::time::timeout;

use super::extract::address_in;
use super::limiting::Limiting;
use crate::app::{App, Speaker, now};
use crate::authn::Identity;
use crate::authz::Resource;
use crate::ca::PeerCertificate;
use crate::error::Error;
use crate::listener::{PeerAddress, PeerConnection};

pub(super) use details::Details;
pub(super) use observe::observe;

use observe::Caller;
use recording::{Kind, Recording};

/// Lets a request through when its caller may use the route, and in the time it may take, and with a
/// record of it.
///
/// A change is on record before it is made and again when it has ended, in a task of its own: whether its
/// caller waits, hangs up or runs into the time limit, a change that was begun is finished, recorded and
/// announced, or not made at all.
pub(super) async fn authorize(
    State((action, app)): State<(Action, Arc<App>)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let resource = resource(&mut parts).await;
    let address = parts.extensions.get().map(|PeerAddress(address)| *address);
    let recording = Recording::of(action, resource.as_ref().ok(), address, &app);
    let peer = parts.extensions.get::<PeerCertificate>().cloned();
    let limiting = Limiting::of(&app, action, peer.as_ref(), address);
    if let Err(error) = limiting.admit() {
        return error.into_response();
    }
    let identity = match Identity::of(peer.clone(), action, app.store.as_ref(), now()).await {
        Ok(identity) => identity,
        Err(error) => return refuse(&limiting, recording, None, error).await,
    };
    let recording = recording.by(&identity);
    let refusal = app.authorizer.refusal_of_caller(&identity, action);
    let stated = match resource {
        Ok(resource) if refusal.is_none() => {
            stated::complete(action, resource, &parts.headers, body, app.config.request_timeout).await
        }
        // Nobody is listened to who can never ask for this.
        other => other.map(|resource| (resource, body)),
    };
    let (resource, body) = match stated {
        Ok(stated) => stated,
        // What is wrong with a request is for those to hear who might have made it.
        Err(error) => {
            return refuse(&limiting, recording, Some(&identity), refusal.unwrap_or(error)).await;
        }
    };
    let recording = recording.about(&resource);
    let decided = app.authorizer.decide(&identity, action, &resource, address_in(&parts.extensions));
    let decision = match decided {
        Ok(decision) => decision,
        Err(error) => return refuse(&limiting, recording, Some(&identity), error.into()).await,
    };
    for error in &decision.errors {
        tracing::warn!(%identity, %action, error, "a policy cannot be evaluated");
    }
    let refusal = decision.refusal(&identity, action, &resource);
    let recording = recording.decided(decision.policies);
    if let Some(error) = refusal {
        return refuse(&limiting, recording, Some(&identity), error).await;
    }
    if let Identity::Node(node) = &identity {
        match speaker(&parts, address) {
            Ok(speaker) => {
                app.hear(node, &speaker).await;
                parts.extensions.insert(speaker);
            }
            Err(error) => return refuse(&limiting, recording, Some(&identity), error).await,
        }
    }
    let (caller, details) = (Caller(identity.to_string()), Details::default());
    parts.extensions.insert(identity);
    parts.extensions.insert(details.clone());
    let kind = Kind::of(action, &parts.method);
    let is_safe = parts.method.is_safe();
    let answer = next.run(Request::from_parts(parts, body));
    let answered = async {
        match kind {
            Kind::Unrecorded if is_safe => Ok(answer.await),
            // What is not a change to the log may be one all the same: a node's report.
            Kind::Unrecorded => tokio::spawn(answer).await.map_err(Error::internal),
            Kind::Read => recording.read(details, answer).await,
            Kind::Change => recording.change(details, answer).await,
        }
    };
    let mut response = match timeout(app.config.request_timeout, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(elapsed) => Error::Unavailable(Box::new(elapsed)).into_response(),
    };
    limiting.answered(response.status());
    response.extensions_mut().insert(caller);
    response
}

/// Refuses a call, of somebody who is nobody or of an identity, and has it on record: unless its caller is only
/// told to wait, which is counted.
async fn refuse(
    limiting: &Limiting<'_>,
    recording: Recording,
    identity: Option<&Identity>,
    error: Error,
) -> Response {
    match (limiting.refuse(identity, error), identity) {
        (Err(wait), _) => wait.into_response(),
        (Ok(error), None) => recording.refused(limiting.claimed(), error).await,
        (Ok(error), Some(identity)) => recording.denied(identity, error).await,
    }
}

/// What a request is about, by its path.
async fn resource(parts: &mut Parts) -> Result<Resource, Error> {
    let path = parts.extract::<RawPathParams>().await;
    let path = path.map_err(|error| Error::Invalid(error.body_text()))?;
    Resource::from_path(path.iter()).map_err(|error| Error::Invalid(error.to_string()))
}

/// Which daemon of a node asks. One that does not say is a daemon as well.
fn speaker(parts: &Parts, address: Option<IpAddr>) -> Result<Speaker, Error> {
    let instance = parts.headers.get(INSTANCE_HEADER).map(|given| {
        let instance = given.to_str().ok().and_then(|text| text.parse().ok());
        instance.ok_or_else(|| Error::Invalid(format!("the header {INSTANCE_HEADER} is not an id")))
    });
    let connection = parts.extensions.get::<PeerConnection>().cloned();
    Ok(Speaker {
        instance: instance.transpose()?,
        address,
        // Missing only where there is no listener, in tests: each request is then on one of its own.
        connection: connection.unwrap_or_else(PeerConnection::now),
    })
}
