use std::net::IpAddr;
use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::Method;
use secretfs_wire::api::ErrorCode;
use secretfs_wire::audit::{Actor, Event, Object, Outcome};
use secretfs_wire::{Action, CallId};

use super::details::Details;
use crate::app::App;
use crate::audit::{AuditError, Durability};
use crate::authn::Identity;
use crate::authz::Resource;
use crate::ca::Subject;
use crate::error::Error;

/// How a call is recorded. Every one that is refused is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Before it is made, and again how it ended.
    Change,
    /// Once, before it is answered.
    Read,
    /// Not: there is no end of them, or what they bring is recorded itself.
    Unrecorded,
}

impl Kind {
    pub(super) fn of(action: Action, method: &Method) -> Self {
        match action {
            Action::ManagerHealth | Action::NodeFollow | Action::NodeReport | Action::NodeAudit => {
                Self::Unrecorded
            }
            // A question, whatever its method.
            Action::NodeSession | Action::NodeFetch | Action::PolicyExplain => Self::Read,
            _ if method.is_safe() => Self::Read,
            _ => Self::Change,
        }
    }
}

/// The record of one call, as far as it is known.
pub(super) struct Recording {
    app: Arc<App>,
    event: Event,
}

impl Recording {
    /// Of a call whose path names something.
    pub(super) fn of(
        action: Action,
        about: Option<&Resource>,
        address: Option<IpAddr>,
        app: &Arc<App>,
    ) -> Self {
        let mut event = Event::new(action, Outcome::Begun, Actor::Anonymous);
        event.address = address;
        // A text that is no name is nobody's.
        if let Some(Resource { environment, object, .. }) = about.cloned() {
            (event.environment, event.object) = (environment, object);
        }
        Self { app: Arc::clone(app), event }
    }

    /// A call whose body names more of what it is about.
    pub(super) fn about(mut self, stated: &Resource) -> Self {
        self.event.object = stated.object.clone();
        self
    }

    /// Who asks.
    pub(super) fn by(mut self, identity: &Identity) -> Self {
        self.event.actor = identity.actor();
        if let (None, Identity::Node(node)) = (&self.event.environment, identity) {
            self.event.environment = Some(node.environment.clone());
        }
        self
    }

    /// It was decided by these policies.
    pub(super) fn decided(mut self, policies: Vec<String>) -> Self {
        self.event.policies = policies;
        self
    }

    /// A caller whom the manager does not honour, whatever its certificate claims.
    pub(super) async fn refused(mut self, claimed: Option<&Subject>, error: Error) -> Response {
        // What it names is of its own choice, and would make each refusal a record of its own.
        let event = &mut self.event;
        (event.environment, event.object) = (None, Object::NONE);
        match claimed {
            Some(Subject::Operator { name, .. }) => event.object.operator = Some(name.clone()),
            Some(Subject::Node { environment, name, .. }) => {
                event.object.node = Some(name.clone());
                event.environment = Some(environment.clone());
            }
            None => {}
        }
        self.settle(error.code());
        let recorded = self.app.audit.record_refused(self.event).await;
        answer(error, recorded)
    }

    /// A caller who may not do this.
    pub(super) async fn denied(mut self, identity: &Identity, error: Error) -> Response {
        self.settle(error.code());
        let Event { action, address, policies, .. } = &self.event;
        let (address, policies) = (address.map(tracing::field::display), policies.join(" "));
        tracing::warn!(%identity, address, %action, policies, %error, "refused");
        let recorded = match identity {
            // Of nodes there are many, and one that was taken over may do nothing else.
            Identity::Anonymous | Identity::Node(_) => self.app.audit.record_refused(self.event).await,
            Identity::Operator(_) => self.app.audit.record(vec![self.event.into()], Durability::Power).await,
        };
        answer(error, recorded)
    }

    /// Answers once it is recorded that it was answered.
    pub(super) async fn read(
        self,
        details: Details,
        run: impl Future<Output = Response>,
    ) -> Result<Response, Error> {
        let response = run.await;
        let Self { app, event } = self.ended(&details, &response);
        app.audit.record(vec![event.into()], Durability::Process).await?;
        Ok(response)
    }

    /// Begins once it is recorded that it begins.
    pub(super) async fn change(
        self,
        details: Details,
        run: impl Future<Output = Response> + Send + 'static,
    ) -> Result<Response, Error> {
        let mut begins = self;
        begins.event.call = Some(CallId::random());
        let begun = tokio::spawn(async move {
            begins.app.audit.record(vec![begins.event.clone().into()], Durability::Power).await?;
            let response = run.await;
            let Self { app, event } = begins.ended(&details, &response);
            let was_done = event.outcome == Outcome::Done;
            let recorded = app.audit.record(vec![event.into()], Durability::Power).await;
            recorded.map_err(|cause| Error::Unrecorded { was_done, cause }).map(|()| response)
        });
        begun.await.map_err(Error::internal)?
    }

    /// How it ended.
    fn ended(mut self, details: &Details, response: &Response) -> Self {
        match response.extensions().get::<ErrorCode>() {
            Some(code) => self.settle(*code),
            None if response.status().is_success() => self.event.outcome = Outcome::Done,
            None => {
                self.event.outcome = Outcome::Failed;
                self.event.reason = Some(response.status().as_u16().to_string());
            }
        }
        details.complete(&mut self.event);
        self
    }

    fn settle(&mut self, code: ErrorCode) {
        self.event.outcome = match code {
            ErrorCode::Unauthenticated | ErrorCode::Denied | ErrorCode::PendingApproval => Outcome::Denied,
            // To a node what is absent and what is not its own look the same.
            ErrorCode::NotFound if self.event.action == Action::NodeFetch => Outcome::Denied,
            _ => Outcome::Failed,
        };
        self.event.reason = Some(code.as_str().to_owned());
    }
}

fn answer(error: Error, recorded: Result<(), AuditError>) -> Response {
    match recorded {
        Ok(()) => error.into_response(),
        Err(cause) => Error::from(cause).into_response(),
    }
}
