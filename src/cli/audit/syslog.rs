//! Records as syslog has them (RFC 5424), and where they go: lines, datagrams, or a stream with lengths
//! (RFC 6587).

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use secretfs_wire::audit::{Outcome, Record};
use url::Url;

/// The facility "log audit".
const FACILITY: u8 = 13;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A record as one message. What it says is the record itself, as JSON.
pub(super) fn message(record: &Record, text: &str, host: &str) -> String {
    let severity = match record.event.outcome {
        Outcome::Failed => 3,
        Outcome::Denied => 4,
        Outcome::Done => 5,
        Outcome::Begun => 6,
    };
    let priority = FACILITY * 8 + severity;
    // `-` is for what is not there: the process, and structured data.
    format!("<{priority}>1 {} {host} secretfs - {} - {text}", record.time, record.event.action)
}

/// A receiver of messages.
pub(super) enum Receiver {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Receiver {
    /// Connects to `tcp://HOST:PORT`, `udp://HOST:PORT` or `unix:///PATH`.
    pub(super) fn connect(url: &Url) -> io::Result<Self> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "it is not tcp://, udp:// or unix://");
        let address = |default| {
            let host = url.host_str().ok_or_else(unknown)?;
            let port = url.port().unwrap_or(default);
            let mut found = (host.trim_matches(['[', ']']), port).to_socket_addrs()?;
            found.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        match url.scheme() {
            "tcp" => {
                let stream = TcpStream::connect_timeout(&address(601)?, TIMEOUT)?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Ok(Self::Tcp(stream))
            }
            "udp" => {
                let address = address(514)?;
                let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            "unix" => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(url.path())?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Ok(Self::Unix(socket))
            }
            _ => Err(unknown()),
        }
    }

    /// Sends one.
    pub(super) fn send(&mut self, message: &str) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(format!("{} {message}", message.len()).as_bytes()),
            Self::Udp(socket) => socket.send(message.as_bytes()).map(drop),
            Self::Unix(socket) => socket.send(message.as_bytes()).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use secretfs_wire::audit::{Actor, Event};
    use secretfs_wire::{Action, ChainId};

    use super::*;

    #[test]
    fn a_record_is_one_message() {
        let event = Event::new(Action::SecretRotate, Outcome::Denied, Actor::Manager);
        let time = "2026-11-25T08:00:00.123456Z".parse().unwrap();
        let record = Record {
            chain: ChainId::random(),
            sequence: 7,
            time,
            previous: None,
            event,
            key: None,
            follows: None,
        };
        let message = message(&record, "{}", "manager.example");
        assert_eq!(
            message,
            "<108>1 2026-11-25T08:00:00.123456Z manager.example secretfs - secret.rotate - {}"
        );
    }

    #[test]
    fn a_stream_has_lengths_and_a_datagram_is_one_message() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut receiver = Receiver::connect(&url).unwrap();
        receiver.send("<1>a").unwrap();
        receiver.send("<1>bc").unwrap();
        drop(receiver);
        let mut heard = String::new();
        io::Read::read_to_string(&mut listener.accept().unwrap().0, &mut heard).unwrap();
        assert_eq!(heard, "4 <1>a5 <1>bc");

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let url = format!("udp://{}", socket.local_addr().unwrap()).parse().unwrap();
        Receiver::connect(&url).unwrap().send("<1>a").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 4);
        assert!(Receiver::connect(&"http://127.0.0.1".parse().unwrap()).is_err());
    }
}
