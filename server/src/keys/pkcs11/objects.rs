//! The versions of keys as objects in a token.
//!
//! A version is one secret key with the label `secretfs:NAME`, so that no other program's key is taken
//! for one of ours, and the version in CKA_ID. It is made in the token and never leaves it: only an
//! object that is sensitive and not extractable is ever found.
//!
//! Two managers on one token may make the same version at the same time. Both objects stay, since
//! something may be wrapped under either as soon as it is there: any of them wraps, all are tried to
//! unwrap, and they are retired together.

use std::collections::BTreeMap;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use secretfs_wire::KeyName;

use super::fault::{Failure, malformed};
use super::token::Access;

const KEY_BYTES: u64 = 32;

/// The objects of each version.
pub(super) type Versions = BTreeMap<u64, Vec<ObjectHandle>>;

/// All versions of a key; none when there is no such key.
pub(super) fn versions(access: &Access<'_>, name: &KeyName) -> Result<Versions, Failure> {
    let mut versions = Versions::new();
    for object in find(access, &ours(name))? {
        let attributes = access.session.get_attributes(object, &[AttributeType::Id])?;
        let [Attribute::Id(id)] = &attributes[..] else { continue };
        // An object with our label and no version is not one that we have made.
        if let Ok(id) = <[u8; 8]>::try_from(id.as_slice()) {
            versions.entry(u64::from_be_bytes(id)).or_default().push(object);
        }
    }
    Ok(versions)
}

/// The objects of one version.
pub(super) fn version(
    access: &Access<'_>,
    name: &KeyName,
    version: u64,
) -> Result<Vec<ObjectHandle>, Failure> {
    let mut template = ours(name);
    template.push(id(version));
    find(access, &template)
}

fn find(access: &Access<'_>, template: &[Attribute]) -> Result<Vec<ObjectHandle>, Failure> {
    let found = access.session.find_objects(template)?;
    if found.is_empty() {
        // Whoever is not logged in, or has a token that was taken away, finds nothing and may hear of
        // no error. That there is no such key can only be said with both in place.
        access.check()?;
    }
    Ok(found)
}

/// Makes a version in the token.
pub(super) fn generate(access: &Access<'_>, name: &KeyName, version: u64) -> Result<(), Failure> {
    let mut needed = ours(name);
    needed.extend([
        id(version),
        Attribute::ValueLen(KEY_BYTES.into()),
        Attribute::Private(true),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        // It encrypts data keys as data, and must not take other keys out of the token.
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
    ]);
    let mut all = needed.clone();
    // Not every token takes these.
    all.extend([
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
        Attribute::Modifiable(false),
    ]);
    let object = match access.session.generate_key(&Mechanism::AesKeyGen, &all) {
        Err(Error::Pkcs11(code, Function::GenerateKey)) if is_about_template(code) => {
            access.session.generate_key(&Mechanism::AesKeyGen, &needed)?
        }
        other => other?,
    };
    // To have asked for it is not enough: a token that would give it out is none to trust with keys.
    let kept = [Attribute::Sensitive(true), Attribute::Extractable(false)];
    let types = kept.each_ref().map(Attribute::attribute_type);
    if access.session.get_attributes(object, &types)? != kept {
        access.session.destroy_object(object)?;
        return Err(malformed("the token made a key that can be taken out of it").into());
    }
    Ok(())
}

/// Destroys all versions below this one, the oldest first: whatever interrupts it, the newest is the
/// last to go, and numbers are not used again.
pub(super) fn retire(access: &Access<'_>, name: &KeyName, below: u64) -> Result<(), Failure> {
    for objects in versions(access, name)?.range(..below).map(|(_, objects)| objects) {
        for object in objects {
            access.session.destroy_object(*object)?;
        }
    }
    Ok(())
}

fn ours(name: &KeyName) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(format!("secretfs:{name}").into_bytes()),
    ]
}

fn id(version: u64) -> Attribute {
    Attribute::Id(version.to_be_bytes().to_vec())
}

fn is_about_template(code: RvError) -> bool {
    matches!(
        code,
        RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::AttributeReadOnly
            | RvError::TemplateInconsistent
    )
}
