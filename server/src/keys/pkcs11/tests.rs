//! Against a real SoftHSM, each test in a process of its own.

use std::future::Future;
use std::path::Path;

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use secretfs_wire::KeyBackendKind;

use super::*;
use crate::backends::deadline;
use crate::backends::softhsm::{SoftHsm, in_own_process};
use crate::config::{PinSource, TokenChoice};
use crate::keys::{BackendFault, conformance};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

fn backend(hsm: &SoftHsm, label: &str, pin_file: &Path) -> Pkcs11Keys {
    let settings = Pkcs11Config {
        module: hsm.module().to_owned(),
        token: TokenChoice::Label(label.to_owned()),
        pin: PinSource::File(pin_file.to_owned()),
    };
    Pkcs11Keys::open(&settings).expect("the module and a PIN")
}

fn keys(hsm: &SoftHsm) -> Pkcs11Keys {
    backend(hsm, hsm.token_label(), &hsm.pin_file())
}

fn name() -> KeyName {
    "prod".parse().expect("a name")
}

fn here() -> Context {
    Context::new([&b"here"[..]])
}

async fn wrap(keys: &Pkcs11Keys, key: &Key) -> Result<Wrapped, KeyError> {
    Ok(keys.wrap(&name(), &[(&here(), key)]).await?.remove(0))
}

async fn unwrap(keys: &Pkcs11Keys, wrapped: &Wrapped) -> Result<Key, KeyError> {
    keys.unwrap(&name(), &[(&here(), wrapped)]).await?.remove(0)
}

/// Wraps and unwraps.
async fn serves(keys: &Pkcs11Keys) -> Result<(), KeyError> {
    let key = Key::generate()?;
    let unwrapped = unwrap(keys, &wrap(keys, &key).await?).await?;
    assert_eq!(unwrapped.expose_secret(), key.expose_secret());
    Ok(())
}

fn is_unavailable(error: &KeyError) -> bool {
    matches!(error, KeyError::Backend { fault: BackendFault::Unavailable(..), .. })
}

/// Does this in a session of the backend's, past the backend.
fn in_session<T>(keys: &Pkcs11Keys, work: impl Fn(&Session) -> T) -> T {
    keys.token.with_session(|access| Ok(work(access.session))).expect("a session")
}

fn objects_of(session: &Session, label: &str) -> Vec<ObjectHandle> {
    session.find_objects(&[Attribute::Label(label.into())]).expect("found")
}

#[test]
fn it_does_what_every_backend_does() {
    in_own_process(|hsm| run(conformance::check(&keys(hsm))));
}

#[test]
fn a_key_cannot_be_taken_out_of_the_token() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        run(keys.ensure(&name())).expect("a key");
        in_session(&keys, |session| {
            let objects = objects_of(session, "secretfs:prod");
            let [key] = objects[..] else { panic!("one object: {objects:?}") };
            // What is refused is left out.
            let value = session.get_attributes(key, &[AttributeType::Value]).expect("asked");
            assert_eq!(value, []);
            let expected = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::AlwaysSensitive(true),
                Attribute::Extractable(false),
                Attribute::NeverExtractable(true),
                Attribute::Local(true),
                Attribute::Modifiable(false),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Wrap(false),
                Attribute::Unwrap(false),
                Attribute::Sign(false),
                Attribute::Derive(false),
                Attribute::ValueLen(32.into()),
                Attribute::Id(1_u64.to_be_bytes().to_vec()),
            ];
            let types: Vec<_> = expected.iter().map(Attribute::attribute_type).collect();
            assert_eq!(session.get_attributes(key, &types).expect("attributes"), expected);
        });
    });
}

#[test]
fn keys_of_others_are_neither_used_nor_destroyed() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        let foreign = |label: &str, id: &[u8], sensitive: bool, extractable: bool| {
            in_session(&keys, |session| {
                let template = [
                    Attribute::Token(true),
                    Attribute::Label(label.into()),
                    Attribute::Id(id.to_vec()),
                    Attribute::Sensitive(sensitive),
                    Attribute::Extractable(extractable),
                    Attribute::ValueLen(32.into()),
                ];
                session.generate_key(&cryptoki::mechanism::Mechanism::AesKeyGen, &template).expect("made");
            });
        };
        foreign("prod", &9_u64.to_be_bytes(), true, false);
        foreign("secretfs:prod", &9_u64.to_be_bytes(), true, true);
        foreign("secretfs:prod", &9_u64.to_be_bytes(), false, false);
        foreign("secretfs:prod", b"nine", true, false);
        assert!(matches!(run(wrap(&keys, &Key::generate().expect("a key"))), Err(KeyError::Missing(_))));
        run(keys.ensure(&name())).expect("a key");
        assert_eq!(run(keys.rotate(&name())).expect("rotated"), 2);
        run(keys.retire(&name(), 3)).expect("the whole key");
        assert!(matches!(run(keys.describe(&name())), Err(KeyError::Missing(_))));
        let left = in_session(&keys, |session| {
            objects_of(session, "prod").len() + objects_of(session, "secretfs:prod").len()
        });
        assert_eq!(left, 4);
    });
}

#[test]
fn a_version_that_two_managers_made_at_once_is_one_version() {
    in_own_process(|hsm| {
        let (one, two) = (keys(hsm), keys(hsm));
        run(one.ensure(&name())).expect("a key");
        let key = Key::generate().expect("a key");
        let first = run(wrap(&one, &key)).expect("wrapped");
        // The other one had looked before the first one was done.
        two.token.with_session(|access| objects::generate(access, &name(), 1)).expect("made");
        // Whichever of the objects wraps.
        let wrapped = two.token.with_session(|access| {
            let objects = objects::version(access, &name(), 1)?;
            assert_eq!(objects.len(), 2);
            let wrap = |object: &ObjectHandle| {
                let bytes = cipher::wrap(access.session, *object, here().as_bytes(), &key)?;
                Ok(Wrapped { version: 1, bytes })
            };
            objects.iter().map(wrap).collect::<Result<Vec<_>, Failure>>()
        });
        let wrapped = [wrapped.expect("wrapped"), vec![first]].concat();
        for wrapped in &wrapped {
            for keys in [&one, &two] {
                let unwrapped = run(unwrap(keys, wrapped)).expect("unwrapped");
                assert_eq!(unwrapped.expose_secret(), key.expose_secret());
            }
        }
        assert_eq!(run(one.describe(&name())).expect("described").versions.len(), 1);
        assert_eq!(run(two.rotate(&name())).expect("rotated"), 2);
        run(one.retire(&name(), 2)).expect("retired");
        for wrapped in &wrapped {
            let error = run(unwrap(&two, wrapped)).expect_err("both objects are gone");
            assert!(matches!(&error, KeyError::Missing(what) if what == "prod:1"), "{error:?}");
        }
    });
}

#[test]
fn versions_that_are_asked_for_at_once_are_different_ones() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        let name = name();
        let mut made = run(async {
            futures::future::try_join_all((0..4).map(|_| keys.ensure(&name))).await.expect("a key");
            futures::future::try_join_all((0..12).map(|_| keys.rotate(&name))).await.expect("rotated")
        });
        made.sort_unstable();
        assert_eq!(made, (2..14).collect::<Vec<_>>());
        assert_eq!(run(keys.describe(&name)).expect("described").versions.len(), 13);
    });
}

#[test]
fn many_at_once_share_few_sessions() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        run(keys.ensure(&name())).expect("a key");
        run(async {
            futures::future::try_join_all((0..200).map(|_| serves(&keys))).await.expect("all are served");
            let batch: Vec<_> = (0..2 * PART + 3).map(|_| Key::generate().expect("a key")).collect();
            let context = here();
            let questions: Vec<_> = batch.iter().map(|key| (&context, key)).collect();
            let wrapped = keys.wrap(&name(), &questions).await.expect("wrapped");
            let questions: Vec<_> = wrapped.iter().map(|wrapped| (&context, wrapped)).collect();
            let unwrapped = keys.unwrap(&name(), &questions).await.expect("answers");
            assert_eq!(unwrapped.len(), batch.len());
            for (unwrapped, key) in unwrapped.into_iter().zip(&batch) {
                assert_eq!(unwrapped.expect("unwrapped").expose_secret(), key.expose_secret());
            }
        });
        let idle = keys.token.idle();
        assert!((1..=module::THREADS as usize).contains(&idle), "{idle} sessions");
    });
}

#[test]
fn sessions_that_were_lost_are_made_anew() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        run(keys.ensure(&name())).expect("a key");
        let wrapped = run(wrap(&keys, &Key::generate().expect("a key"))).expect("wrapped");

        let logged_out = in_session(&keys, |session| session.logout());
        logged_out.expect("logged out behind its back");
        run(unwrap(&keys, &wrapped)).expect("logged in again");

        let context = Pkcs11::new(hsm.module()).expect("loaded again");
        context.clone().finalize().expect("all sessions are gone");
        deadline::eventually("it is initialized again", || run(unwrap(&keys, &wrapped)).is_ok());
    });
}

#[test]
fn a_wrong_pin_is_shown_once_and_never_printed() {
    in_own_process(|hsm| {
        let directory = tempfile::tempdir().expect("a directory");
        let pin_file = directory.path().join("pin");
        std::fs::copy(hsm.pin_file(), &pin_file).expect("copied, with its mode");
        std::fs::write(&pin_file, "canary-8421\n").expect("written");
        let keys = backend(hsm, hsm.token_label(), &pin_file);
        let attempts: Vec<_> = (0..3).map(|_| run(keys.health()).expect_err("a wrong PIN")).collect();
        for error in &attempts {
            let KeyError::Backend { backend: KeyBackendKind::Pkcs11, fault: BackendFault::NotAllowed(text) } =
                error
            else {
                panic!("{error:?}");
            };
            assert!(text.contains("PinIncorrect") && text.contains("restart"), "{text}");
            assert!(!format!("{error} {error:?} {keys:?}").contains("canary"), "{error:?}");
        }
        // From now on the token would take it.
        let other = self::keys(hsm);
        in_session(&other, |session| {
            let new = "canary-8421".to_owned().into();
            session.set_pin(&hsm.pin().into(), &new).expect("changed");
        });
        drop(other);
        let error = run(keys.health()).expect_err("it is not asked again");
        assert!(error.to_string().contains("PinIncorrect"), "{error}");
        run(backend(hsm, hsm.token_label(), &pin_file).health()).expect("as a manager that was restarted");
    });
}

#[test]
fn neither_the_pin_nor_a_key_is_in_what_is_said() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        run(keys.ensure(&name())).expect("a key");
        let key = Key::from_bytes(b"canary-canary-canary-canary-0123").expect("a key");
        let wrapped = run(wrap(&keys, &key)).expect("wrapped");
        let mut damaged = wrapped.clone();
        damaged.bytes[20] ^= 1;
        let refused = run(unwrap(&keys, &damaged)).expect_err("damaged");
        let missing = run(unwrap(&keys, &Wrapped { version: 7, ..wrapped })).expect_err("missing");
        assert!(matches!(&missing, KeyError::Missing(what) if what == "prod:7"), "{missing:?}");
        let said = format!("{refused} {refused:?} {missing} {missing:?} {keys:?}");
        assert!(!said.contains("canary") && !said.contains(&hsm.pin()), "{said}");
    });
}

#[test]
fn a_token_that_is_not_there_yet_is_used_when_it_comes() {
    in_own_process(|hsm| {
        let keys = backend(hsm, "late", &hsm.pin_file());
        let error = run(keys.health()).expect_err("no such token");
        assert!(is_unavailable(&error) && error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("\"late\"; labels: secretfs"), "{error}");
        hsm.add_token("late");
        deadline::eventually("it is found", || run(keys.health()).is_ok());
        run(keys.ensure(&name())).expect("a key");
        run(serves(&keys)).expect("it serves");
    });
}

#[test]
fn a_token_that_is_taken_away_is_unavailable_until_it_is_back() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        run(keys.ensure(&name())).expect("a key");
        let wrapped = run(wrap(&keys, &Key::generate().expect("a key"))).expect("wrapped");
        let (tokens, away) = (hsm.tokens(), hsm.tokens().with_extension("away"));
        std::fs::rename(&tokens, &away).expect("taken away");
        std::fs::create_dir(&tokens).expect("no tokens");
        let error = run(unwrap(&keys, &wrapped)).expect_err("no token");
        assert!(is_unavailable(&error), "{error:?}");
        std::fs::remove_dir_all(&tokens).expect("removed");
        std::fs::rename(&away, &tokens).expect("back");
        deadline::eventually("it is back", || run(unwrap(&keys, &wrapped)).is_ok());
    });
}

#[test]
fn a_module_that_hangs_holds_up_nobody_for_long() {
    in_own_process(|hsm| {
        let keys = keys(hsm);
        run(async {
            keys.ensure(&name()).await.expect("a key");
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let ended = Arc::new(Mutex::new(ended));
            let hangs = || {
                let ended = Arc::clone(&ended);
                let late = keys.call(move |_| {
                    let _ = ended.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    Ok(())
                });
                async move { late.await.expect_err("it hangs") }
            };
            // More than may be in the module: the last ones do not even get in.
            for error in futures::future::join_all((0..module::THREADS + 2).map(|_| hangs())).await {
                assert!(is_unavailable(&error), "{error:?}");
            }
            assert!(is_unavailable(&keys.health().await.expect_err("all threads hang")));
            drop(end);
            serves(&keys).await.expect("they have come back");
        });
    });
}

#[test]
fn settings_that_cannot_be_used_are_said_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = Pkcs11Config {
        module: directory.path().join("no.so"),
        token: TokenChoice::Slot(0),
        pin: PinSource::File(directory.path().join("pin")),
    };
    let error = Pkcs11Keys::open(&settings).expect_err("no PIN");
    assert!(matches!(error, Pkcs11Error::Pin(_)), "{error:?}");
    let pin_file = directory.path().join("pin");
    std::fs::write(&pin_file, "1234").expect("written");
    std::fs::set_permissions(&pin_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    let error = Pkcs11Keys::open(&settings).expect_err("no module");
    assert!(error.to_string().contains("no.so"), "{error}");
}
