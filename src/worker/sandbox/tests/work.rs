//! What a worker does, from its descriptors to its calls to the manager.

use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::ToSocketAddrs as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use rustix::io::DupFlags;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair,
};
use secretfs_wire::api::ErrorCode;
use tokio::signal::unix::{SignalKind, signal};

use super::{enter, manager, socket};
use crate::client::ClientError;
use crate::host::shared_memory::{self, Words};

/// Opened by the holder, outside.
struct Inherited {
    listener: UnixListener,
    control: UnixStream,
}

pub(super) fn does_its_work(directory: &Path) {
    let (control, holder) = UnixStream::pair().expect("a pair");
    let inherited = Inherited { listener: UnixListener::bind(socket(directory)).expect("a socket"), control };
    let path = socket(directory);
    let outside = thread::spawn(move || {
        let mut message = [0; 4];
        (&holder).read_exact(&mut message).expect("a message of the worker");
        let mut client = UnixStream::connect(path).expect("somebody who asks for the status");
        client.read_exact(&mut message).expect("an answer");
        message
    });
    let client = manager::client(directory);
    enter(manager::port(directory, "port"));

    shares_memory_with_the_holder(&inherited.control);
    swaps_a_descriptor();
    resolves_names();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime of several threads");
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("a handler");
        let interrupted = tokio::time::timeout(Duration::from_millis(1), terminate.recv());
        assert!(interrupted.await.is_err());
        let refused = client.open_session().await.expect_err("this manager refuses");
        assert_eq!(refused.code(), Some(ErrorCode::Denied), "{refused}");
        assert!(matches!(refused, ClientError::Refused(_)));

        inherited.listener.set_nonblocking(true).expect("a flag");
        let listener = tokio::net::UnixListener::from_std(inherited.listener).expect("a listener");
        let (stream, _) = listener.accept().await.expect("a client");
        stream.peer_cred().expect("the client's uid");
        stream.writable().await.expect("a client that waits");
        stream.try_write(b"fine").expect("an answer");
    });
    assert_eq!(&outside.join().expect("the holder"), b"fine");
}

fn shares_memory_with_the_holder(control: &UnixStream) {
    let memory = shared_memory::create("worker", 512).expect("memory");
    let words = Words::map(memory.as_fd(), 512).expect("a mapping");
    words[0].store(1, Relaxed);
    shared_memory::create_secret(512).expect("secret memory");
    let large = thread::spawn(|| vec![1_u8; 1 << 20]).join().expect("memory of a thread");
    assert_eq!(large.len(), 1 << 20);

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let descriptors = [memory.as_fd()];
    assert!(rights.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(control, &[IoSlice::new(b"here")], &mut rights, SendFlags::empty());
    assert_eq!(sent, Ok(4));
}

/// As a session that begins with a made-up INIT does.
fn swaps_a_descriptor() {
    let pair = || {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair")
    };
    let (_, mut begun): (_, OwnedFd) = pair();
    let (mut writer, real) = pair();
    rustix::io::dup3(&real, &mut begun, DupFlags::CLOEXEC).expect("one in the other's place");
    rustix::io::write(&mut writer, b"request").expect("a request");
    let mut request = [0; 16];
    let (length, _) = recv(&begun, &mut request[..], RecvFlags::empty()).expect("a request");
    assert_eq!(&request[..length], b"request");
}

fn resolves_names() {
    let addresses: Vec<_> = ("localhost", 1).to_socket_addrs().expect("an address").collect();
    assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
    std::io::stderr().write_all(b"").expect("the log");
}
