//! The manager's own certificate authority.

mod peer;
mod request;

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secretfs_wire::audit::{CaBundle, KEY_PURPOSE, subject_uri};
use secretfs_wire::{
    CLOCK_TOLERANCE, CaPin, ChainId, EnvironmentName, NodeId, NodeName, OperatorId, OperatorName,
};
use zeroize::Zeroizing;

pub(crate) use peer::{PeerCertificate, Subject, UnknownSubject};
pub(crate) use request::CertificateRequest;

const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Of the manager's own certificate, which renews itself.
pub(crate) const SERVER_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Of an audit key. What it signed is to be verified as long as the log is kept, and each key is replaced
/// by a record that the next one signs, so its end says nothing.
const AUDIT_LIFETIME: Duration = CA_LIFETIME;

/// Issues the certificates of this manager, its nodes and its operators.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    bundle: Vec<CertificateDer<'static>>,
    pem: String,
}

/// What can go wrong at the CA.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// The certificate or the key of the CA is malformed.
    #[error("the CA's certificate or key is malformed")]
    Malformed,
    /// The CA's key is not that of its certificate.
    #[error("the CA's key does not belong to its certificate")]
    Mismatch,
    /// A certificate or a key could not be made.
    #[error("cannot issue a certificate")]
    Issue(#[source] rcgen::Error),
    /// What asks for a certificate is no request, or does not prove that it has its key.
    #[error("the certificate request is malformed or not signed by its key")]
    Request,
    /// Keys are ECDSA on P-256.
    #[error("the certificate request's key is not an ECDSA key on P-256")]
    RequestKey,
}

/// A certificate and its key, as the manager's TLS listener takes them.
pub(crate) struct ServerIdentity {
    /// The leaf, then the whole CA bundle, over which a joining node checks its token's pin.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Makes a new CA, and its private key as PKCS #8 DER to be sealed away.
    pub(crate) fn create(now: Timestamp) -> Result<(Self, Zeroizing<Vec<u8>>), CaError> {
        let key = new_key()?;
        let pkcs8 = Zeroizing::new(key.serialize_der());
        Ok((Self::of("secretfs CA", key, now)?, pkcs8))
    }

    /// One that nobody trusts, for a manager whose CA is sealed. Of another name than that, so that
    /// clients find an issuer that they do not know, and not a signature that is wrong.
    pub(crate) fn make_up(now: Timestamp) -> Result<Self, CaError> {
        Self::of("secretfs sealed manager", new_key()?, now)
    }

    fn of(name: &str, key: KeyPair, now: Timestamp) -> Result<Self, CaError> {
        let mut params = template(name, now, CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(CaError::Issue)?;
        Ok(Self {
            bundle: vec![certificate.der().clone()],
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Takes up a CA that [`create`](Self::create) made.
    pub(crate) fn load(pem: String, pkcs8: &[u8]) -> Result<Self, CaError> {
        let bundle: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| CaError::Malformed)?;
        let first = bundle.first().ok_or(CaError::Malformed)?;
        let key = KeyPair::try_from(pkcs8).map_err(|_| CaError::Malformed)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|_| CaError::Malformed)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(CaError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(first, key).map_err(|_| CaError::Malformed)?;
        Ok(Self { issuer, bundle, pem })
    }

    /// The CA's certificates as PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The CA's certificates, in the order in which they are served and pinned.
    pub(crate) fn bundle(&self) -> &[CertificateDer<'static>] {
        &self.bundle
    }

    /// The same for who verifies an audit log.
    pub(crate) fn ca_bundle(&self) -> CaBundle {
        CaBundle::new(self.bundle.iter().map(|certificate| certificate.to_vec()))
    }

    /// What join tokens carry.
    pub(crate) fn pin(&self) -> CaPin {
        CaPin::of_bundle(self.bundle.iter().map(AsRef::as_ref))
    }

    /// A certificate for the manager itself, over a fresh key.
    pub(crate) fn issue_server(&self, names: &[String], now: Timestamp) -> Result<ServerIdentity, CaError> {
        let key = new_key()?;
        let mut params = template("secretfs manager", now, SERVER_LIFETIME)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => name.as_str().try_into().map(SanType::DnsName),
            })
            .collect::<Result<_, _>>()
            .map_err(CaError::Issue)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(CaError::Issue)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend_from_slice(&self.bundle);
        Ok(ServerIdentity { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }

    /// A certificate for a new key that signs the checkpoints of an audit chain, as DER, and the key as
    /// PKCS #8 DER. It names neither an operator nor a node, and is for another purpose than TLS: nobody
    /// can use it to call the manager.
    pub(crate) fn issue_audit(
        &self,
        chain: ChainId,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), CaError> {
        let key = new_key()?;
        let mut params = template("secretfs audit", now, AUDIT_LIFETIME)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(KEY_PURPOSE.to_vec())];
        let uri = subject_uri(chain).as_str().try_into().map_err(CaError::Issue)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Issue)?;
        Ok((certificate.der().to_vec(), Zeroizing::new(key.serialize_der())))
    }

    /// A certificate as PEM for an operator who proved to have the key, and when it ends. Nothing but the
    /// key is taken from the request.
    pub(crate) fn issue_operator(
        &self,
        name: &OperatorName,
        id: Option<OperatorId>,
        request: &CertificateRequest,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<(String, Timestamp), CaError> {
        let subject = Subject::Operator { name: name.clone(), id };
        self.issue_client(&subject, request.public_key(), now, lifetime)
    }

    /// The same for a node. Each of both takes what makes such a subject and no other: no mistake on a
    /// node's way can issue an operator's certificate.
    pub(crate) fn issue_node(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        id: NodeId,
        request: &CertificateRequest,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<(String, Timestamp), CaError> {
        let subject = Subject::Node { environment: environment.clone(), name: name.clone(), id };
        self.issue_client(&subject, request.public_key(), now, lifetime)
    }

    fn issue_client(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<(String, Timestamp), CaError> {
        let mut params = template(subject.common_name(), now, lifetime)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = subject.to_uri().as_str().try_into().map_err(CaError::Issue)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let expires = params.not_after.unix_timestamp();
        let certificate = params.signed_by(key, &self.issuer).map_err(CaError::Issue)?;
        let expires = Timestamp::from_second(expires).map_err(|_| CaError::Malformed)?;
        Ok((certificate.pem(), expires))
    }
}

fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Issue)
}

/// What all certificates share. Times are whole seconds, as X.509 has them.
fn template(common_name: &str, now: Timestamp, lifetime: Duration) -> Result<CertificateParams, CaError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| CaError::Issue(rcgen::Error::RingUnspecified))?;
    // Positive, and of one length.
    serial[0] = serial[0] & 0x7f | 0x40;

    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = epoch + now.saturating_sub(CLOCK_TOLERANCE);
    params.not_after = epoch + now + lifetime;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
