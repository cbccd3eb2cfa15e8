use secretfs_wire::api::TemplateDetails;
use secretfs_wire::template::Template;
use secretfs_wire::{EnvironmentName, Ownership, ServiceName, TargetName};

use super::{App, now};
use crate::error::Error;
use crate::store::{NewTemplate, StoreError};

impl App {
    pub(crate) async fn template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<TemplateDetails, Error> {
        Ok(self.store.template(environment, service, target).await?)
    }

    pub(crate) async fn set_template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        target: &TargetName,
        text: &str,
        ownership: Ownership,
    ) -> Result<TemplateDetails, Error> {
        let template = Template::parse(text).map_err(|error| Error::Invalid(error.to_string()))?;
        let new = NewTemplate { target, template: &template, ownership };
        let set = self.store.set_template(environment, service, new, now()).await;
        let set = set.map_err(|error| match error {
            StoreError::InputMissing { input } => Error::Invalid(template.missing(&input).to_string()),
            error => error.into(),
        })?;
        self.changes.announce(environment);
        Ok(set)
    }

    pub(crate) async fn remove_template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<(), Error> {
        self.store.remove_template(environment, service, target).await?;
        self.changes.announce(environment);
        Ok(())
    }
}
