//! Request bodies, bounded before they are in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use secretfs_wire::template::TEMPLATE_MAX_BYTES;
use secretfs_wire::{SECRET_MAX_BYTES, SecretBytes};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::app::App;
use crate::error::Error;

pub(super) const JSON_MAX_BYTES: usize = 64 * 1024;
/// As many opens as one report tells, with long paths.
pub(super) const REPORT_MAX_BYTES: usize = 1024 * 1024;

/// A JSON body of at most 64 KiB, or of what is said.
pub(super) struct Json<T, const MOST: usize = JSON_MAX_BYTES>(pub(super) T);

impl<T: DeserializeOwned, const MOST: usize> FromRequest<Arc<App>> for Json<T, MOST> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        parse(&json(&parts.headers, body, MOST, app.config.request_timeout).await?).map(Self)
    }
}

/// The bytes of a body that says it is JSON.
pub(super) async fn json(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    within: Duration,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|given| {
        let essence = given.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !is_json {
        return Err(Error::Invalid("this call takes a body of application/json".to_owned()));
    }
    read(headers, body, most, within).await
}

/// What these bytes say as JSON.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // Where it is wrong, not what stands there: a join token may.
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::Invalid(format!("the body is not what this call takes: line {line}, column {column}"))
    })
}

/// A secret's value as the raw body, or `None` when the body is empty.
pub(super) struct Value(pub(super) Option<SecretBytes>);

impl FromRequest<Arc<App>> for Value {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let mut bytes = read(&parts.headers, body, SECRET_MAX_BYTES, app.config.request_timeout).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        // The buffer itself moves on; what stays behind to be wiped is empty.
        let value = SecretBytes::new(std::mem::take(&mut *bytes));
        value.map(|value| Self(Some(value))).map_err(|error| Error::Invalid(error.to_string()))
    }
}

/// The text of a template as the raw body.
pub(super) struct Text(pub(super) String);

impl FromRequest<Arc<App>> for Text {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let mut bytes = read(&parts.headers, body, TEMPLATE_MAX_BYTES, app.config.request_timeout).await?;
        let text = String::from_utf8(std::mem::take(&mut *bytes));
        text.map(Self).map_err(|_| Error::Invalid("a template is UTF-8 text".to_owned()))
    }
}

/// Reads a body of at most `limit` bytes into memory that is wiped. A body that says it is larger is
/// refused unread; one that does not say is refused as soon as it is.
///
/// The buffer never grows, since growing leaves copies behind. The frames that the bytes arrive in
/// are the HTTP library's and are not wiped.
async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    within: Duration,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let announced = match headers.get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok().and_then(|length| length.parse::<usize>().ok()),
        None => Some(limit),
    };
    let capacity = announced.filter(|length| *length <= limit).ok_or(Error::TooLarge { limit })?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    timeout(within, collect(body, limit, &mut bytes))
        .await
        .map_err(|_| Error::Invalid("the body did not arrive in time".to_owned()))??;
    Ok(bytes)
}

async fn collect(mut body: Body, limit: usize, bytes: &mut Vec<u8>) -> Result<(), Error> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::Invalid("the body ended early".to_owned()))?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > limit - bytes.len() {
            return Err(Error::TooLarge { limit });
        }
        bytes.extend_from_slice(data);
    }
    Ok(())
}
