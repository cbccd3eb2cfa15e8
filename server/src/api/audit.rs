//! The audit log for those who may read it: as lines of JSON that can be verified elsewhere.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use secretfs_wire::api::{AUDIT_CHAIN_HEADER, ErrorCode, JSON_LINES};
use secretfs_wire::audit::Line;
use secretfs_wire::{Action, ChainId, EnvironmentName};
use serde::Deserialize;
use tokio::time::sleep;
use utoipa::IntoParams;

use super::extract::{Asker, InEnvironment, Path, Query};
use crate::app::{App, now};
use crate::audit::{Export, Extent};
use crate::authn::Identity;
use crate::authz::Resource;
use crate::error::Error;

/// What of the log is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The number of the first record. Default: 1.
    from: Option<u64>,
    /// Instead: so many of the last records.
    last: Option<u32>,
    /// So many records at most.
    limit: Option<u64>,
    /// Whatever comes, too, until the caller has enough.
    #[serde(default)]
    follow: bool,
    /// A chain that is kept here. Default: the one that is written.
    #[param(value_type = Option<String>)]
    chain: Option<ChainId>,
}

#[utoipa::path(get, path = "/v1/audit", params(Wanted),
    responses((status = 200, body = String, content_type = "application/jsonl")))]
pub(super) async fn all(
    State(app): State<Arc<App>>,
    asker: Asker,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Error> {
    export(&app, asker, wanted, None).await
}

#[utoipa::path(get, path = "/v1/environments/{environment}/audit", params(InEnvironment, Wanted),
    responses((status = 200, body = String, content_type = "application/jsonl")))]
pub(super) async fn of_environment(
    State(app): State<Arc<App>>,
    asker: Asker,
    Path(at): Path<InEnvironment>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Error> {
    export(&app, asker, wanted, Some(at.environment)).await
}

/// The newest checkpoint, after the certificate of its key.
#[utoipa::path(get, path = "/v1/audit/checkpoint",
    responses((status = 200, body = String, content_type = "application/jsonl")))]
pub(super) async fn checkpoint(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let (chain, log) = app.audit.chain()?;
    let none = || Error::NotFound { kind: "audit checkpoint", name: chain.to_string() };
    let signed = log.last_checkpoint(chain).await?.ok_or_else(none)?;
    let keys = log.audit_keys(chain).await?;
    let (_, key) = keys.into_iter().find(|(name, _)| *name == signed.checkpoint.key).ok_or_else(none)?;
    let mut text = String::new();
    for line in [Line::Certificate(key.certificate), Line::Checkpoint(signed)] {
        text.push_str(&line.to_text().map_err(Error::internal)?);
        text.push('\n');
    }
    Ok(([(CONTENT_TYPE, JSON_LINES)], text).into_response())
}

#[utoipa::path(post, path = "/v1/audit/key/rotate", responses((status = 204)))]
pub(super) async fn rotate(State(app): State<Arc<App>>) -> Result<StatusCode, Error> {
    app.audit.rotate_key().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn export(
    app: &Arc<App>,
    asker: Asker,
    wanted: Wanted,
    environment: Option<EnvironmentName>,
) -> Result<Response, Error> {
    let (own, log) = app.audit.chain()?;
    let chain = wanted.chain.unwrap_or(own);
    let kept = log.chains().await?.into_iter().find(|kept| kept.id == chain);
    let kept = kept.ok_or_else(|| Error::NotFound { kind: "audit chain", name: chain.to_string() })?;
    let from = match (wanted.from, wanted.last) {
        (from, None) => from.unwrap_or(1),
        (None, Some(0)) => kept.head.map_or(1, |head| head.sequence + 1),
        (None, Some(count)) => log.tail(chain, environment.as_ref(), count).await?,
        (Some(_), Some(_)) => return Err(Error::Invalid("name either from or last".to_owned())),
    };
    let about = environment.clone().map_or_else(Resource::default, Resource::environment);
    // So many and no more: the record of this call comes after them.
    let count = wanted.last.filter(|_| !wanted.follow).map(u64::from);
    let limit = wanted.limit.into_iter().chain(count).min();
    let extent = Extent { from, limit, environment, follow: wanted.follow };
    let export = Export::new(
        Arc::clone(log),
        chain,
        extent,
        app.audit.watch(),
        app.config.heartbeat_interval,
        app.stopping.clone(),
    );
    let body = Body::from_stream(export.lines().take_until(Box::pin(refused(Arc::clone(app), asker, about))));
    let headers = [(CONTENT_TYPE.as_str(), JSON_LINES.to_owned()), (AUDIT_CHAIN_HEADER, chain.to_string())];
    Ok((headers, body).into_response())
}

/// Ends when the caller would be refused if it asked anew: who follows is let go with a certificate that
/// ends, or a role that is taken away, a heartbeat later at most.
async fn refused(app: Arc<App>, asker: Asker, about: Resource) {
    let Asker { certificate, address, .. } = asker;
    loop {
        sleep(app.config.heartbeat_interval).await;
        let action = Action::AuditRead;
        match Identity::of(certificate.clone(), action, app.store.as_ref(), now()).await {
            Ok(identity) => {
                let decided = app.authorizer.decide(&identity, action, &about, address);
                if !decided.is_ok_and(|decision| decision.is_allowed()) {
                    return;
                }
            }
            // What it is now is not known.
            Err(error) if error.code() == ErrorCode::Unavailable => {}
            Err(_) => return,
        }
    }
}
