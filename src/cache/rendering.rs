//! Templates: values that are made here, from others in the cache.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use secretfs_wire::SecretBytes;
use secretfs_wire::manifest::Recipe;

use super::{Key, ValueCache, lock};
use crate::source::{SourceError, ValueRequest};

impl ValueCache {
    /// Makes the value of a template. What it is made from comes through the cache, so it is fetched
    /// once, whoever else asks for it.
    pub(super) fn render(
        &self,
        request: &ValueRequest,
        recipe: Arc<Recipe>,
    ) -> BoxFuture<'static, Result<SecretBytes, SourceError>> {
        let cache = self.clone();
        let (service, target) = (request.service.clone(), request.target.clone());
        async move {
            let inputs = recipe.inputs.iter().map(|(target, details)| {
                let (target, details) = (target.clone(), details.clone());
                let input = ValueRequest { service: service.clone(), target: target.clone(), details };
                let cache = &cache;
                async move {
                    let value = cache.get(input).await?;
                    let value = value.secret().ok_or(SourceError::NoRoom)?;
                    Ok::<_, SourceError>((target, value))
                }
            });
            let values = try_join_all(inputs).await?.into_iter().collect();
            recipe.template.render(values).map_err(|error| SourceError::Unrendered {
                entry: format!("{service}/{target}"),
                reason: error.to_string(),
            })
        }
        .boxed()
    }

    /// How many bytes a value has. Of a template, nothing until it has been rendered once.
    pub(crate) fn size(&self, request: &ValueRequest) -> Option<u32> {
        request.details.size().or_else(|| lock(&self.shared).rendered.get(&Key::of(request)).copied())
    }
}
