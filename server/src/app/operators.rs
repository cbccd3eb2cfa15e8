use secretfs_wire::api::{
    AddOperator, CreatedEnrolment, Enroll, LoggedIn, LoginRequest, Operator, RemovedOperator, RenewRequest,
    Renewed,
};
use secretfs_wire::{CaPin, EnrolmentToken, EnvironmentName, Grant, OperatorId, OperatorName, TokenSecret};

use super::{App, expiry, now};
use crate::ca::CertificateRequest;
use crate::config::Config;
use crate::error::Error;
use crate::store::{NewEnrolment, NewOperator, StoreError};

impl App {
    /// Within a scope those who have a role that counts there.
    pub(crate) async fn operators(&self, scope: Option<&EnvironmentName>) -> Result<Vec<Operator>, Error> {
        Ok(self.store.operators(scope, now()).await?)
    }

    pub(crate) async fn operator(&self, name: &OperatorName) -> Result<Operator, Error> {
        Ok(self.store.operator(name, now()).await?)
    }

    /// Adds an operator who has roles where the scope says, and a token to log in with. Without a role they
    /// can do what a policy gives them by their name.
    pub(crate) async fn add_operator(
        &self,
        name: OperatorName,
        scope: Option<EnvironmentName>,
        asked: AddOperator,
    ) -> Result<CreatedEnrolment, Error> {
        if asked.roles.is_empty() && scope.is_some() {
            return Err(Error::Invalid(
                "an operator of an environment has at least one role there".to_owned(),
            ));
        }
        self.require_unnamed(&name, scope.as_ref())?;
        let (token, enrolment) = draw_enrolment(self.authority.pin(), asked.ttl_seconds, scope.clone())?;
        let grants = asked.roles.into_iter().map(|role| Grant { role, environment: scope.clone() });
        let created = shown_once(&self.config, &name, &token, &enrolment);
        let new = NewOperator {
            name,
            id: OperatorId::random(),
            grants: grants.collect(),
            scope,
            created: now(),
            certificate_expires: None,
            enrolment: Some(enrolment),
        };
        self.store.add_operator(new).await?;
        Ok(created)
    }

    pub(crate) async fn enroll_operator(
        &self,
        name: &OperatorName,
        scope: Option<EnvironmentName>,
        asked: &Enroll,
    ) -> Result<CreatedEnrolment, Error> {
        self.require_unnamed(name, scope.as_ref())?;
        let (token, enrolment) = draw_enrolment(self.authority.pin(), asked.ttl_seconds, scope)?;
        let created = shown_once(&self.config, name, &token, &enrolment);
        self.store.enroll(name, enrolment, now()).await?;
        Ok(created)
    }

    pub(crate) async fn cancel_enrolment(
        &self,
        name: &OperatorName,
        scope: Option<&EnvironmentName>,
    ) -> Result<(), Error> {
        Ok(self.store.cancel_enrolment(name, scope, now()).await?)
    }

    /// Whoever is enrolled under a name that a policy speaks of gets what the policy gives, anywhere: that is
    /// not for a single environment to decide.
    fn require_unnamed(&self, name: &OperatorName, scope: Option<&EnvironmentName>) -> Result<(), Error> {
        match scope.and_then(|_| self.authorizer.policy_that_names(name)) {
            Some(policy) => Err(Error::NamedByPolicy { name: name.clone(), policy }),
            None => Ok(()),
        }
    }

    pub(crate) async fn remove_operator(
        &self,
        name: OperatorName,
        scope: Option<&EnvironmentName>,
    ) -> Result<RemovedOperator, Error> {
        let withdrawn_tokens = self.store.remove_operator(&name, scope, now()).await?;
        Ok(RemovedOperator { operator: name, withdrawn_tokens })
    }

    pub(crate) async fn grant_role(&self, name: &OperatorName, grant: &Grant) -> Result<Operator, Error> {
        Ok(self.store.grant(name, grant, now()).await?)
    }

    pub(crate) async fn ungrant_role(&self, name: &OperatorName, grant: &Grant) -> Result<Operator, Error> {
        Ok(self.store.ungrant(name, grant, now()).await?)
    }

    /// Lets somebody in as the operator whose token it is. What was sent is checked before the token is
    /// used up, and that happens in the transaction that makes the certificate's id the operator's.
    pub(crate) async fn log_in(&self, asked: LoginRequest) -> Result<LoggedIn, Error> {
        let secret: TokenSecret = asked.token.parse().map_err(|_| StoreError::TokenRefused)?;
        let request = CertificateRequest::from_pem(&asked.certificate_request)?;
        let (now, digest, id) = (now(), secret.digest(), OperatorId::random());
        let name = self.store.enrolled(&digest, now).await?;
        let lifetime = self.config.operator_certificate_lifetime;
        let (certificate, expires) =
            self.authority.issue_operator(&name, Some(id), &request, now, lifetime)?;
        let operator = self.store.log_in(&digest, id, expires, now).await?;
        tracing::info!(operator = %operator.name, "an operator has logged in");
        Ok(LoggedIn { operator, certificate })
    }

    /// Makes out a certificate for an operator's next key. The one before stays good to its end: another
    /// command may just be using it.
    pub(crate) async fn renew_operator(
        &self,
        name: &OperatorName,
        id: Option<OperatorId>,
        asked: &RenewRequest,
    ) -> Result<Renewed, Error> {
        let request = CertificateRequest::from_pem(&asked.certificate_request)?;
        let lifetime = self.config.operator_certificate_lifetime;
        let (certificate, expires) = self.authority.issue_operator(name, id, &request, now(), lifetime)?;
        self.store.operator_renewed(name, id, expires).await?;
        Ok(Renewed { certificate })
    }
}

/// What is told of a token, once.
pub(crate) fn shown_once(
    config: &Config,
    name: &OperatorName,
    token: &EnrolmentToken,
    enrolment: &NewEnrolment,
) -> CreatedEnrolment {
    CreatedEnrolment {
        operator: name.clone(),
        token: token.expose_text().as_str().to_owned(),
        expires: enrolment.expires,
        manager: config.url.as_str().trim_end_matches('/').to_owned(),
    }
}

/// Draws an enrolment token, and what is remembered of it.
pub(crate) fn draw_enrolment(
    pin: CaPin,
    ttl_seconds: u64,
    scope: Option<EnvironmentName>,
) -> Result<(EnrolmentToken, NewEnrolment), Error> {
    let expires = expiry(now(), ttl_seconds)?;
    let token = EnrolmentToken { secret: TokenSecret::random(), pin };
    let enrolment = NewEnrolment { digest: token.secret.digest(), scope, expires };
    Ok((token, enrolment))
}
