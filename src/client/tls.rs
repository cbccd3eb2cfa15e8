//! TLS 1.3 and nothing older, towards one manager: under the node's or operator's own certificate,
//! or, at join, under the pin of a token.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use secretfs_wire::CaPin;
use zeroize::Zeroizing;

/// A client's certificate, its private key and the manager's CA bundle, as PEM.
pub(crate) struct Credentials {
    /// The certificate.
    pub(crate) certificate: String,
    /// The certificate's private key.
    pub(crate) key: Zeroizing<String>,
    /// The manager's CA bundle; no other CA is trusted.
    pub(crate) ca: String,
}

/// Credentials that TLS cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// The CA bundle has no certificate, or a broken one.
    #[error("the CA bundle is not a list of PEM certificates")]
    Ca,
    /// There is no certificate, or a broken one.
    #[error("the certificate is not a PEM certificate")]
    Certificate,
    /// There is no private key, a broken one, or another certificate's.
    #[error("the private key is not the certificate's, or not a PEM key")]
    Key,
}

impl Credentials {
    /// A TLS configuration that shows these credentials.
    ///
    /// # Errors
    /// When one of the three PEM texts is not what it should be.
    pub(crate) fn to_config(&self) -> Result<ClientConfig, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca).map_err(|()| CredentialsError::Ca)? {
            roots.add(certificate).map_err(|_| CredentialsError::Ca)?;
        }
        if roots.is_empty() {
            return Err(CredentialsError::Ca);
        }
        let chain = certificates(&self.certificate).map_err(|()| CredentialsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| CredentialsError::Key)?;
        let mut config = builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|_| CredentialsError::Key)?;
        config.alpn_protocols = protocols();
        Ok(config)
    }
}

/// A TLS configuration for a node that has only a token: it trusts the CA bundle that the manager
/// shows in its chain if, and only if, the whole bundle has the token's pin. This is decided inside
/// the handshake, so a server with another bundle is sent nothing. The bundle is left in `seen`.
pub(super) fn pinned_config(pin: CaPin, seen: Arc<OnceLock<Vec<CertificateDer<'static>>>>) -> ClientConfig {
    let mut config = builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { pin, seen }))
        .with_no_client_auth();
    config.alpn_protocols = protocols();
    config
}

/// HTTP/2, so that one connection carries the change stream and every call beside it. reqwest leaves
/// ALPN (RFC 7301) to whoever brings the TLS configuration.
fn protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, ()> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|_| ())
}

fn provider() -> Arc<CryptoProvider> {
    // X25519MLKEM768 comes first in the provider's own order (feature prefer-post-quantum).
    Arc::new(aws_lc_rs::default_provider())
}

#[allow(clippy::expect_used, reason = "the provider is compiled in and has TLS 1.3")]
fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
}

#[derive(Debug)]
struct PinnedCa {
    pin: CaPin,
    seen: Arc<OnceLock<Vec<CertificateDer<'static>>>>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        bundle: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if CaPin::of_bundle(bundle.iter().map(|certificate| certificate.as_ref())) != self.pin {
            return Err(rustls::Error::General(
                "the server's CA does not match the token's pin: this is not the manager that made the token; \
                 nothing was sent"
                    .to_owned(),
            ));
        }
        let bundle: Vec<_> = bundle.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let mut roots = RootCertStore::empty();
        for certificate in &bundle {
            roots.add(certificate.clone())?;
        }
        let verified = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)?;
        // A second connection shows the same bundle, or its pin would differ.
        let _ = self.seen.set(bundle);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_offers_http_2_first_and_trusts_a_pinned_bundle_only() {
        let config = pinned_config(CaPin::of_bundle([&b"ca"[..]]), Arc::default());
        assert_eq!(config.alpn_protocols[0], b"h2");
        let verifier = PinnedCa { pin: CaPin::of_bundle([&b"ca"[..]]), seen: Arc::default() };
        let name = ServerName::try_from("localhost").unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let error = verifier
            .verify_server_cert(certificate.der(), &[], &name, &[], UnixTime::now())
            .expect_err("another CA");
        assert!(error.to_string().contains("nothing was sent"), "{error}");
        assert!(verifier.seen.get().is_none());
    }
}
