//! Values in memory: as few fetches as can be, and no cleartext longer than it is granted.

mod arena;
mod key;
mod left_behind;
mod rendering;
mod shelf;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt as _};
use secretfs_wire::manifest::{Content, Manifest};
use secretfs_wire::{SecretBytes, VersionId};
use tokio::runtime::Handle;

use self::arena::Full;
pub(crate) use self::arena::{Arena, Slice, Value};
pub(crate) use self::key::Key;
pub(crate) use self::left_behind::LeftBehind;
use self::shelf::Shelf;
pub(crate) use self::status::CacheStatus;
use self::status::Counters;
use crate::source::{SecretSource, SourceError, ValueRequest};

/// How many bytes of values are kept by default: 64 MiB.
pub(crate) const DEFAULT_CAPACITY: usize = 64 << 20;

/// How many bytes more than that an arena has at the least: for values that only open files still
/// hold, and for those that are on their way.
const SPARE: usize = 16 << 20;

/// How many values are fetched ahead at once: enough to be soon done, and far from a storm.
const AHEAD_AT_ONCE: usize = 4;

/// The fetched values of a node, by service, target and version.
///
/// A value is fetched once, however many wait for it, and the fetch ends even when all who waited
/// have gone, so that the next one finds it. Failures are not kept. Only what the last manifest
/// grants is kept: the rest is dropped, and so wiped when the last open file lets go of it. The values
/// themselves are in an [`Arena`], which outlives the cache if its process is killed. A clone is the
/// same cache.
#[derive(Clone)]
pub(crate) struct ValueCache {
    source: Arc<dyn SecretSource>,
    arena: Arc<Arena>,
    // Fetches run here. Opens come from threads that no runtime has entered.
    runtime: Handle,
    shared: Arc<Mutexed>,
}

// A std mutex: held for a few map accesses, never across an await. One for all, because the
// file system is served by one thread.
type Mutexed = Mutex<State>;

struct State {
    shelf: Shelf,
    flights: HashMap<Key, Flight>,
    granted: Arc<Manifest>,
    /// The manifest that is about to be granted, if its templates are rendered ahead of that.
    coming: Option<Arc<Manifest>>,
    /// The sizes of templates that have been rendered, also when the values had to make room.
    rendered: HashMap<Key, u32>,
    counters: Counters,
}

type Flight = Shared<BoxFuture<'static, Outcome>>;
type Outcome = Result<Arc<Value>, SourceError>;

impl ValueCache {
    /// How many words of memory the arena of a cache has that keeps up to `capacity` bytes.
    pub(crate) fn words_for(capacity: usize) -> usize {
        Arena::words_for(capacity.saturating_add(capacity.max(SPARE)))
    }

    /// A cache that keeps up to `capacity` bytes of values, in `arena`, and fetches on `runtime`.
    pub(crate) fn new(
        source: Arc<dyn SecretSource>,
        capacity: usize,
        arena: Arc<Arena>,
        runtime: Handle,
    ) -> Arc<Self> {
        let state = State {
            shelf: Shelf::new(capacity),
            flights: HashMap::new(),
            granted: Arc::default(),
            coming: None,
            rendered: HashMap::new(),
            counters: Counters::default(),
        };
        Arc::new(Self { source, arena, runtime, shared: Arc::new(Mutex::new(state)) })
    }

    /// The value, if it is here.
    pub(crate) fn get_ready(&self, request: &ValueRequest) -> Option<Arc<Value>> {
        let mut state = lock(&self.shared);
        let value = state.shelf.get(&Key::of(request))?;
        state.counters.hits += 1;
        Some(value)
    }

    /// A kept version that may not be the current one.
    pub(crate) fn get_version(&self, request: &ValueRequest, version: VersionId) -> Option<Arc<Value>> {
        let key = Key { version, ..Key::of(request) };
        lock(&self.shared).shelf.get(&key)
    }

    /// The value, fetched if it is not here.
    pub(crate) async fn get(&self, request: ValueRequest) -> Outcome {
        let flight = match self.board(request) {
            Ok(value) => return Ok(value),
            Err(flight) => flight,
        };
        flight.await
    }

    /// The value, or the flight that brings it.
    fn board(&self, request: ValueRequest) -> Result<Arc<Value>, Flight> {
        let mut state = lock(&self.shared);
        let found = self.find(&mut state, request);
        match &found {
            Ok(_) => state.counters.hits += 1,
            Err(_) => state.counters.misses += 1,
        }
        found
    }

    /// The value, or the flight that brings it, a new one if there is none. Not counted.
    fn find(&self, state: &mut State, request: ValueRequest) -> Result<Arc<Value>, Flight> {
        let key = Key::of(&request);
        if let Some(value) = state.shelf.get(&key) {
            return Ok(value);
        }
        let launch = || self.launch(key.clone(), request);
        Err(state.flights.entry(key.clone()).or_insert_with(launch).clone())
    }

    /// A task of its own, so that it lands even when all who waited have gone. It cannot land before
    /// it is on the list of flights: landing takes the lock that the caller holds.
    fn launch(&self, key: Key, request: ValueRequest) -> Flight {
        let size = request.details.size();
        let fetch = match &request.details.content {
            Content::Template(recipe) => self.render(&request, recipe.clone()),
            Content::Secret(_) => self.source.fetch(request),
        };
        let landing = Landing { key, arena: self.arena.clone(), shared: self.shared.clone() };
        let task = self.runtime.spawn(async move {
            let fetched = fetch.await.and_then(|value| check_size(value, size));
            // What was fetched is wiped at once: from here on the arena has the only copy.
            let outcome = fetched.and_then(|value| landing.keep(&value));
            landing.land(&outcome);
            // Off the list before anybody hears of it: who asks again gets another flight.
            drop(landing);
            outcome
        });
        let aborted = |_| Err(SourceError::Unreachable("the fetch was aborted".to_owned()));
        task.map(move |joined| joined.unwrap_or_else(aborted)).boxed().shared()
    }

    /// Drops what this manifest does not grant or no longer names as current, and from now on keeps
    /// only what it does. Of what was kept and has a new version, that is fetched ahead of its first
    /// reader.
    pub(crate) fn retain(self: &Arc<Self>, granted: &Arc<Manifest>) {
        let mut state = lock(&self.shared);
        state.granted = granted.clone();
        state.coming = None;
        state.rendered.retain(|key, _| key.is_granted(granted));
        let dropped = state.shelf.retain(|key| key.is_granted(granted));
        // Wiping is nothing to keep readers waiting for.
        drop(state);
        let renewed: Vec<_> = dropped.iter().filter_map(|(key, _)| key.renewed(granted)).collect();
        drop(dropped);
        if !renewed.is_empty() {
            self.runtime.spawn(Arc::clone(self).fetch_ahead(renewed));
        }
    }

    async fn fetch_ahead(self: Arc<Self>, requests: Vec<ValueRequest>) {
        let fetch = async |request: ValueRequest| {
            // What a template is made from is here already. If it fails, the next open asks again and says
            // why.
            let found = self.find(&mut lock(&self.shared), request);
            if let Err(flight) = found {
                let _ = flight.await;
            }
        };
        futures::stream::iter(requests).for_each_concurrent(AHEAD_AT_ONCE, fetch).await;
    }

    /// Drops everything, and keeps nothing until there is another manifest.
    pub(crate) fn clear(self: &Arc<Self>) {
        self.retain(&Arc::default());
    }

    /// Takes over values that a former worker left in the arena, as far as the last manifest grants
    /// them. The rest is dropped, and so wiped unless an open file holds it.
    pub(crate) fn adopt(&self, values: Vec<(Key, Arc<Value>)>) {
        let mut state = lock(&self.shared);
        let mut dropped = Vec::new();
        for (key, value) in values {
            if key.is_granted_with(&state.granted, value.len()) {
                dropped.extend(state.keep(key, value));
            } else {
                dropped.push(value);
            }
        }
        drop(state);
        drop(dropped);
    }

    /// The last manifest that it was told to retain.
    pub(crate) fn granted(&self) -> Arc<Manifest> {
        lock(&self.shared).granted.clone()
    }

    /// What `node status` shows.
    pub(crate) fn status(&self) -> CacheStatus {
        let state = lock(&self.shared);
        state.counters.status(&state.shelf)
    }
}

impl State {
    fn manifests(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        [&self.granted].into_iter().chain(&self.coming)
    }

    fn grants(&self, key: &Key) -> bool {
        self.manifests().any(|manifest| key.is_granted(manifest))
    }

    /// Puts a value onto the shelf. Returns what had to go.
    fn keep(&mut self, key: Key, value: Arc<Value>) -> Vec<Arc<Value>> {
        if self.manifests().any(|manifest| key.is_rendered(manifest)) {
            self.rendered.insert(key.clone(), value.len() as u32);
        }
        self.shelf.put(key, value)
    }
}

/// Takes its flight off the list when it is dropped, also when the flight was aborted or panicked:
/// the key must not stay taken.
struct Landing {
    key: Key,
    arena: Arc<Arena>,
    shared: Arc<Mutexed>,
}

impl Landing {
    /// Puts a value into the arena. If need be, others make room that were longest not used and that
    /// no open file holds.
    fn keep(&self, value: &SecretBytes) -> Outcome {
        loop {
            match self.arena.keep(&self.key, value) {
                Ok(value) => return Ok(Arc::new(value)),
                Err(Full) => {
                    let gone = lock(&self.shared).shelf.make_room();
                    // Wiped here, where no lock is held.
                    drop(gone.ok_or(SourceError::NoRoom)?);
                }
            }
        }
    }

    fn land(&self, outcome: &Outcome) {
        let mut state = lock(&self.shared);
        let dropped = match outcome {
            // What was revoked while it was on its way is given to who asked, and not kept.
            Ok(value) if state.grants(&self.key) => state.keep(self.key.clone(), value.clone()),
            Ok(_) => Vec::new(),
            Err(error) => {
                state.counters.failed(error.clone());
                Vec::new()
            }
        };
        drop(state);
        drop(dropped);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.shared).flights.remove(&self.key);
    }
}

/// A size that differs from what `stat` showed would be read short or past its end. Of a template
/// nothing was promised.
fn check_size(value: SecretBytes, promised: Option<u32>) -> Result<SecretBytes, SourceError> {
    let got = value.len();
    match promised {
        Some(promised) if promised as usize != got => {
            Err(SourceError::Inconsistent(format!("{got} bytes came where {promised} were promised")))
        }
        _ => Ok(value),
    }
}

/// No half-done state is visible between two statements, so a poisoned lock is as good as any.
fn lock(shared: &Mutexed) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
