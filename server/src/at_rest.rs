//! What a manager has on its disk is worthless without its keys: all of it is searched.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secretfs_wire::SecretBytes;
use secretfs_wire::api::{CreateEnvironment, RewrapStep};
use tokio_util::sync::CancellationToken;

use crate::app::{App, NewValue};
use crate::authz::Authorizer;
use crate::config::RawConfig;
use crate::data_dir::DataDir;
use crate::keys::{RemoteKeys, VersionContext};
use crate::manager::{Manager, Opening};
use crate::seal::{self, AutoSources, AutoUnlock, SealPlan};

/// What must not be found, and where from it is.
struct Trace(String, Vec<u8>);

fn traces(what: &str, bytes: &[u8]) -> Vec<Trace> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // In base64 a whole group of three bytes looks the same wherever the text begins at it.
    let groups = &bytes[..bytes.len() / 3 * 3];
    [
        ("", bytes.to_vec()),
        (" in hexadecimal", hex.into_bytes()),
        (" in base64", STANDARD_NO_PAD.encode(groups).into_bytes()),
        (" in base64 for URLs", URL_SAFE_NO_PAD.encode(groups).into_bytes()),
    ]
    .map(|(form, bytes)| Trace(format!("{what}{form}"), bytes))
    .into()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .flat_map(|entry| match entry.file_type().expect("a type").is_dir() {
            true => files(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

fn found(directory: &Path, traces: &[Trace]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(directory) {
        let bytes = fs::read(&file).expect("a file");
        for Trace(what, trace) in traces {
            if bytes.windows(trace.len()).any(|window| window == trace) {
                found.push(format!("{what} in {}", file.display()));
            }
        }
    }
    found
}

#[tokio::test]
async fn neither_a_value_nor_a_data_key_nor_the_root_key_is_on_the_disk() {
    const CANARY: &[u8] = b"a canary of a coal mine in the north";
    let parent = tempfile::tempdir().expect("a directory");
    let raw = RawConfig {
        data_dir: Some(parent.path().join("manager")),
        unlock_key_file: Some(parent.path().join("unlock.key")),
        ..RawConfig::default()
    };
    let config = raw.check().expect("a configuration");
    let plan = SealPlan { split: None, auto: Some(vec![AutoUnlock::KeyFile]) };
    let first = Manager::init(&config, &plan).await.expect("a new manager");
    let mut hunted = traces("the value", CANARY);
    hunted.extend(traces("the unlock key", first.unlock.key.expect("a key").as_bytes()));
    let root = {
        let directory = DataDir::open(&config.data_dir).expect("a data directory");
        let sources = AutoSources::new(&config, RemoteKeys::new());
        let sealed = seal::read(&directory, &sources, |_| Ok(())).expect("a seal");
        sources.open(&sealed, true).await.expect("the root key").0
    };
    hunted.extend(traces("the root key", root.as_key().expose_secret()));

    let Ok(Opening::Unlocked(manager)) = Manager::open(&config).await else { panic!("it does not open") };
    let Manager { config, store, keys, authority, audit, .. } = *manager;
    let authorizer = Arc::new(Authorizer::open(None).expect("policies"));
    let app = App::new(config, store, keys, authority, authorizer, audit, CancellationToken::new());
    let (prod, db) = ("prod".parse().expect("a name"), "db".parse().expect("a name"));
    app.create_environment(CreateEnvironment {
        name: "prod".parse().expect("a name"),
        key_name: None,
        key_backend: None,
    })
    .await
    .expect("an environment");
    let value = || NewValue::Given(SecretBytes::new(CANARY.to_vec()).expect("a value"));
    app.create_secret(&prod, "db".parse().expect("a name"), Default::default(), value())
        .await
        .expect("a secret");
    for other in [&b"another"[..], CANARY] {
        let current = app.store.current(&prod, &db).await.expect("a version");
        let context = VersionContext { environment: &prod, secret: &db, number: current.number }.data_key();
        let data_key = app.keys.unwrap(&context, &current.sealed.data_key).await.expect("its data key");
        hunted.extend(traces("a data key", data_key.expose_secret()));
        let other = NewValue::Given(SecretBytes::new(other.to_vec()).expect("a value"));
        app.rotate_secret(&prod, &db, other).await.expect("rotated");
        app.rotate_key(&prod).await.expect("rotated");
        let step = RewrapStep { after: None, limit: 100 };
        assert_eq!(app.rewrap_keys(&prod, step).await.expect("moved").remaining, 0);
    }
    // As it is while the manager runs, with all that SQLite has beside the database, and afterwards.
    assert_eq!(found(&app.config.data_dir, &hunted), [""; 0]);
    let data_dir = app.config.data_dir.clone();
    drop(app);
    assert_eq!(found(&data_dir, &hunted), [""; 0]);

    for Trace(what, trace) in &hunted {
        fs::write(data_dir.join("planted"), [b"before ", trace.as_slice(), b" after"].concat())
            .expect("planted");
        assert!(found(&data_dir, &hunted).iter().any(|found| found.starts_with(what.as_str())), "{what}");
    }
}
