//! Operators, roles and enrolments as rows.

use jiff::Timestamp;
use secretfs_wire::api::{Operator, OperatorState};
use secretfs_wire::{EnvironmentName, Grant, OperatorName};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::store::sqlite::columns::{Columns as _, integer};
use crate::store::sqlite::{inserting, require_environment};
use crate::store::{NewEnrolment, NewOperator, StoreError};

/// One operator, or all.
pub(super) const OPERATORS: &str =
    "SELECT name, id, operators.scope, created, certificate_expires, expires AS enrolment_expires
     FROM operators LEFT JOIN enrolments ON operator = name WHERE ?1 IS NULL OR name = ?1 ORDER BY name";

pub(super) async fn insert(connection: &mut SqliteConnection, new: &NewOperator) -> Result<(), StoreError> {
    if let Some(environment) = &new.scope {
        require_environment(connection, environment).await?;
    }
    sqlx::query(
        "INSERT INTO operators (name, id, scope, created, certificate_expires) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(new.name.as_str())
    .bind(integer(new.id.as_u64()))
    .bind(new.scope.as_ref().map(EnvironmentName::as_str))
    .bind(new.created.as_microsecond())
    .bind(new.certificate_expires.map(|time| time.as_microsecond()))
    .execute(&mut *connection)
    .await
    .map_err(inserting("operator", &new.name))?;
    for grant in &new.grants {
        insert_grant(connection, &new.name, grant).await?;
    }
    match &new.enrolment {
        Some(enrolment) => insert_enrolment(connection, &new.name, enrolment).await,
        None => Ok(()),
    }
}

pub(super) async fn insert_grant(
    connection: &mut SqliteConnection,
    name: &OperatorName,
    grant: &Grant,
) -> Result<(), StoreError> {
    if let Some(environment) = &grant.environment {
        require_environment(connection, environment).await?;
    }
    sqlx::query("INSERT INTO grants (operator, role, environment) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(name.as_str())
        .bind(grant.role.as_str())
        .bind(grant.environment.as_ref().map(EnvironmentName::as_str))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn insert_enrolment(
    connection: &mut SqliteConnection,
    name: &OperatorName,
    enrolment: &NewEnrolment,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO enrolments (operator, digest, scope, expires) VALUES (?, ?, ?, ?)")
        .bind(name.as_str())
        .bind(enrolment.digest.as_slice())
        .bind(enrolment.scope.as_ref().map(EnvironmentName::as_str))
        .bind(enrolment.expires.as_microsecond())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    name: &OperatorName,
    now: Timestamp,
) -> Result<Operator, StoreError> {
    let row = sqlx::query(OPERATORS)
        .bind(name.as_str())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| StoreError::missing("operator", name))?;
    let rows = sqlx::query("SELECT * FROM grants WHERE operator = ? ORDER BY environment, role")
        .bind(name.as_str())
        .fetch_all(connection)
        .await?;
    let grants = rows.iter().filter_map(|row| grant(row).transpose()).collect::<Result<_, _>>()?;
    Ok(Operator { grants, ..operator(&row, now)? })
}

/// Without the roles.
pub(super) fn operator(row: &SqliteRow, now: Timestamp) -> Result<Operator, StoreError> {
    let certificate_expires = row.optional_time("certificate_expires")?;
    let state = match (certificate_expires, row.try_get::<Option<i64>, _>("id")?) {
        (Some(expires), _) if expires <= now => OperatorState::Expired,
        (Some(_), _) | (None, None) => OperatorState::Active,
        (None, Some(_)) => OperatorState::Invited,
    };
    Ok(Operator {
        name: row.parsed("name")?,
        state,
        scope: row.optional("scope")?,
        grants: Vec::new(),
        created: row.time("created")?,
        certificate_expires,
        enrolment_expires: row.optional_time("enrolment_expires")?.filter(|expires| *expires > now),
    })
}

/// `None` in the row of an operator who has none.
pub(super) fn grant(row: &SqliteRow) -> Result<Option<Grant>, StoreError> {
    if row.try_get::<Option<&str>, _>("role")?.is_none() {
        return Ok(None);
    }
    Ok(Some(Grant { role: row.parsed("role")?, environment: row.optional("environment")? }))
}
