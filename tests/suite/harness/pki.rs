//! A certificate authority that is not the manager's. All keys are made when they are needed; none
//! is kept in the repository.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An authority, able to sign for anybody.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as rustls takes them.
pub(crate) struct Credential {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A server on this machine. Its chain ends with the authority, as a manager's does.
    pub(crate) fn server(&self) -> Credential {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut credential = self.issue(params);
        credential.chain.push(self.certificate.clone());
        credential
    }

    /// A client.
    pub(crate) fn client(&self) -> Credential {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Credential {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a PKCS #8 key");
        Credential { chain: vec![certificate.der().clone()], key }
    }

    /// Answers a certificate request, PEM for PEM.
    pub(crate) fn sign(&self, request: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).expect("a certificate request");
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.issuer).expect("a certificate").pem()
    }

    /// The authority's own certificate, PEM.
    pub(crate) fn pem(&self) -> String {
        pem_of("CERTIFICATE", &self.certificate)
    }

    /// The authority's own certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

impl Credential {
    /// The certificate with the rest of its chain, and the key, PEM.
    pub(crate) fn pem(&self) -> (String, String) {
        let chain = self.chain.iter().map(|certificate| pem_of("CERTIFICATE", certificate)).collect();
        (chain, pem_of("PRIVATE KEY", self.key.secret_der()))
    }
}

fn pem_of(tag: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}
