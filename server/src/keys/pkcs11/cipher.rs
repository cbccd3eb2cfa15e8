//! AES-256-GCM in a token: IV (12 bytes) ‖ ciphertext (32) ‖ tag (16), as the local backend has it.

use aws_lc_rs::rand;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::fault::{Failure, malformed};
use crate::keys::{Key, KeyError};

const IV_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
/// A data key with its tag.
const SEALED_BYTES: usize = 32 + 16;

/// CKR_AEAD_DECRYPT_FAILED of PKCS #11 3.0, which cryptoki has no name for.
const AEAD_DECRYPT_FAILED: RvError = RvError::UnknownErrorCode(0x42);

/// A token's AES-GCM.
pub(super) trait Aead {
    /// How it names a key.
    type Key: Copy;

    /// Encrypts; a token that chooses the IV itself writes it into `iv`.
    fn encrypt(
        &self,
        key: Self::Key,
        iv: &mut [u8; IV_BYTES],
        aad: &[u8],
        cleartext: &[u8],
    ) -> Result<Vec<u8>, Error>;

    /// Decrypts what was encrypted under this key, IV and associated data.
    fn decrypt(
        &self,
        key: Self::Key,
        iv: [u8; IV_BYTES],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error>;
}

impl Aead for Session {
    type Key = ObjectHandle;

    fn encrypt(
        &self,
        key: ObjectHandle,
        iv: &mut [u8; IV_BYTES],
        aad: &[u8],
        cleartext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let mechanism = Mechanism::AesGcm(GcmParams::new(iv, aad, TAG_BITS.into())?);
        Session::encrypt(self, &mechanism, key, cleartext)
    }

    fn decrypt(
        &self,
        key: ObjectHandle,
        mut iv: [u8; IV_BYTES],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut iv, aad, TAG_BITS.into())?);
        Session::decrypt(self, &mechanism, key, sealed).map(Zeroizing::new)
    }
}

/// Wraps a data key.
pub(super) fn wrap<A: Aead>(token: &A, key: A::Key, aad: &[u8], data_key: &Key) -> Result<Vec<u8>, Failure> {
    let mut iv = [0; IV_BYTES];
    rand::fill(&mut iv).map_err(|_| KeyError::Crypto)?;
    let sealed = match token.encrypt(key, &mut iv, aad, data_key.expose_secret()) {
        // A token that chooses every IV itself may insist on an empty buffer for it. What it should
        // make under an IV of zeros after all is thrown away.
        Err(Error::Pkcs11(RvError::MechanismParamInvalid | RvError::ArgumentsBad, _)) => {
            iv = [0; IV_BYTES];
            let sealed = token.encrypt(key, &mut iv, aad, data_key.expose_secret())?;
            if iv == [0; IV_BYTES] {
                return Err(malformed("the token neither takes a random IV nor makes one").into());
            }
            sealed
        }
        other => other?,
    };
    if sealed.len() != SEALED_BYTES {
        return Err(malformed(format!("a wrapped key has {} bytes, not {SEALED_BYTES}", sealed.len())).into());
    }
    Ok([&iv[..], &sealed].concat())
}

/// Unwraps a data key under the one of these keys that wrapped it; there is more than one only where
/// managers made the same version at the same time.
pub(super) fn unwrap<A: Aead>(
    token: &A,
    keys: &[A::Key],
    aad: &[u8],
    wrapped: &[u8],
) -> Result<Result<Key, KeyError>, Failure> {
    let Some((iv, sealed)) = wrapped.split_first_chunk().filter(|(_, sealed)| sealed.len() == SEALED_BYTES)
    else {
        return Ok(Err(KeyError::Refused));
    };
    for key in keys {
        if let Some(data_key) = open(token, *key, *iv, aad, sealed)? {
            let data_key = Key::from_bytes(&data_key);
            return data_key.map(Ok).ok_or_else(|| malformed("an unwrapped key has not 32 bytes").into());
        }
    }
    Ok(Err(KeyError::Refused))
}

/// `None` when this was not encrypted under this key for this place.
///
/// What a token says then is not agreed upon: some have a code for it, SoftHSM and others say that
/// something went wrong, as they do when they are broken. A broken token must not pass for a row that
/// somebody has moved or damaged. So where the code can mean both, the same key has to open something
/// that it has just encrypted, in the same session, and then to fail on this again.
fn open<A: Aead>(
    token: &A,
    key: A::Key,
    iv: [u8; IV_BYTES],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let error = match token.decrypt(key, iv, aad, sealed) {
        Ok(data_key) => return Ok(Some(data_key)),
        Err(error) => error,
    };
    match verdict(&error) {
        Verdict::Refused => return Ok(None),
        Verdict::Fault => return Err(error.into()),
        Verdict::Either => {}
    }
    if !is_sound(token, key, aad)? {
        return Err(error.into());
    }
    match token.decrypt(key, iv, aad, sealed) {
        Ok(data_key) => Ok(Some(data_key)),
        Err(error) if verdict(&error) == Verdict::Fault => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Whether the token decrypts what it encrypts.
fn is_sound<A: Aead>(token: &A, key: A::Key, aad: &[u8]) -> Result<bool, Failure> {
    let probe = Key::generate()?;
    let wrapped = wrap(token, key, aad, &probe)?;
    let Some((iv, sealed)) = wrapped.split_first_chunk() else { return Ok(false) };
    let opened = token.decrypt(key, *iv, aad, sealed)?;
    Ok(opened.as_slice() == probe.expose_secret())
}

#[derive(PartialEq, Eq)]
enum Verdict {
    /// The token has looked at it and refuses it.
    Refused,
    /// The token cannot do anything now.
    Fault,
    /// One of these.
    Either,
}

fn verdict(error: &Error) -> Verdict {
    let Error::Pkcs11(code, Function::Decrypt) = error else { return Verdict::Fault };
    match code {
        RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange => Verdict::Refused,
        code if *code == AEAD_DECRYPT_FAILED => Verdict::Refused,
        RvError::GeneralError
        | RvError::FunctionFailed
        | RvError::DataInvalid
        | RvError::DataLenRange
        | RvError::SignatureInvalid
        | RvError::VendorDefined(_)
        | RvError::UnknownErrorCode(_) => Verdict::Either,
        _ => Verdict::Fault,
    }
}

#[cfg(test)]
mod tests;
