//! Records as syslog has them (RFC 5424), and where they go: datagrams (RFC 5426), or a stream with lengths
//! (RFC 6587), which TLS may protect (RFC 5425).
//!
//! Syslog has no answers. What was given to a stream that breaks a moment later is lost without a sign.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secretfs_wire::audit::{Outcome, Record};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use url::Url;

use super::{Access, CollectorError, Outgoing};

/// The facility "log audit".
const FACILITY: u8 = 13;
/// The ports that IANA has for them.
const TLS_PORT: u16 = 6514;
const TCP_PORT: u16 = 601;
const UDP_PORT: u16 = 514;

/// A record as one message. What it says is the record itself, as JSON.
pub(crate) fn message(record: &Record, text: &str, host: &str) -> String {
    let severity = match record.event.outcome {
        Outcome::Failed => 3,
        Outcome::Denied => 4,
        Outcome::Done => 5,
        Outcome::Begun => 6,
    };
    let priority = FACILITY * 8 + severity;
    // To the microsecond, which is all that a message may say. `-` is for what is not there: the process,
    // and structured data.
    format!("<{priority}>1 {:.6} {host} secretfs - {} - {text}", record.time, record.event.action)
}

/// A receiver of messages.
pub(super) struct Receiver {
    at: At,
    /// Whose records they are.
    host: String,
    connection: Mutex<Option<Connection>>,
}

enum At {
    Stream { host: String, port: u16, tls: Option<Tls> },
    Udp { host: String, port: u16 },
    Unix(PathBuf),
}

struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

enum Connection {
    Stream(Box<dyn Stream>),
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Receiver {
    /// One at `tls://HOST[:6514]`, `tcp://HOST[:601]`, `udp://HOST[:514]` or `unix:///PATH`.
    pub(super) fn new(access: &Access, source: &Url) -> Result<Self, CollectorError> {
        let Access { url, trust, .. } = access;
        let host = || {
            let host = url.host_str().filter(|host| !host.is_empty()).ok_or(CollectorError::Url)?;
            Ok::<_, CollectorError>(bare(host).to_owned())
        };
        let port = |default| url.port().unwrap_or(default);
        let at = match url.scheme() {
            "tls" => {
                let host = host()?;
                let name = ServerName::try_from(host.clone()).map_err(|_| CollectorError::Url)?;
                let tls = Tls { config: Arc::new(trust.config()?), name };
                At::Stream { host, port: port(TLS_PORT), tls: Some(tls) }
            }
            "tcp" => At::Stream { host: host()?, port: port(TCP_PORT), tls: None },
            "udp" => At::Udp { host: host()?, port: port(UDP_PORT) },
            "unix" if url.path().len() > 1 => At::Unix(PathBuf::from(url.path())),
            _ => return Err(CollectorError::Url),
        };
        Ok(Self { at, host: host_of(source), connection: Mutex::default() })
    }

    /// Sends some. After a failure all of them are to be sent again.
    pub(super) async fn send(&self, records: &[Outgoing]) -> Result<(), CollectorError> {
        let messages =
            records.iter().map(|Outgoing { record, written }| message(record, &written.text, &self.host));
        let mut held = self.connection.lock().await;
        let mut connection = match held.take() {
            Some(mut connection) => match connection.is_over().await {
                true => self.connect().await?,
                false => connection,
            },
            None => self.connect().await?,
        };
        connection.send(messages).await?;
        *held = Some(connection);
        Ok(())
    }

    /// Hangs up when all is on its way.
    pub(super) async fn close(self) -> Result<(), CollectorError> {
        match self.connection.into_inner() {
            Some(Connection::Stream(mut stream)) => Ok(stream.shutdown().await?),
            _ => Ok(()),
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        match &self.at {
            At::Stream { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                let Some(Tls { config, name }) = tls else { return Ok(Connection::Stream(Box::new(stream))) };
                let stream = TlsConnector::from(config.clone()).connect(name.clone(), stream).await?;
                Ok(Connection::Stream(Box::new(stream)))
            }
            At::Udp { host, port } => {
                let mut addresses = tokio::net::lookup_host((host.as_str(), *port)).await?;
                let to = addresses.next().ok_or(io::ErrorKind::NotFound)?;
                let from: SocketAddr = match to {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(from).await?;
                socket.connect(to).await?;
                Ok(Connection::Udp(socket))
            }
            At::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Connection::Unix(socket))
            }
        }
    }
}

impl Connection {
    async fn send(&mut self, messages: impl Iterator<Item = String>) -> io::Result<()> {
        match self {
            Self::Stream(stream) => {
                let counted = messages.map(|message| format!("{} {message}", message.len()));
                stream.write_all(counted.collect::<String>().as_bytes()).await?;
                stream.flush().await
            }
            Self::Udp(socket) => {
                for message in messages {
                    socket.send(message.as_bytes()).await?;
                }
                Ok(())
            }
            Self::Unix(socket) => {
                for message in messages {
                    socket.send(message.as_bytes()).await?;
                }
                Ok(())
            }
        }
    }

    /// Whether the other side has hung up. It says nothing else, so this is the only thing to hear.
    async fn is_over(&mut self) -> bool {
        let Self::Stream(stream) = self else { return false };
        let mut byte = [0; 1];
        matches!(futures::poll!(pin!(stream.read(&mut byte))), Poll::Ready(Ok(0) | Err(_)))
    }
}

/// How messages name the manager at this URL.
pub(crate) fn host_of(source: &Url) -> String {
    bare(source.host_str().unwrap_or("-")).to_owned()
}

/// An address without the brackets that a URL has around it.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::super::Trust;
    use super::super::test_records::denied;
    use super::*;

    fn receiver(url: &str) -> Result<Receiver, CollectorError> {
        let source = "https://manager.example:7443".parse().unwrap();
        let access = Access { url: url.parse().unwrap(), trust: Trust::default(), headers: None };
        Receiver::new(&access, &source)
    }

    const MESSAGE: &str = "<108>1 2026-11-25T08:00:00.123456Z manager.example secretfs - secret.rotate - ";

    #[test]
    fn a_record_is_one_message() {
        let Outgoing { mut record, .. } = denied();
        assert_eq!(message(&record, "{}", "manager.example"), format!("{MESSAGE}{{}}"));
        record.time = "2026-11-25T08:00:00.123456789Z".parse().unwrap();
        assert_eq!(message(&record, "{}", "manager.example"), format!("{MESSAGE}{{}}"));
    }

    #[tokio::test]
    async fn a_stream_has_lengths_and_is_opened_again_when_it_was_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = receiver(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        let text = format!("{MESSAGE}{}", denied().written.text);
        let counted = format!("{} {text}", text.len());
        for _ in 0..2 {
            receiver.send(&[denied(), denied()]).await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 2 * counted.len()];
            accepted.read_exact(&mut heard).await.unwrap();
            assert_eq!(String::from_utf8(heard).unwrap(), format!("{counted}{counted}"));
            drop(accepted);
            // Over loopback it is known when it is dropped, or a moment later.
            let over = async {
                let mut held = receiver.connection.lock().await;
                while !held.as_mut().expect("a connection").is_over().await {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), over).await.expect("it is noticed");
        }
    }

    #[tokio::test]
    async fn a_datagram_is_one_message() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let receiver = receiver(&format!("udp://{}", socket.local_addr().unwrap())).unwrap();
        receiver.send(&[denied(), denied()]).await.unwrap();
        let mut buffer = [0; 4096];
        for _ in 0..2 {
            let length = socket.recv(&mut buffer).await.unwrap();
            assert!(buffer[..length].starts_with(MESSAGE.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_receiver_is_said() {
        for url in ["ftp://127.0.0.1", "unix://", "unix:///", "tcp:601"] {
            assert!(matches!(receiver(url), Err(CollectorError::Url)), "{url}");
        }
    }
}
