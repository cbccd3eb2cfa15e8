//! One HTTP/2 connection pool to one manager, with a bound on every wait.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Body, Method, RequestBuilder, Response, redirect};
use rustls::ClientConfig;
use secretfs_wire::api::{ErrorBody, OCTET_STREAM};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use url::Url;

use super::ClientError;
use super::clock::ManagerClock;
use super::link::Link;

/// How long a TCP connection and its TLS handshake may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream waits for a TCP connection. TCP sends its first packet again after a second, and not
/// again for two more: a new attempt meets sooner who is back.
const TCP_TIMEOUT: Duration = Duration::from_millis(1200);
/// A connection whose peer does not answer a PING in time is given up, and every call on it fails
/// at once instead of waiting for TCP to notice.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls to one manager.
#[derive(Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    manager: Url,
    timeout: Duration,
    link: Arc<Link>,
    clock: Arc<ManagerClock>,
}

impl Http {
    /// Prepares calls to `manager`, each of which ends after `timeout`. Connects with the first.
    pub(super) fn new(manager: Url, tls: ClientConfig, timeout: Duration) -> Result<Self, ClientError> {
        Self::with_headers(manager, tls, timeout, HeaderMap::new())
    }

    /// The same, and says `headers` with each of them.
    pub(super) fn with_headers(
        manager: Url,
        mut tls: ClientConfig,
        timeout: Duration,
        headers: HeaderMap,
    ) -> Result<Self, ClientError> {
        let link = Link::of(&mut tls);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            // Neither a proxy from the environment nor a redirect may choose another peer.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .default_headers(headers)
            .user_agent(concat!("secretfs/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, manager, timeout, link, clock: Arc::default() })
    }

    /// The manager's URL.
    pub(super) fn manager(&self) -> &Url {
        &self.manager
    }

    /// How long each call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The manager's clock, which goes on when its certificate or ours is replaced.
    pub(super) fn clock(&self) -> &Arc<ManagerClock> {
        &self.clock
    }

    /// The same calls with a clock that is known already.
    pub(super) fn with_clock(self, clock: Arc<ManagerClock>) -> Self {
        Self { clock, ..self }
    }

    /// A request to `path`, whose segments are already checked names.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.client.request(method, self.url(path)).timeout(self.timeout)
    }

    /// Asks for a stream that has no end: only the wait for its beginning is bounded here. Tells apart
    /// whether nobody is there or somebody does not answer.
    pub(super) async fn stream(&self, path: &[&str], body: &impl Serialize) -> Result<Response, ClientError> {
        let request = self.client.post(self.url(path)).json(body);
        let before = self.link.look();
        let answer = tokio::time::timeout(self.timeout, success(request));
        let nobody = async {
            tokio::time::sleep(TCP_TIMEOUT).await;
            if !before.met_nobody(&self.link) {
                std::future::pending::<()>().await;
            }
        };
        let silent = || ClientError::Unreachable { reason: "no answer in time".to_owned() };
        let answered = tokio::select! {
            answered = answer => answered.unwrap_or_else(|_| Err(silent())),
            () = nobody => Err(silent()),
        };
        match answered {
            Err(ClientError::Unreachable { reason }) if before.met_nobody(&self.link) => {
                Err(ClientError::NoConnection { reason })
            }
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Untrusted)) => {
                self.link.set_up(false);
                Err(error)
            }
            answered => {
                self.link.set_up(true);
                answered.inspect(|response| self.clock.hear(response.headers()))
            }
        }
    }

    /// GETs a stream: only the wait for its beginning is bounded here.
    pub(super) async fn get_stream(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Response, ClientError> {
        let answer = success(self.client.get(self.url(path)).query(query));
        let silent = || ClientError::Unreachable { reason: "no answer in time".to_owned() };
        tokio::time::timeout(self.timeout, answer).await.unwrap_or_else(|_| Err(silent()))
    }

    /// A stream broke, and with it most likely its connection.
    pub(super) fn broke(&self) {
        self.link.set_up(false);
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.manager.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// GETs JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        let response = success(self.request(Method::GET, path)).await?;
        self.clock.hear(response.headers());
        Ok(response.json().await?)
    }

    /// Sends JSON and receives JSON.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let response = success(self.request(method, path).json(body)).await?;
        self.clock.hear(response.headers());
        Ok(response.json().await?)
    }

    /// DELETEs.
    pub(super) async fn delete(&self, path: &[&str], query: &[(&str, &str)]) -> Result<(), ClientError> {
        success(self.request(Method::DELETE, path).query(query)).await.map(drop)
    }
}

/// A request with a value as its body.
pub(super) fn with_value(request: RequestBuilder, value: impl Into<Body>) -> RequestBuilder {
    request.header("content-type", OCTET_STREAM).body(value)
}

/// Sends a request and reads JSON.
pub(super) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ClientError> {
    Ok(success(request).await?.json().await?)
}

/// The lines of a body that goes on, each of so many bytes at most.
pub(super) fn lines(
    response: Response,
    most_bytes: usize,
) -> impl Stream<Item = Result<String, ClientError>> + Send + Unpin {
    let body = StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
    FramedRead::new(body, LinesCodec::new_with_max_length(most_bytes))
        .map_err(|error| ClientError::Unreachable { reason: error.to_string() })
}

/// Sends a request; what is not a success becomes the manager's own words.
pub(super) async fn success(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let refusal = match response.json::<ErrorBody>().await {
        Ok(body) => ClientError::Refused(body.error),
        Err(_) => ClientError::Malformed { reason: format!("HTTP status {status} without a reason") },
    };
    Err(match retry_after {
        Some(retry_after) => ClientError::Busy { refusal: Box::new(refusal), retry_after },
        None => refusal,
    })
}

/// How long a server wants to be left alone, in seconds (RFC 9110, 10.2.3). A date would be of a clock
/// that may not be ours.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use secretfs_wire::CaPin;
    use tokio::net::TcpListener;

    use super::super::tls;
    use super::*;

    fn http(port: u16) -> Http {
        let tls = tls::pinned_config(CaPin::of_bundle([&b"ca"[..]]), Arc::default());
        let url = format!("https://127.0.0.1:{port}").parse().unwrap();
        Http::new(url, tls, Duration::from_millis(200)).unwrap()
    }

    #[tokio::test]
    async fn nobody_is_not_the_same_as_somebody_who_does_not_answer() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // The kernel makes the connection; nobody takes the handshake.
        let silent = http(port).stream(&["v1"], &()).await.unwrap_err();
        assert!(matches!(silent, ClientError::Unreachable { .. }), "{silent:?}");
        // Somebody hangs up in the handshake.
        let http_again = http(port);
        let (refused, _) = tokio::join!(http_again.stream(&["v1"], &()), async {
            // The first is that of before.
            let _ = listener.accept().await;
            drop(listener.accept().await);
        });
        assert!(matches!(refused, Err(ClientError::Unreachable { .. })), "{refused:?}");
        drop(listener);
        let nobody = http(port).stream(&["v1"], &()).await.unwrap_err();
        assert!(matches!(nobody, ClientError::NoConnection { .. }), "{nobody:?}");
    }

    #[test]
    fn a_server_says_in_seconds_how_long_it_wants_to_be_left_alone() {
        let after =
            |value: &'static str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]));
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(after("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
