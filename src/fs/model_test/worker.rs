//! A worker, and the memory that outlives it.

use std::sync::Arc;
use std::time::Duration;

use secretfs_wire::NodeId;
use secretfs_wire::manifest::Manifest;
use tokio::runtime::Handle as Runtime;

use super::super::test_source::TestSource;
use super::super::*;
use crate::audit::test_auditor::TestAuditor;
use crate::cache::{Arena, LeftBehind};
use crate::host::shared_memory::Words;

/// As much as all workers share.
pub(super) struct Memory {
    values: Words,
    handles: Words,
    outage: Words,
}

/// What dies with a worker.
pub(super) struct Worker {
    pub(super) fs: Arc<FileSystem>,
    pub(super) cache: Arc<ValueCache>,
    pub(super) arena: Arc<Arena>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let memory = |words| Words::private(words).expect("memory");
        Self {
            values: memory(Arena::words_for(1 << 20)),
            handles: memory(Handles::words()),
            outage: memory(Freshness::WORDS),
        }
    }
}

impl Worker {
    /// A standby that knows this manifest.
    pub(super) fn prepare(
        memory: &Memory,
        source: &Arc<TestSource>,
        runtime: &Runtime,
        manifest: &Arc<Manifest>,
    ) -> Self {
        let arena = Arena::over(memory.values.clone());
        let cache = ValueCache::new(source.clone(), 1 << 20, arena.clone(), runtime.clone());
        let patience = Duration::from_secs(600);
        let freshness = Arc::new(Freshness::over(memory.outage.clone(), patience));
        freshness.begin();
        let key = InodeKey::for_node(NodeId::from_u64(1).expect("an id"));
        let handles = Handles::over(memory.handles.clone());
        let fs = FileSystem::new(
            cache.clone(),
            freshness,
            TestAuditor::new(),
            handles,
            key,
            Layout::AllServices,
            patience,
        );
        fs.update(manifest);
        Self { fs, cache, arena }
    }

    /// It takes over what is in the memory.
    pub(super) fn take_over(&self) {
        let left_behind = LeftBehind::in_arena(&self.arena);
        self.fs.adopt(|entry, version| left_behind.find(entry, version));
        self.cache.adopt(left_behind.into_values());
    }
}
