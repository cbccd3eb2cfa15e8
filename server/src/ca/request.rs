use rcgen::{CertificateParams, CertificateSigningRequestParams, PublicKey};
use zeroize::Zeroizing;

use super::{CaError, new_key};

/// A PKCS #10 request whose signature was checked. All that counts is its key.
pub(crate) struct CertificateRequest(PublicKey);

impl CertificateRequest {
    /// Parses a request and checks that whoever made it has the private key.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, CaError> {
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(|_| CaError::Request)?;
        if *request.public_key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::RequestKey);
        }
        Ok(Self(request.public_key))
    }

    /// A request over a fresh key, and the key as PEM, for whom the manager itself makes credentials.
    pub(crate) fn generate() -> Result<(Self, Zeroizing<String>), CaError> {
        let key = new_key()?;
        let request = CertificateParams::default().serialize_request(&key).map_err(CaError::Issue)?;
        let request = Self::from_pem(&request.pem().map_err(CaError::Issue)?)?;
        Ok((request, Zeroizing::new(key.serialize_pem())))
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::KeyPair;

    fn request(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).expect("request").pem().expect("PEM")
    }

    #[test]
    fn a_request_proves_its_key() {
        let key = KeyPair::generate().expect("key");
        CertificateRequest::from_pem(&request(&key)).expect("a good request");
        assert!(matches!(CertificateRequest::from_pem("nonsense"), Err(CaError::Request)));

        // One flipped bit of the signature.
        let mut der = CertificateParams::default().serialize_request(&key).expect("request").der().to_vec();
        *der.last_mut().expect("bytes") ^= 1;
        assert!(CertificateSigningRequestParams::from_der(&der.into()).is_err());
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
        assert!(matches!(CertificateRequest::from_pem(&request(&key)), Err(CaError::RequestKey)));
    }
}
