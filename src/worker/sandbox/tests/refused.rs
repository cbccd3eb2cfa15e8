//! What a worker that has been taken over tries, and what it is answered.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::{io, ptr};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use rustix::process::{DumpableBehavior, Signal, getppid, kill_process, set_dumpable_behavior};

use super::{enter, manager};

pub(super) fn is_refused(directory: &Path) {
    let other_port = manager::port(directory, "other-port");
    let service = super::socket(directory);
    let _listener = UnixListener::bind(&service).expect("a service of the machine");
    let parent = getppid().expect("a parent");
    let manager_port = manager::port(directory, "port");
    let enforced = enter(manager_port);

    if enforced.landlock.is_some() {
        for path in ["/etc/shadow".as_ref(), "/etc/passwd".as_ref(), directory, &directory.join("key")] {
            denied(File::open(path));
        }
        File::open("/etc/hosts").expect("names are resolved with it");
    }
    if enforced.landlock >= Some(4) {
        denied(TcpStream::connect((Ipv4Addr::LOCALHOST, other_port)));
    }
    TcpStream::connect((Ipv4Addr::LOCALHOST, manager_port)).expect("the manager");

    // Each of these would pass Landlock.
    missing(File::create(directory.join("new")));
    missing(File::options().write(true).open("/dev/null"));
    missing(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    missing(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    missing(UnixStream::connect(service));
    missing(Command::new("/bin/true").spawn());
    missing(kill_process(parent, Signal::CONT));
    missing(set_dumpable_behavior(DumpableBehavior::Dumpable));
    missing(socket(AddressFamily::PACKET, SocketType::RAW, None));
    missing(socket(AddressFamily::NETLINK, SocketType::RAW, None));
    missing(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)));
    missing(socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP)));
    past_connect(other_port);
    executable_memory();
}

/// A connection that begins with its first bytes does not pass Landlock's check of connections.
fn past_connect(port: u16) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let fast_open = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
    missing(sendto(&socket, b"bytes", fast_open, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)));
}

#[allow(unsafe_code, reason = "asks for memory, which nothing reads, writes or executes")]
fn executable_memory() {
    let access = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: the kernel would choose a place that nothing else uses.
    missing(unsafe { mmap_anonymous(ptr::null_mut(), 4096, access, MapFlags::PRIVATE) });
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: as above.
    let memory = unsafe { mmap_anonymous(ptr::null_mut(), 4096, access, MapFlags::PRIVATE) };
    let memory = memory.expect("a page");
    // SAFETY: the page is ours alone and stays mapped.
    missing(unsafe { mprotect(memory, 4096, MprotectFlags::READ | MprotectFlags::EXEC) });
}

/// Landlock's answer.
#[track_caller]
fn denied<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.expect_err("denied").kind(), io::ErrorKind::PermissionDenied);
}

/// The filter's answer.
#[track_caller]
fn missing<T, E: Into<io::Error>>(result: Result<T, E>) {
    let error = result.err().expect("the call is not there").into();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
}
