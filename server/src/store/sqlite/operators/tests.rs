//! Operators in databases of earlier versions.

use std::borrow::Cow;
use std::path::Path;

use secretfs_wire::api::OperatorState;
use secretfs_wire::{Grant, OperatorId, Role};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::store::conformance::at;
use crate::store::sqlite::{MIGRATIONS, Sqlite};
use crate::store::{NewEnrolment, Operators as _, StoreError};

/// A database as it was before a migration, with this in it.
async fn before(version: i64, file: &Path, rows: &'static str) {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let pool = SqlitePoolOptions::new().connect_with(options).await.expect("a database");
    let before = MIGRATIONS.iter().filter(|migration| migration.version < version).cloned().collect();
    let migrator = Migrator { migrations: Cow::Owned(before), ..Migrator::DEFAULT };
    migrator.run(&pool).await.expect("as it was");
    sqlx::raw_sql(rows).execute(&pool).await.expect("what was there");
    pool.close().await;
}

#[tokio::test]
async fn operators_from_before_there_were_scopes_have_that_of_their_roles() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.db");
    let rows = "INSERT INTO environments (name, key_backend, key_name, created) VALUES
            ('dev', 'local', 'dev', 0), ('prod', 'local', 'prod', 0);
        INSERT INTO operators (name, id, created, certificate_expires) VALUES
            ('everywhere', 1, 0, 1 << 52), ('both', 2, 0, 1 << 52), ('mixed', 3, 0, 1 << 52),
            ('one', 4, 0, 1 << 52), ('none', 5, 0, 1 << 52);
        INSERT INTO grants (operator, role, environment) VALUES
            ('everywhere', 'admin', NULL), ('both', 'viewer', 'dev'), ('both', 'viewer', 'prod'),
            ('mixed', 'viewer', NULL), ('mixed', 'viewer', 'dev'),
            ('one', 'viewer', 'dev'), ('one', 'editor', 'dev');
        INSERT INTO enrolments (operator, digest, environment, expires) VALUES
            ('one', x'01', 'dev', 1 << 52), ('both', x'02', NULL, 1 << 52), ('none', x'03', 'dev', 1 << 52)";
    before(9, &file, rows).await;

    let store = Sqlite::open(&file).await.expect("migrated");
    let operators = store.operators(None, at(0)).await.expect("a list");
    let listed: Vec<_> = operators
        .iter()
        .map(|operator| {
            let scope = operator.scope.as_ref().map(ToString::to_string);
            (operator.name.as_str(), scope, operator.state, operator.enrolment_expires.is_some())
        })
        .collect();
    let (active, dev) = (OperatorState::Active, Some("dev".to_owned()));
    assert_eq!(
        listed,
        [
            ("both", None, active, true),
            ("everywhere", None, active, false),
            ("mixed", None, active, false),
            ("none", None, OperatorState::Invited, false),
            ("one", dev, active, true),
        ]
    );
    let none = "none".parse().expect("a name");
    let grants = store.operator_grants(&none, OperatorId::from_u64(5)).await.expect("asked");
    assert_eq!(grants, None, "whose key that is, nobody knows");
}

#[tokio::test]
async fn operators_from_before_there_were_roles_go_on_as_administrators() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.db");
    before(5, &file, "INSERT INTO operators (name, created) VALUES ('admin', 0)").await;

    let store = Sqlite::open(&file).await.expect("migrated");
    let admin = "admin".parse().expect("a name");
    let grants = vec![Grant { role: Role::Admin, environment: None }];
    assert_eq!(store.operator_grants(&admin, None).await.expect("asked"), Some(grants.clone()));
    let (now, later) = (at(0), at(100));
    let shown = store.operator(&admin, now).await.expect("it");
    assert_eq!((shown.state, shown.certificate_expires), (OperatorState::Active, None));
    let last = store.remove_operator(&admin, None, now).await;
    assert!(matches!(last, Err(StoreError::LastAdmin { .. })), "{last:?}");
    store.operator_renewed(&admin, None, later).await.expect("renewed, still without an id");
    assert_eq!(store.operator_grants(&admin, None).await.expect("asked"), Some(grants));
    let enrolment = NewEnrolment { digest: [1; 32], scope: None, expires: later };
    store.enroll(&admin, enrolment, now).await.expect("enrolled");
    store.log_in(&[1; 32], OperatorId::random(), later, now).await.expect("logged in");
    assert_eq!(store.operator_grants(&admin, None).await.expect("asked"), None, "it has an id now");
}
