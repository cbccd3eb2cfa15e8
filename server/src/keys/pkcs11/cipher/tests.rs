//! What tokens may say of AES-GCM, where SoftHSM says it in one way only.

use std::cell::{Cell, RefCell};

use super::*;
use crate::keys::BackendFault;

/// A token whose calls answer what a test wants, in that order, and then work. Its AES-GCM is a
/// comparison: what was encrypted opens under the same key, IV and associated data.
#[derive(Default)]
struct Fake {
    encryptions: RefCell<Vec<RvError>>,
    decryptions: RefCell<Vec<RvError>>,
    /// What a token that chooses the IV itself writes back.
    chosen: Cell<Option<[u8; IV_BYTES]>>,
    /// What it says of a wrong tag.
    wrong_tag: Cell<Option<RvError>>,
    calls: Cell<usize>,
}

impl Fake {
    fn next(&self, answers: &RefCell<Vec<RvError>>, function: Function) -> Result<(), Error> {
        self.calls.set(self.calls.get() + 1);
        let mut answers = answers.borrow_mut();
        if answers.is_empty() { Ok(()) } else { Err(Error::Pkcs11(answers.remove(0), function)) }
    }
}

fn tag(key: u8, iv: &[u8], aad: &[u8]) -> Vec<u8> {
    let sum = aad.iter().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    [&[key, sum, 0, 0], iv].concat()
}

impl Aead for Fake {
    type Key = u8;

    fn encrypt(
        &self,
        key: u8,
        iv: &mut [u8; IV_BYTES],
        aad: &[u8],
        cleartext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.next(&self.encryptions, Function::EncryptInit)?;
        *iv = self.chosen.get().unwrap_or(*iv);
        Ok([cleartext, &tag(key, iv, aad)].concat())
    }

    fn decrypt(
        &self,
        key: u8,
        iv: [u8; IV_BYTES],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.next(&self.decryptions, Function::Decrypt)?;
        let (cleartext, theirs) = sealed.split_at(32);
        if theirs != tag(key, &iv, aad) {
            let code = self.wrong_tag.get().unwrap_or(RvError::EncryptedDataInvalid);
            return Err(Error::Pkcs11(code, Function::Decrypt));
        }
        Ok(Zeroizing::new(cleartext.to_vec()))
    }
}

fn data_key() -> Key {
    Key::from_bytes(&[7; 32]).expect("a key")
}

#[track_caller]
fn assert_unavailable(answer: Result<Result<Key, KeyError>, Failure>) {
    let error = answer.map_err(Failure::into_key_error).expect_err("a fault");
    assert!(matches!(error, KeyError::Backend { fault: BackendFault::Unavailable(..), .. }), "{error:?}");
}

#[test]
fn the_iv_that_a_token_chose_is_kept() {
    let token = Fake::default();
    token.chosen.set(Some([9; IV_BYTES]));
    let wrapped = wrap(&token, 1, b"here", &data_key()).expect("wrapped");
    assert_eq!(wrapped[..IV_BYTES], [9; IV_BYTES]);
    assert!(matches!(unwrap(&token, &[1], b"here", &wrapped), Ok(Ok(_))));
}

#[test]
fn a_token_that_takes_no_iv_makes_one_or_is_not_used() {
    let token = Fake::default();
    token.encryptions.replace(vec![RvError::MechanismParamInvalid]);
    token.chosen.set(Some([9; IV_BYTES]));
    let wrapped = wrap(&token, 1, b"here", &data_key()).expect("wrapped");
    assert_eq!(wrapped[..IV_BYTES], [9; IV_BYTES]);

    token.encryptions.replace(vec![RvError::MechanismParamInvalid]);
    token.chosen.set(None);
    let zeros = wrap(&token, 1, b"here", &data_key()).expect_err("never under zeros").into_key_error();
    assert!(matches!(zeros, KeyError::Backend { fault: BackendFault::Malformed(_), .. }), "{zeros:?}");
}

#[test]
fn a_wrong_tag_is_refused_whatever_it_is_called() {
    for code in [
        RvError::EncryptedDataInvalid,
        RvError::EncryptedDataLenRange,
        AEAD_DECRYPT_FAILED,
        RvError::GeneralError,
        RvError::FunctionFailed,
        RvError::DataInvalid,
        RvError::VendorDefined(0x8000_0001),
    ] {
        let token = Fake::default();
        token.wrong_tag.set(Some(code));
        let wrapped = wrap(&token, 1, b"here", &data_key()).expect("wrapped");
        for (key, place) in [(1, b"else"), (2, b"here")] {
            let answer = unwrap(&token, &[key], place, &wrapped).expect("an answer");
            assert!(matches!(answer, Err(KeyError::Refused)), "{code:?}");
        }
    }
}

#[test]
fn a_broken_token_is_never_taken_for_a_damaged_row() {
    let wrapped = wrap(&Fake::default(), 1, b"here", &data_key()).expect("wrapped");
    for code in [RvError::GeneralError, RvError::FunctionFailed, RvError::VendorDefined(0x8000_0001)] {
        let decrypts_nothing = Fake::default();
        decrypts_nothing.decryptions.replace(vec![code; 10]);
        assert_unavailable(unwrap(&decrypts_nothing, &[1], b"here", &wrapped));

        let encrypts_nothing = Fake::default();
        encrypts_nothing.decryptions.replace(vec![code]);
        encrypts_nothing.encryptions.replace(vec![RvError::DeviceMemory; 10]);
        assert_unavailable(unwrap(&encrypts_nothing, &[1], b"here", &wrapped));

        let failed_once = Fake::default();
        failed_once.decryptions.replace(vec![code]);
        assert!(matches!(unwrap(&failed_once, &[1], b"here", &wrapped), Ok(Ok(_))));
        assert_eq!(failed_once.calls.get(), 4, "the row, the probe there and back, the row again");
    }
    for code in [RvError::DeviceMemory, RvError::HostMemory, RvError::DeviceRemoved] {
        let token = Fake::default();
        token.decryptions.replace(vec![code]);
        assert_unavailable(unwrap(&token, &[1], b"else", &wrapped));
    }
}

#[test]
fn of_two_keys_of_one_version_the_right_one_opens() {
    let token = Fake::default();
    let wrapped = wrap(&token, 2, b"here", &data_key()).expect("wrapped");
    for keys in [[1, 2], [2, 1]] {
        assert!(matches!(unwrap(&token, &keys, b"here", &wrapped), Ok(Ok(_))));
    }
    assert!(matches!(unwrap(&token, &[1, 3], b"here", &wrapped), Ok(Err(KeyError::Refused))));
}
