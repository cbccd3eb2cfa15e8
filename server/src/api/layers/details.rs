use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use http::request::Parts;
use secretfs_wire::EnvironmentName;
use secretfs_wire::audit::{Event, Object};

use crate::app::App;
use crate::error::Error;

/// What a handler has to say for the record of its call: names that do not stand in its path. Names and
/// numbers only; never a value, and no text that a caller may choose.
#[derive(Clone, Default)]
pub(in crate::api) struct Details(Arc<Mutex<Noted>>);

/// What was said so far.
#[derive(Default)]
pub(in crate::api) struct Noted {
    pub(in crate::api) object: Object,
    pub(in crate::api) environment: Option<EnvironmentName>,
    pub(in crate::api) text: Option<String>,
}

impl Details {
    /// Says more.
    pub(in crate::api) fn note(&self, say: impl FnOnce(&mut Noted)) {
        say(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Puts it into the event, which knows what stands in the path.
    pub(super) fn complete(&self, event: &mut Event) {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let Object { secret, version, service, target, node, operator, key } = noted.object;
        let object = &mut event.object;
        object.secret = secret.or(object.secret.take());
        object.version = version.or(object.version);
        object.service = service.or(object.service.take());
        object.target = target.or(object.target.take());
        object.node = node.or(object.node.take());
        object.operator = operator.or(object.operator.take());
        object.key = key.or(object.key.take());
        event.environment = noted.environment.or(event.environment.take());
        event.reason = match (event.reason.take(), noted.text) {
            (Some(reason), Some(text)) => Some(format!("{reason}: {text}")),
            (reason, text) => reason.or(text),
        };
    }
}

impl FromRequestParts<Arc<App>> for Details {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Error> {
        let details = parts.extensions.get::<Self>().cloned();
        details.ok_or_else(|| Error::internal("a handler stands on a route that is not recorded"))
    }
}
