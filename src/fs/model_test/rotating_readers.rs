//! Threads that read while versions change under them.

use std::sync::Arc;
use std::time::Duration;

use secretfs_wire::{NodeId, VersionId};
use tokio::runtime::Handle as Runtime;

use super::super::test_manifest::{manifest, target};
use super::super::test_memory::{arena, freshness, handles};
use super::super::test_source::TestSource;
use super::super::*;
use crate::audit::test_auditor::{CALLER, TestAuditor};

const READERS: usize = 4;
const VERSIONS: u64 = 400;

/// As long as its number is high, and the same number all over.
fn value(version: u64) -> Vec<u8> {
    version.to_be_bytes().repeat(version as usize % 97 + 1)
}

#[test]
fn no_read_is_torn_and_no_reader_goes_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let source = TestSource::new();
    let cache = ValueCache::new(source.clone(), 1 << 20, arena(8 << 20), runtime.handle().clone());
    let freshness = Arc::new(freshness(DEFAULT_MAX_STALE));
    let key = InodeKey::for_node(NodeId::from_u64(1).expect("an id"));
    let layout = Layout::OneService("web".parse().expect("a name"));
    let fs = FileSystem::new(
        cache,
        freshness,
        TestAuditor::new(),
        handles(),
        key,
        layout,
        Duration::from_secs(600),
    );
    let publish = |version| {
        let bytes = value(version);
        source.put(VersionId::from_u64(version).expect("an id"), Ok(&bytes));
        fs.update(&Arc::new(manifest([("web", "db", target(version, bytes.len() as u32))])));
    };
    publish(1);
    std::thread::scope(|scope| {
        for chunk in 1..=READERS {
            let (fs, runtime) = (&fs, runtime.handle());
            scope.spawn(move || {
                let mut last = 0;
                while last < VERSIONS {
                    let version = read_once(fs, runtime, 7 * chunk as u32);
                    assert!(version >= last, "version {version} after {last}");
                    last = version;
                }
            });
        }
        for version in 2..=VERSIONS {
            publish(version);
            std::thread::yield_now();
        }
    });
    assert_eq!(fs.pinned(), 0);
}

/// Opens, reads to the end in chunks and closes. Returns the version that all of it was.
fn read_once(fs: &Arc<FileSystem>, runtime: &Runtime, chunk: u32) -> u64 {
    let inode = fs.lookup(Inode::ROOT, "db").expect("it is always there").inode;
    let handle = match fs
        .open(inode, Access::Read, RequestId { number: 2, repeated: false }, CALLER)
        .expect("it is always granted")
    {
        Opening::Ready(handle) => handle,
        Opening::Wait(handle) => runtime.block_on(handle).expect("it is always answered"),
    };
    let mut read = Vec::new();
    loop {
        let slice = fs.read(inode, handle, read.len() as u64, chunk).expect("it is pinned");
        if slice.expose_secret().is_empty() {
            break;
        }
        read.extend_from_slice(slice.expose_secret());
        std::thread::yield_now();
    }
    fs.release(inode, handle);
    let number = u64::from_be_bytes(read[..8].try_into().expect("8 bytes"));
    assert_eq!(read, value(number), "torn");
    number
}
