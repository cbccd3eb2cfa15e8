//! The limits around a request: what its caller may not ask for now is answered before anything is
//! looked up, but for an identity that has to be.

use std::net::IpAddr;

use http::StatusCode;
use secretfs_wire::Action;

use crate::app::App;
use crate::authn::Identity;
use crate::ca::{PeerCertificate, Subject};
use crate::error::Error;
use crate::limits::{Limit, Limited};

/// Which limits concern a request.
pub(super) struct Limiting<'a> {
    app: &'a App,
    peer: Option<&'a PeerCertificate>,
    /// Missing only where there is no listener, in tests.
    address: Option<IpAddr>,
    /// Whether it is a try of somebody who has no identity yet.
    enrols: bool,
}

impl<'a> Limiting<'a> {
    pub(super) fn of(
        app: &'a App,
        action: Action,
        peer: Option<&'a PeerCertificate>,
        address: Option<IpAddr>,
    ) -> Self {
        Self { app, peer, address, enrols: matches!(action, Action::NodeJoin | Action::OperatorLogin) }
    }

    /// Counts the request, or refuses it.
    pub(super) fn admit(&self) -> Result<(), Error> {
        if let Some(peer) = self.peer
            && let Err((limit, wait)) = self.app.limits.request(&peer.subject)
        {
            return Err(self.app.refuse(limit, Limited::Subject(peer.subject.clone()), wait));
        }
        if self.enrols {
            return self.may_try(Limit::Enrolment);
        }
        Ok(())
    }

    /// Counts a refusal of somebody who has not shown who they are. After too many they are only told to
    /// wait, which is neither logged nor recorded one by one: nobody fills a disk with it.
    ///
    /// A node always hears that it is shut out: it then wipes what it has, and its neighbours' failures
    /// must not keep that from it.
    pub(super) fn refuse(&self, identity: Option<&Identity>, error: Error) -> Result<Error, Error> {
        let is_node = self.peer.is_some_and(|peer| matches!(peer.subject, Subject::Node { .. }));
        let is_unknown =
            matches!(error, Error::Unauthenticated(_)) || matches!(identity, Some(Identity::Anonymous));
        if is_node || !is_unknown {
            return Ok(error);
        }
        self.may_try(Limit::Authentication)?;
        self.failed(Limit::Authentication);
        Ok(error)
    }

    /// Whom the caller's certificate names, honoured or not.
    pub(super) fn claimed(&self) -> Option<&Subject> {
        self.peer.map(|peer| &peer.subject)
    }

    /// How the request was answered.
    pub(super) fn answered(&self, status: StatusCode) {
        if self.enrols && status.is_client_error() {
            self.failed(Limit::Enrolment);
        }
    }

    fn may_try(&self, limit: Limit) -> Result<(), Error> {
        match self.address.and_then(|address| Some((address, self.app.limits.wait(limit, address)?))) {
            Some((address, wait)) => Err(self.app.refuse(limit, Limited::at(address), wait)),
            None => Ok(()),
        }
    }

    fn failed(&self, limit: Limit) {
        if let Some(address) = self.address {
            self.app.limits.failed(limit, address);
        }
    }
}
