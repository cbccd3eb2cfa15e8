//! The manager's own certificate: issued by its CA at start, and again before it ends.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::server::{VerifierBuilderError, WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, WantsVerifier, version};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::app::now;
use crate::ca::{Authority, CaError, SERVER_LIFETIME};

pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The CA cannot issue the listener's certificate.
    #[error("cannot issue the manager's certificate")]
    Issue(#[source] CaError),
    /// The CA's certificate is not one to verify clients by.
    #[error("the CA's certificate cannot be used to verify clients")]
    Roots(#[source] rustls::Error),
    /// The verifier of client certificates cannot be made.
    #[error("cannot verify client certificates")]
    Verifier(#[source] VerifierBuilderError),
    /// rustls refuses the certificate, its key or the protocol version.
    #[error("the manager's certificate cannot be used")]
    Config(#[source] rustls::Error),
}

/// Issues the listener's TLS settings, and new ones in time.
pub(crate) struct Certificates {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Certificates {
    /// Issues the first certificate.
    pub(crate) fn issue(authority: Arc<Authority>, names: &[String]) -> Result<Self, TlsError> {
        let first = server_config(&authority, names)?;
        Ok(Self { authority, names: names.to_vec(), current: watch::Sender::new(Arc::new(first)) })
    }

    /// The settings for the next connection.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Issues a new certificate at a random point of 50 to 80 % of the old one's life, until
    /// `shutdown`. Open connections keep what they have.
    pub(crate) async fn renew(self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(sleep(renewal_point())).await.is_some() {
            match server_config(&self.authority, &self.names) {
                Ok(next) => {
                    self.current.send_replace(Arc::new(next));
                    tracing::info!("the manager's certificate is renewed");
                }
                Err(error) => tracing::error!(%error, "the manager's certificate is not renewed"),
            }
        }
    }
}

fn renewal_point() -> Duration {
    let mut byte = [0];
    // Without randomness the earliest point is as good as any.
    let random = rand::fill(&mut byte).map_or(0, |()| u32::from(byte[0]));
    SERVER_LIFETIME / 2 + SERVER_LIFETIME * 3 / 10 * random / 255
}

/// TLS 1.3 only, with clients of this CA. A client without a certificate gets through the handshake,
/// because a node that joins has none yet; what it may do is `authz`'s to say.
fn server_config(authority: &Authority, names: &[String]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in authority.bundle() {
        roots.add(certificate.clone()).map_err(TlsError::Roots)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let builder = builder()?.with_client_cert_verifier(clients);
    finish(builder, authority, names)
}

/// For a manager whose CA is sealed: under a CA that is made up and forgotten, so that whoever verifies
/// sends nothing, and whoever does not can see that it is sealed. Asks clients for no certificate.
pub(crate) fn untrusted(names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let authority = Authority::make_up(now()).map_err(TlsError::Issue)?;
    finish(builder()?.with_no_client_auth(), &authority, names).map(Arc::new)
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::Config)
}

/// With a new certificate of this CA.
fn finish(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    authority: &Authority,
    names: &[String],
) -> Result<ServerConfig, TlsError> {
    let identity = authority.issue_server(names, now()).map_err(TlsError::Issue)?;
    let mut config = builder.with_single_cert(identity.chain, identity.key).map_err(TlsError::Config)?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::NamedGroup;

    #[test]
    fn post_quantum_key_exchange_comes_first() {
        let groups = provider::default_provider().kx_groups;
        assert_eq!(groups.first().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn it_renews_at_50_to_80_percent_of_its_life() {
        for _ in 0..100 {
            let point = renewal_point();
            assert!(point >= SERVER_LIFETIME / 2 && point <= SERVER_LIFETIME * 8 / 10, "{point:?}");
        }
    }
}
