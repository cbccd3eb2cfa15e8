use secretfs_wire::api::{Assignment, Attach, Attachment, Service, ServiceDetails};
use secretfs_wire::{EnvironmentName, SecretName, ServiceName, TargetName};

use super::{App, now};
use crate::error::Error;

impl App {
    pub(crate) async fn services(&self, environment: &EnvironmentName) -> Result<Vec<Service>, Error> {
        Ok(self.store.services(environment).await?)
    }

    pub(crate) async fn service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<ServiceDetails, Error> {
        Ok(self.store.service(environment, name).await?)
    }

    pub(crate) async fn create_service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<Service, Error> {
        // No stream is told: a new service runs nowhere.
        Ok(self.store.create_service(environment, name, now()).await?)
    }

    pub(crate) async fn remove_service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<(), Error> {
        self.store.remove_service(environment, name).await?;
        self.changes.announce(environment);
        Ok(())
    }

    pub(crate) async fn attach(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        asked: Attach,
    ) -> Result<Attachment, Error> {
        let target = asked.target.clone().unwrap_or_else(|| TargetName::from(asked.secret.clone()));
        let Attach { secret, ownership, audit, .. } = asked;
        let attachment = Attachment { target, secret, ownership, audit };
        self.store.attach(environment, service, &attachment, now()).await?;
        self.changes.announce(environment);
        Ok(attachment)
    }

    pub(crate) async fn detach(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        secret: &SecretName,
        target: Option<&TargetName>,
    ) -> Result<(), Error> {
        self.store.detach(environment, service, secret, target).await?;
        self.changes.announce(environment);
        Ok(())
    }

    /// Whether the assignment is new.
    pub(crate) async fn assign(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<bool, Error> {
        let new = self.store.assign(environment, service, assignment).await?;
        self.changes.announce(environment);
        Ok(new)
    }

    pub(crate) async fn unassign(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<(), Error> {
        self.store.unassign(environment, service, assignment).await?;
        self.changes.announce(environment);
        Ok(())
    }
}
