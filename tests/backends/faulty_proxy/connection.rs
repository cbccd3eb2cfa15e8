//! The connections of a proxy: each request is looked up in the script and goes its way.

use std::error::Error;
use std::future;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::{task, time};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream as ToServer, server::TlsStream as ToClient};

use super::super::openbao::{OpenBao, TlsFiles};
use super::{Fault, Script};

type BoxError = Box<dyn Error + Send + Sync>;
type Answer = Response<BoxBody<Bytes, BoxError>>;

/// The server behind the proxy.
pub(super) struct Upstream {
    address: SocketAddr,
    tls: Option<Tls>,
}

struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// A connection with or without TLS.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for ToClient<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Wire for ToServer<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What ends a connection in the middle of a request.
#[derive(Default)]
struct Broken(Notify);

impl Broken {
    /// Breaks the connection, which drops what waits here.
    async fn now<T>(&self) -> T {
        self.0.notify_one();
        future::pending().await
    }
}

/// Accepts connections for ever.
pub(super) async fn serve(listener: std::net::TcpListener, upstream: Arc<Upstream>, script: Arc<Script>) {
    let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
    loop {
        // An error is one connection's, that ended before it was accepted.
        if let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve_connection(socket, upstream.clone(), script.clone()));
        }
    }
}

async fn serve_connection(socket: TcpStream, upstream: Arc<Upstream>, script: Arc<Script>) {
    // Who does not trust the certificate hangs up, and it is for the test to say if that is right.
    let Ok(wire) = upstream.accept(socket).await else { return };
    let broken = Broken::default();
    let service = service_fn(|request| answer(request, &upstream, &script, &broken));
    let mut connection = server::conn::http1::Builder::new().serve_connection(TokioIo::new(wire), service);
    tokio::select! {
        // How it ended is the client's to complain about.
        _ = &mut connection => {}
        () = broken.0.notified() => {
            let wire = connection.into_parts().io.into_inner();
            // Closing it now is a reset.
            let _ = wire.socket().set_zero_linger();
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    upstream: &Upstream,
    script: &Script,
    broken: &Broken,
) -> Result<Answer, BoxError> {
    let fault = script.next(request.method().as_str(), request.uri().path());
    match fault {
        None => upstream.forward(request).await,
        Some(Fault::Sealed) => Ok(refusal(503, r#"{"errors":["Vault is sealed"]}"#)),
        Some(Fault::Answer(status, body)) => Ok(refusal(status, body)),
        Some(Fault::TooManyRequests { retry_after_seconds }) => {
            let mut answer = refusal(429, r#"{"errors":["request path rate limit quota exceeded"]}"#);
            answer.headers_mut().insert(RETRY_AFTER, retry_after_seconds.into());
            Ok(answer)
        }
        Some(Fault::Redirect(location)) => {
            let mut answer = refusal(307, "");
            answer.headers_mut().insert(LOCATION, HeaderValue::from_str(&location)?);
            Ok(answer)
        }
        Some(Fault::Reset) => broken.now().await,
        Some(Fault::LostAnswer) => {
            upstream.forward(request).await?;
            broken.now().await
        }
        Some(Fault::CutShort) => cut_short(upstream.forward(request).await?).await,
        Some(Fault::Slow(by)) => {
            let answer = upstream.forward(request).await;
            time::sleep(by).await;
            answer
        }
    }
}

/// Half of an answer, whose head promises the whole of it.
async fn cut_short(answer: Answer) -> Result<Answer, BoxError> {
    let (mut head, body) = answer.into_parts();
    let whole = body.collect().await?.to_bytes();
    head.headers.insert(CONTENT_LENGTH, whole.len().into());
    let half = whole.slice(..whole.len() / 2);
    let rest = async {
        // What was written so far is sent when there is something to wait for.
        task::yield_now().await;
        Err(BoxError::from("the rest is lost"))
    };
    let frames = stream::iter([Ok(Frame::data(half))]).chain(stream::once(rest));
    Ok(Response::from_parts(head, BodyExt::boxed(StreamBody::new(frames))))
}

/// What goes wrong before the server is asked, as the server itself would say it.
fn refusal(status: u16, body: &'static str) -> Answer {
    let mut answer = Response::new(whole(Bytes::from_static(body.as_bytes())));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status of HTTP");
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn whole(body: Bytes) -> BoxBody<Bytes, BoxError> {
    Full::new(body).map_err(BoxError::from).boxed()
}

impl Upstream {
    pub(super) fn of(server: &OpenBao) -> Self {
        Self { address: server.address(), tls: server.tls().map(Tls::with) }
    }

    async fn accept(&self, socket: TcpStream) -> Result<Box<dyn Wire>, BoxError> {
        Ok(match &self.tls {
            None => Box::new(socket),
            Some(tls) => Box::new(tls.acceptor.accept(socket).await?),
        })
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, BoxError> {
        let socket = TcpStream::connect(self.address).await?;
        Ok(match &self.tls {
            None => Box::new(socket),
            Some(tls) => {
                let name = ServerName::IpAddress(self.address.ip().into());
                Box::new(tls.connector.connect(name, socket).await?)
            }
        })
    }

    /// Asks the server, over a connection of its own; the whole answer.
    async fn forward(&self, request: Request<Incoming>) -> Result<Answer, BoxError> {
        let wire = self.connect().await?;
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(wire)).await?;
        let asked = async {
            let (mut head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            // It is in one piece now.
            head.headers.remove(TRANSFER_ENCODING);
            Ok(Response::from_parts(head, whole(body)))
        };
        tokio::pin!(connection, asked);
        tokio::select! {
            answer = &mut asked => answer,
            ended = connection => {
                ended?;
                asked.await
            }
        }
    }
}

impl Tls {
    fn with(files: &TlsFiles) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_file_iter(&files.certificate).expect("a certificate");
        let chain = chain.collect::<Result<_, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.ca).expect("a certificate")).expect("an authority");
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a server's certificate");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        }
    }
}
