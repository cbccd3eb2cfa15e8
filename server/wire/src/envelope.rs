//! The envelope: one secret version, sealed for one node and one request.
//!
//! At the start of a session the manager draws a [`SessionKey`] and wraps it to the node's RSA
//! public key (RSAES-OAEP with SHA-256, RFC 8017). Each delivery is sealed with AES-256-GCM under a
//! key that HKDF-SHA-256 (RFC 5869) derives from the session key and a [`Salt`] which the node drew
//! for this one request. The associated data names everything that the value is delivered for. So
//! whoever terminates TLS in between can read nothing, and an envelope that was meant for another
//! node, target, owner or version, or for an earlier request, does not open.
//!
//! An envelope's bytes are: format (1 byte, 1) ‖ nonce (12) ‖ ciphertext ‖ tag (16).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use aws_lc_rs::{hkdf, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    EnvironmentName, KeyFingerprint, NodeName, Ownership, SecretBytes, SecretName, ServiceName, TargetName,
    VersionId,
};

const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const RSA_BITS: usize = 3072;
/// Binds what is derived to this protocol, so that the session key can serve no other.
const KEY_INFO: &[u8] = b"secretfs envelope key v1";
const CONTEXT_LABEL: &[u8] = b"secretfs envelope context v1";

/// What can go wrong with an envelope. Tells an outsider nothing but that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The node's public key is not an RSA key of 3072 bits.
    #[error("the node's key is not an RSA key of 3072 bits")]
    NodeKey,
    /// The session key was not wrapped to this node's key.
    #[error("the session key was not wrapped for this node")]
    SessionKey,
    /// The bytes are too short, or of a format that is not known here.
    #[error("the envelope is malformed")]
    Malformed,
    /// It was not sealed under this session for this request, or it was changed on its way.
    #[error("the envelope was not sealed for this request")]
    Refused,
    /// The cryptographic library failed, or has no randomness.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// A node's RSA private key, which never leaves the node.
pub struct NodePrivateKey(OaepPrivateDecryptingKey, Zeroizing<Vec<u8>>);

impl NodePrivateKey {
    /// Draws a new key of 3072 bits. Takes some hundred milliseconds.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate() -> Result<Self, EnvelopeError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa3072).map_err(|_| EnvelopeError::Crypto)?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(|_| EnvelopeError::Crypto)?;
        Self::from_pkcs8(der.as_ref())
    }

    /// Reads a key from its PKCS #8 DER.
    ///
    /// # Errors
    /// When it is not an RSA key of 3072 bits.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, EnvelopeError> {
        let key = PrivateDecryptingKey::from_pkcs8(der).map_err(|_| EnvelopeError::NodeKey)?;
        if key.key_size_bits() != RSA_BITS {
            return Err(EnvelopeError::NodeKey);
        }
        let key = OaepPrivateDecryptingKey::new(key).map_err(|_| EnvelopeError::NodeKey)?;
        Ok(Self(key, Zeroizing::new(der.to_vec())))
    }

    /// The key as PKCS #8 DER, to be kept in a file that only root reads.
    pub fn expose_pkcs8(&self) -> &[u8] {
        &self.1
    }

    /// The public half, as the manager is told it at join.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn public_key(&self) -> Result<NodePublicKey, EnvelopeError> {
        let key = PrivateDecryptingKey::from_pkcs8(&self.1).map_err(|_| EnvelopeError::NodeKey)?;
        let der =
            AsDer::<PublicKeyX509Der<'_>>::as_der(&key.public_key()).map_err(|_| EnvelopeError::Crypto)?;
        NodePublicKey::from_der(der.as_ref())
    }

    /// Opens a session key that was wrapped to this key.
    ///
    /// # Errors
    /// [`EnvelopeError::SessionKey`] when it was wrapped to another, or is malformed.
    pub fn unwrap(&self, wrapped: &WrappedSessionKey) -> Result<SessionKey, EnvelopeError> {
        let mut buffer = Zeroizing::new(vec![0; self.0.min_output_size()]);
        let key = self
            .0
            .decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped.0, &mut buffer, None)
            .map_err(|_| EnvelopeError::SessionKey)?;
        let mut session = Zeroizing::new([0; KEY_BYTES]);
        if key.len() != KEY_BYTES {
            return Err(EnvelopeError::SessionKey);
        }
        session.copy_from_slice(key);
        Ok(SessionKey(session))
    }
}

impl fmt::Debug for NodePrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodePrivateKey(REDACTED)")
    }
}

/// A node's RSA public key, to which the manager wraps session keys. Parsing takes some 190 µs, so
/// keep it.
pub struct NodePublicKey(OaepPublicEncryptingKey, Vec<u8>);

impl NodePublicKey {
    /// Reads a key from its SubjectPublicKeyInfo DER (RFC 5280).
    ///
    /// # Errors
    /// When it is not an RSA key of 3072 bits.
    pub fn from_der(der: &[u8]) -> Result<Self, EnvelopeError> {
        let key = PublicEncryptingKey::from_der(der).map_err(|_| EnvelopeError::NodeKey)?;
        if key.key_size_bits() != RSA_BITS {
            return Err(EnvelopeError::NodeKey);
        }
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| EnvelopeError::NodeKey)?;
        Ok(Self(key, der.to_vec()))
    }

    /// The key as SubjectPublicKeyInfo DER.
    pub fn as_der(&self) -> &[u8] {
        &self.1
    }

    /// What people compare.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of_der(&self.1)
    }
}

impl fmt::Debug for NodePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodePublicKey(RSA-3072)")
    }
}

/// A session key, wrapped to one node's public key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = Byte))]
pub struct WrappedSessionKey(Vec<u8>);

impl TryFrom<String> for WrappedSessionKey {
    type Error = EnvelopeError;
    fn try_from(given: String) -> Result<Self, EnvelopeError> {
        STANDARD.decode(given).map(Self).map_err(|_| EnvelopeError::Malformed)
    }
}

impl From<WrappedSessionKey> for String {
    fn from(wrapped: WrappedSessionKey) -> String {
        STANDARD.encode(wrapped.0)
    }
}

/// Drawn by the node for each request: it makes the reply a reply to this request and to no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = Byte))]
pub struct Salt([u8; SALT_BYTES]);

impl Salt {
    /// Draws a new one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, EnvelopeError> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| EnvelopeError::Crypto)?;
        Ok(Self(salt))
    }
}

impl TryFrom<String> for Salt {
    type Error = EnvelopeError;
    fn try_from(given: String) -> Result<Self, EnvelopeError> {
        let bytes = STANDARD.decode(given).map_err(|_| EnvelopeError::Malformed)?;
        bytes.try_into().map(Self).map_err(|_| EnvelopeError::Malformed)
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> String {
        STANDARD.encode(salt.0)
    }
}

/// What an envelope is delivered for: its associated data. Manager and node each write down what
/// they hold to be true, and the envelope opens only where the two agree.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryContext<'a> {
    /// The node's environment.
    pub environment: &'a EnvironmentName,
    /// The node that asked.
    pub node: &'a NodeName,
    /// The service that the target belongs to.
    pub service: &'a ServiceName,
    /// The file name.
    pub target: &'a TargetName,
    /// The secret that is attached there.
    pub secret: &'a SecretName,
    /// The version's number, counted from 1.
    pub version: u64,
    /// The version's id.
    pub version_id: VersionId,
    /// Who may read it on the node.
    pub ownership: Ownership,
}

impl DeliveryContext<'_> {
    /// Canonical bytes: each field preceded by its length, so that no two contexts share them.
    fn to_bytes(self) -> Vec<u8> {
        let Ownership { uid, gid, mode } = self.ownership;
        let fields: [&[u8]; 11] = [
            CONTEXT_LABEL,
            self.environment.as_str().as_bytes(),
            self.node.as_str().as_bytes(),
            self.service.as_str().as_bytes(),
            self.target.as_str().as_bytes(),
            self.secret.as_str().as_bytes(),
            &self.version.to_be_bytes(),
            &self.version_id.as_u64().to_be_bytes(),
            &uid.to_be_bytes(),
            &gid.to_be_bytes(),
            &mode.bits().to_be_bytes(),
        ];
        let mut bytes = Vec::with_capacity(fields.iter().map(|field| 1 + field.len()).sum());
        for field in fields {
            debug_assert!(field.len() <= crate::NAME_MAX_BYTES);
            bytes.push(field.len() as u8);
            bytes.extend_from_slice(field);
        }
        bytes
    }
}

/// The key of a session between a node and a manager, 256 random bits.
pub struct SessionKey(Zeroizing<[u8; KEY_BYTES]>);

impl SessionKey {
    /// Draws a new one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, EnvelopeError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(key.as_mut()).map_err(|_| EnvelopeError::Crypto)?;
        Ok(Self(key))
    }

    /// Wraps the key to a node's public key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn wrap_for(&self, node: &NodePublicKey) -> Result<WrappedSessionKey, EnvelopeError> {
        let mut buffer = vec![0; node.0.ciphertext_size()];
        let length = node
            .0
            .encrypt(&OAEP_SHA256_MGF1SHA256, self.0.as_ref(), &mut buffer, None)
            .map_err(|_| EnvelopeError::Crypto)?
            .len();
        buffer.truncate(length);
        Ok(WrappedSessionKey(buffer))
    }

    /// Seals a value for one request.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn seal(
        &self,
        salt: Salt,
        context: DeliveryContext<'_>,
        value: &SecretBytes,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| EnvelopeError::Crypto)?;
        let key = self.delivery_key(salt)?;
        // Encrypted in place inside a buffer of the final size: no cleartext copy is left behind.
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + value.len() + TAG_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value.expose_secret());
        let (_, body) = sealed.split_at_mut(1 + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        match key.seal_in_place_separate_tag(nonce, Aad::from(context.to_bytes()), body) {
            Ok(tag) => {
                sealed.extend_from_slice(tag.as_ref());
                Ok(sealed)
            }
            Err(_) => {
                sealed.zeroize();
                Err(EnvelopeError::Crypto)
            }
        }
    }

    /// Opens an envelope that was sealed for this request and exactly this context.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] when the bytes are no envelope, [`EnvelopeError::Refused`] when
    /// it was sealed for anything else.
    pub fn open(
        &self,
        salt: Salt,
        context: DeliveryContext<'_>,
        mut envelope: Vec<u8>,
    ) -> Result<SecretBytes, EnvelopeError> {
        if envelope.len() <= 1 + NONCE_LEN + TAG_BYTES || envelope.first() != Some(&FORMAT) {
            return Err(EnvelopeError::Malformed);
        }
        let (head, body) = envelope.split_at_mut(1 + NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&head[1..]).map_err(|_| EnvelopeError::Malformed)?;
        let opened = self
            .delivery_key(salt)?
            .open_in_place(nonce, Aad::from(context.to_bytes()), body)
            .map_err(|_| EnvelopeError::Refused)
            .and_then(|value| SecretBytes::new(value.to_vec()).map_err(|_| EnvelopeError::Malformed));
        envelope.zeroize();
        opened
    }

    fn delivery_key(&self, salt: Salt) -> Result<LessSafeKey, EnvelopeError> {
        let okm_info = [KEY_INFO];
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &salt.0)
            .extract(self.0.as_ref())
            .expand(&okm_info, &AES_256_GCM)
            .and_then(|okm| okm.fill(bytes.as_mut()))
            .map_err(|_| EnvelopeError::Crypto)?;
        UnboundKey::new(&AES_256_GCM, bytes.as_ref()).map(LessSafeKey::new).map_err(|_| EnvelopeError::Crypto)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Names {
        environment: EnvironmentName,
        node: NodeName,
        service: ServiceName,
        target: TargetName,
        secret: SecretName,
    }

    fn names() -> Names {
        Names {
            environment: "prod".parse().expect("a name"),
            node: "node-a".parse().expect("a name"),
            service: "web".parse().expect("a name"),
            target: "password".parse().expect("a name"),
            secret: "db_password".parse().expect("a name"),
        }
    }

    fn context(names: &Names) -> DeliveryContext<'_> {
        DeliveryContext {
            environment: &names.environment,
            node: &names.node,
            service: &names.service,
            target: &names.target,
            secret: &names.secret,
            version: 3,
            version_id: VersionId::from_u64(42).expect("an id"),
            ownership: Ownership::default(),
        }
    }

    fn value() -> SecretBytes {
        SecretBytes::new(b"a canary in the coal mine".to_vec()).expect("a value")
    }

    #[test]
    fn what_is_sealed_for_a_request_opens_for_it() {
        let (names, key, salt) =
            (names(), SessionKey::generate().expect("key"), Salt::random().expect("salt"));
        let sealed = key.seal(salt, context(&names), &value()).expect("sealed");
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        let opened = key.open(salt, context(&names), sealed).expect("opened");
        assert_eq!(opened.expose_secret(), value().expose_secret());
    }

    #[test]
    fn it_opens_for_no_other_request_session_or_context() {
        let (names, key, salt) =
            (names(), SessionKey::generate().expect("key"), Salt::random().expect("salt"));
        let sealed = key.seal(salt, context(&names), &value()).expect("sealed");
        let refused = |key: &SessionKey, salt, context| {
            assert_eq!(key.open(salt, context, sealed.clone()).expect_err("refused"), EnvelopeError::Refused);
        };
        refused(&key, Salt::random().expect("salt"), context(&names));
        refused(&SessionKey::generate().expect("key"), salt, context(&names));

        let good = context(&names);
        let (environment, node) = ("dev".parse().expect("name"), "node-b".parse().expect("name"));
        let (service, target) = ("db".parse().expect("name"), "token".parse().expect("name"));
        let secret = "api_key".parse().expect("name");
        let ownership =
            |uid, gid, mode: u16| Ownership { uid, gid, mode: Mode::from_bits(mode).expect("mode") };
        use crate::Mode;
        for other in [
            DeliveryContext { environment: &environment, ..good },
            DeliveryContext { node: &node, ..good },
            DeliveryContext { service: &service, ..good },
            DeliveryContext { target: &target, ..good },
            DeliveryContext { secret: &secret, ..good },
            DeliveryContext { version: 4, ..good },
            DeliveryContext { version_id: VersionId::from_u64(43).expect("id"), ..good },
            DeliveryContext { ownership: ownership(1, 0, 0o444), ..good },
            DeliveryContext { ownership: ownership(0, 1, 0o444), ..good },
            DeliveryContext { ownership: ownership(0, 0, 0o400), ..good },
        ] {
            refused(&key, salt, other);
        }
    }

    #[test]
    fn a_session_key_reaches_only_the_node_it_is_wrapped_to() {
        let (mine, theirs) =
            (NodePrivateKey::generate().expect("key"), NodePrivateKey::generate().expect("key"));
        let key = SessionKey::generate().expect("key");
        let wrapped = key.wrap_for(&mine.public_key().expect("public")).expect("wrapped");
        let json = serde_json::to_string(&wrapped).expect("json");
        let wrapped: WrappedSessionKey = serde_json::from_str(&json).expect("and back");
        assert_eq!(mine.unwrap(&wrapped).expect("unwrapped").0, key.0);
        assert_eq!(theirs.unwrap(&wrapped).expect_err("refused"), EnvelopeError::SessionKey);
    }

    #[test]
    fn a_private_key_survives_its_file() {
        let key = NodePrivateKey::generate().expect("key");
        let again = NodePrivateKey::from_pkcs8(key.expose_pkcs8()).expect("key");
        assert_eq!(key.public_key().expect("public").as_der(), again.public_key().expect("public").as_der());
        assert!(NodePrivateKey::from_pkcs8(b"not a key").is_err());
        assert!(NodePublicKey::from_der(b"not a key").is_err());
    }

    #[test]
    fn nothing_here_prints_a_key() {
        let key = SessionKey::generate().expect("key");
        assert_eq!(format!("{key:?}"), "SessionKey(REDACTED)");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let names = names();
            let key = SessionKey::generate().expect("key");
            prop_assert!(key.open(Salt::random().expect("salt"), context(&names), bytes).is_err());
        }

        #[test]
        fn one_changed_byte_is_refused(position in 0usize..50, change in 1u8..) {
            let names = names();
            let key = SessionKey::generate().expect("key");
            let salt = Salt::random().expect("salt");
            let mut sealed = key.seal(salt, context(&names), &value()).expect("sealed");
            let position = position % sealed.len();
            sealed[position] ^= change;
            prop_assert!(key.open(salt, context(&names), sealed).is_err());
        }
    }
}
