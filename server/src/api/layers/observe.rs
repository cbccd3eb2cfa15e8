use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use crate::app::App;

/// Who asked, for the log.
#[derive(Clone)]
pub(super) struct Caller(pub(super) String);

/// Counts and logs each request: who, what and how it went. Paths hold names and never a value; what
/// stands after the `?` is left out.
pub(in crate::api) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
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
    let caller = response.extensions().get::<Caller>().map(|caller| caller.0.as_str());
    // What nodes ask for all day would bury what operators change, and so would what anybody may try who
    // was not let through.
    let is_change = caller.is_some() && !method.is_safe() && !route.starts_with("/v1/node/");
    let caller = caller.unwrap_or("unknown");
    if !is_change {
        tracing::debug!(caller, %method, path, status, took_us = took.as_micros(), "answered");
    } else {
        tracing::info!(caller, %method, path, status, took_us = took.as_micros(), "answered");
    }
    response
}
