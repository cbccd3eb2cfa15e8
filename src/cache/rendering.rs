//! Templates: values that are made here, from others in the cache.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt as _, StreamExt as _, stream};
use secretfs_wire::SecretBytes;
use secretfs_wire::manifest::{Content, Manifest, Recipe};

use super::{Key, ValueCache, lock};
use crate::source::{SourceError, ValueRequest};

/// How many templates are rendered at once ahead of their first open. Each may fetch.
const AT_ONCE: usize = 8;

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

    /// Renders the templates of a manifest that is about to be shown, so that their sizes are known by
    /// then. From now on what it grants is kept too. Ends when each has been rendered or has failed, and
    /// in any case after `most`; what has been begun goes on.
    pub(crate) async fn prepare(&self, coming: &Arc<Manifest>, most: Duration) {
        let unrendered = self.expect(coming);
        let all = stream::iter(unrendered)
            .map(|request| async {
                // Who opens it is told why it failed.
                let _ = self.get(request).await;
            })
            .buffer_unordered(AT_ONCE)
            .collect::<()>();
        let _ = tokio::time::timeout(most, all).await;
    }

    /// Keeps what a manifest grants from now on. Tells which of its templates have not been rendered.
    fn expect(&self, coming: &Arc<Manifest>) -> Vec<ValueRequest> {
        let mut state = lock(&self.shared);
        state.coming = Some(coming.clone());
        let templates = coming.services.iter().flat_map(|(service, targets)| {
            let templates = targets.iter().filter(|(_, details)| is_template(&details.content));
            templates.map(move |(target, details)| ValueRequest {
                service: service.clone(),
                target: target.clone(),
                details: details.clone(),
            })
        });
        templates.filter(|request| !state.rendered.contains_key(&Key::of(request))).collect()
    }
}

const fn is_template(content: &Content) -> bool {
    matches!(content, Content::Template(_))
}

#[cfg(test)]
mod tests {
    use secretfs_wire::manifest::Target;
    use tokio::runtime::Handle;

    use super::*;
    use crate::cache::{Arena, LeftBehind};
    use crate::fs::test_manifest::{manifest, target, template};
    use crate::fs::test_memory::arena;
    use crate::fs::test_source::TestSource;
    use crate::host::shared_memory::Words;

    const NEVER: Duration = Duration::from_secs(600);

    fn request(target: &str, details: &Target) -> ValueRequest {
        let (service, target) = ("web".parse().expect("a name"), target.parse().expect("a name"));
        ValueRequest { service, target, details: details.clone() }
    }

    /// `key` with this version and value, and `conf` that is made from it.
    fn publish(source: &TestSource, version: u64, value: &[u8]) -> (Arc<Manifest>, [ValueRequest; 2]) {
        let key = target(version, value.len() as u32);
        source.put(key.version_id, Ok(value));
        let conf = template("k={{ secrets.key | trim }}\n", [("key", key.clone())]);
        let requests = [request("key", &key), request("conf", &conf)];
        (Arc::new(manifest([("web", "key", key), ("web", "conf", conf)])), requests)
    }

    fn cache(source: &Arc<TestSource>, capacity: usize) -> Arc<ValueCache> {
        ValueCache::new(source.clone(), capacity, arena(1 << 20), Handle::current())
    }

    async fn read(cache: &ValueCache, request: &ValueRequest) -> Vec<u8> {
        let value = cache.get(request.clone()).await.expect("a value");
        value.secret().expect("a secret").expose_secret().to_vec()
    }

    #[tokio::test]
    async fn a_template_is_made_once_from_values_that_are_fetched_once() {
        let source = TestSource::new();
        let cache = cache(&source, 1000);
        let (manifest, [key, conf]) = publish(&source, 1, b" value ");
        cache.retain(&manifest);
        assert_eq!((cache.size(&key), cache.size(&conf)), (Some(7), None));
        let (first, second) = tokio::join!(read(&cache, &conf), read(&cache, &conf));
        assert_eq!((first.as_slice(), second.as_slice()), (&b"k=value\n"[..], &b"k=value\n"[..]));
        assert_eq!(cache.size(&conf), Some(8));
        assert!(cache.get_ready(&conf).is_some() && cache.get_ready(&key).is_some());
        assert_eq!(source.asked().len(), 1);

        let (rotated, [_, renewed]) = publish(&source, 2, b"another");
        assert_ne!(conf.details.version_id, renewed.details.version_id);
        cache.retain(&rotated);
        assert!(cache.get_ready(&conf).is_none() && cache.size(&conf).is_none(), "the old one is gone");
        assert_eq!(read(&cache, &renewed).await, b"k=another\n");
    }

    #[tokio::test]
    async fn a_value_that_is_no_text_fails_its_template_and_nothing_else() {
        let source = TestSource::new();
        let cache = cache(&source, 1000);
        let (manifest, [key, conf]) = publish(&source, 1, b"canary\xff");
        cache.retain(&manifest);
        let error = cache.get(conf.clone()).await.expect_err("no text");
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("web/conf") && shown.contains("UTF-8") && !shown.contains("canary"),
            "{shown}"
        );
        assert_eq!(read(&cache, &key).await, b"canary\xff");
        assert_eq!(cache.size(&conf), None);
    }

    #[tokio::test]
    async fn why_an_input_is_not_there_is_why_the_template_is_not() {
        let source = TestSource::new();
        let cache = cache(&source, 1000);
        let (manifest, [key, conf]) = publish(&source, 1, b"value");
        cache.retain(&manifest);
        for error in [SourceError::Superseded, SourceError::Refused] {
            source.put(key.details.version_id, Err(error.clone()));
            assert_eq!(cache.get(conf.clone()).await.expect_err("not there"), error);
        }
    }

    #[tokio::test]
    async fn its_size_is_known_also_when_it_had_to_make_room() {
        let source = TestSource::new();
        // For one of the two.
        let cache = cache(&source, 12);
        let (manifest, [key, conf]) = publish(&source, 1, b"value");
        cache.retain(&manifest);
        read(&cache, &conf).await;
        read(&cache, &key).await;
        assert!(cache.get_ready(&conf).is_none());
        assert_eq!(cache.size(&conf), Some(8));
        cache.retain(&Arc::default());
        assert_eq!(cache.size(&conf), None);
    }

    #[tokio::test]
    async fn what_is_coming_is_there_when_it_is_granted() {
        let source = TestSource::new();
        let cache = cache(&source, 1000);
        let (manifest, [_, conf]) = publish(&source, 1, b"value");
        cache.prepare(&manifest, NEVER).await;
        assert_eq!(cache.size(&conf), Some(8));
        cache.retain(&manifest);
        assert!(cache.get_ready(&conf).is_some());
        cache.prepare(&manifest, NEVER).await;
        assert_eq!(source.asked().len(), 1, "nothing is left to be done");

        // What was to come and did not is not kept.
        let (other, [_, conf]) = publish(&source, 2, b"another");
        cache.prepare(&other, NEVER).await;
        cache.retain(&manifest);
        assert!(cache.get_ready(&conf).is_none() && cache.size(&conf).is_none());
        read(&cache, &conf).await;
        assert!(cache.get_ready(&conf).is_none(), "it is not granted");
    }

    #[tokio::test]
    async fn preparing_ends_in_time() {
        let source = TestSource::new();
        source.shut_gate();
        let cache = cache(&source, 1000);
        let (manifest, _) = publish(&source, 1, b"value");
        cache.prepare(&manifest, Duration::from_millis(10)).await;
        assert_eq!(source.asked().len(), 1);
    }

    #[tokio::test]
    async fn the_next_worker_adopts_what_a_former_one_rendered() {
        let source = TestSource::new();
        let memory = Words::private(Arena::words_for(1 << 20)).expect("memory");
        let former = Arena::over(memory.clone());
        let former = ValueCache::new(source.clone(), 1000, former, Handle::current());
        let (manifest, [_, conf]) = publish(&source, 1, b"value");
        former.retain(&manifest);
        // As a kill leaves it: nothing is dropped.
        std::mem::forget(former.get(conf.clone()).await);
        std::mem::forget(former);

        let arena = Arena::over(memory);
        let next = ValueCache::new(source.clone(), 1000, arena.clone(), Handle::current());
        next.retain(&manifest);
        assert_eq!(next.size(&conf), None);
        next.adopt(LeftBehind::in_arena(&arena).into_values());
        assert_eq!((next.size(&conf), source.asked().len()), (Some(8), 1));
        assert_eq!(read(&next, &conf).await, b"k=value\n");
        assert_eq!(source.asked().len(), 1);
    }
}
