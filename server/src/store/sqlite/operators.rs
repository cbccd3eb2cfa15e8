use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Operator, OperatorState};
use secretfs_wire::{EnvironmentName, Grant, OperatorId, OperatorName, Role};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::columns::{Columns as _, integer};
use super::tokens::withdraw_tokens_of;
use super::{Sqlite, inserting, require_environment};
use crate::store::{NewEnrolment, NewOperator, Operators, StoreError};

const ADMIN_EVERYWHERE: Grant = Grant { role: Role::Admin, environment: None };

#[async_trait]
impl Operators for Sqlite {
    async fn add_operator(&self, new: NewOperator) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        insert(&mut transaction, &new.name, new.id, new.created, new.certificate_expires).await?;
        for grant in &new.grants {
            insert_grant(&mut transaction, &new.name, grant).await?;
        }
        if let Some(enrolment) = &new.enrolment {
            insert_enrolment(&mut transaction, &new.name, enrolment).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn operator_grants(
        &self,
        name: &OperatorName,
        id: Option<OperatorId>,
    ) -> Result<Option<Vec<Grant>>, StoreError> {
        // An operator without a role is one row without one.
        let rows = sqlx::query(
            "SELECT role, environment FROM operators LEFT JOIN grants ON operator = name
             WHERE name = ? AND id IS ? ORDER BY environment, role",
        )
        .bind(name.as_str())
        .bind(id.map(|id| integer(id.as_u64())))
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        rows.iter().filter_map(|row| grant(row).transpose()).collect::<Result<_, _>>().map(Some)
    }

    async fn operators(
        &self,
        scope: Option<&EnvironmentName>,
        now: Timestamp,
    ) -> Result<Vec<Operator>, StoreError> {
        let mut transaction = self.read().await?;
        if let Some(environment) = scope {
            require_environment(&mut transaction, environment).await?;
        }
        let rows = sqlx::query(OPERATORS).bind(None::<&str>).fetch_all(&mut *transaction).await?;
        let mut operators: Vec<Operator> =
            rows.iter().map(|row| operator(row, now)).collect::<Result<_, _>>()?;
        let rows = sqlx::query("SELECT * FROM grants ORDER BY operator, environment, role")
            .fetch_all(&mut *transaction)
            .await?;
        for row in &rows {
            let name: OperatorName = row.parsed("operator")?;
            let Ok(at) = operators.binary_search_by(|operator| operator.name.cmp(&name)) else { continue };
            operators[at].grants.extend(grant(row)?.filter(|grant| counts(grant, scope)));
        }
        operators.retain(|operator| scope.is_none() || !operator.grants.is_empty());
        Ok(operators)
    }

    async fn operator(&self, name: &OperatorName, now: Timestamp) -> Result<Operator, StoreError> {
        let mut transaction = self.read().await?;
        load(&mut transaction, name, now).await
    }

    async fn remove_operator(
        &self,
        name: &OperatorName,
        scope: Option<&EnvironmentName>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let operator = load(&mut transaction, name, now).await?;
        require_within(&mut transaction, &operator, scope).await?;
        if operator.grants.contains(&ADMIN_EVERYWHERE) {
            require_another_admin(&mut transaction, name, now).await?;
        }
        sqlx::query("DELETE FROM operators WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await?;
        let withdrawn = withdraw_tokens_of(&mut transaction, name, now).await?;
        transaction.commit().await?;
        Ok(withdrawn)
    }

    async fn grant(
        &self,
        name: &OperatorName,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Operator, StoreError> {
        let mut transaction = self.write().await?;
        if let Some(environment) = &grant.environment {
            require_environment(&mut transaction, environment).await?;
        }
        load(&mut transaction, name, now).await?;
        insert_grant(&mut transaction, name, grant).await?;
        sqlx::query(
            "DELETE FROM enrolments WHERE operator = ? AND environment IS NOT NULL AND environment IS NOT ?",
        )
        .bind(name.as_str())
        .bind(grant.environment.as_ref().map(EnvironmentName::as_str))
        .execute(&mut *transaction)
        .await?;
        let operator = load(&mut transaction, name, now).await?;
        transaction.commit().await?;
        Ok(operator)
    }

    async fn ungrant(
        &self,
        name: &OperatorName,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Operator, StoreError> {
        let mut transaction = self.write().await?;
        if let Some(environment) = &grant.environment {
            require_environment(&mut transaction, environment).await?;
        }
        let before = load(&mut transaction, name, now).await?;
        if !before.grants.contains(grant) {
            return Err(StoreError::missing("role", format!("{} of operator {name}", grant.role)));
        }
        if *grant == ADMIN_EVERYWHERE {
            require_another_admin(&mut transaction, name, now).await?;
        }
        sqlx::query("DELETE FROM grants WHERE operator = ? AND role = ? AND environment IS ?")
            .bind(name.as_str())
            .bind(grant.role.as_str())
            .bind(grant.environment.as_ref().map(EnvironmentName::as_str))
            .execute(&mut *transaction)
            .await?;
        let operator = load(&mut transaction, name, now).await?;
        transaction.commit().await?;
        Ok(operator)
    }

    async fn enroll(
        &self,
        name: &OperatorName,
        enrolment: NewEnrolment,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let operator = load(&mut transaction, name, now).await?;
        require_within(&mut transaction, &operator, enrolment.scope.as_ref()).await?;
        insert_enrolment(&mut transaction, name, &enrolment).await?;
        Ok(transaction.commit().await?)
    }

    async fn enrolled(&self, digest: &[u8; 32], now: Timestamp) -> Result<OperatorName, StoreError> {
        let row = sqlx::query("SELECT operator FROM enrolments WHERE digest = ? AND expires > ?")
            .bind(digest.as_slice())
            .bind(now.as_microsecond())
            .fetch_optional(&self.pool)
            .await?;
        row.ok_or(StoreError::TokenRefused)?.parsed("operator")
    }

    async fn log_in(
        &self,
        digest: &[u8; 32],
        id: OperatorId,
        certificate_expires: Timestamp,
        now: Timestamp,
    ) -> Result<Operator, StoreError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query("DELETE FROM enrolments WHERE digest = ? AND expires > ? RETURNING operator")
            .bind(digest.as_slice())
            .bind(now.as_microsecond())
            .fetch_optional(&mut *transaction)
            .await?;
        let name: OperatorName = row.ok_or(StoreError::TokenRefused)?.parsed("operator")?;
        sqlx::query("UPDATE operators SET id = ?, certificate_expires = ? WHERE name = ?")
            .bind(integer(id.as_u64()))
            .bind(certificate_expires.as_microsecond())
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await?;
        let operator = load(&mut transaction, &name, now).await?;
        transaction.commit().await?;
        Ok(operator)
    }

    async fn operator_renewed(
        &self,
        name: &OperatorName,
        id: Option<OperatorId>,
        certificate_expires: Timestamp,
    ) -> Result<(), StoreError> {
        let renewed = sqlx::query("UPDATE operators SET certificate_expires = ? WHERE name = ? AND id IS ?")
            .bind(certificate_expires.as_microsecond())
            .bind(name.as_str())
            .bind(id.map(|id| integer(id.as_u64())))
            .execute(&self.pool)
            .await?;
        if renewed.rows_affected() == 0 {
            return Err(StoreError::missing("operator", name));
        }
        Ok(())
    }

    async fn recover(
        &self,
        name: &OperatorName,
        enrolment: NewEnrolment,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        match load(&mut transaction, name, now).await {
            Err(StoreError::Missing { .. }) => {
                insert(&mut transaction, name, OperatorId::random(), now, None).await?;
            }
            other => other.map(drop)?,
        }
        insert_grant(&mut transaction, name, &ADMIN_EVERYWHERE).await?;
        insert_enrolment(&mut transaction, name, &enrolment).await?;
        Ok(transaction.commit().await?)
    }
}

/// Whether a role says anything in this scope.
fn counts(grant: &Grant, scope: Option<&EnvironmentName>) -> bool {
    scope.is_none_or(|scope| grant.environment.as_ref().is_none_or(|environment| environment == scope))
}

/// Who may decide in one environment only, may not decide over somebody who has roles elsewhere, and
/// not over somebody who has none at all.
async fn require_within(
    connection: &mut SqliteConnection,
    operator: &Operator,
    scope: Option<&EnvironmentName>,
) -> Result<(), StoreError> {
    let Some(environment) = scope else { return Ok(()) };
    require_environment(connection, environment).await?;
    let is_here = |grant: &Grant| grant.environment.as_ref() == Some(environment);
    if operator.grants.is_empty() || !operator.grants.iter().all(is_here) {
        let (name, environment) = (operator.name.to_string(), environment.to_string());
        return Err(StoreError::OutsideScope { name, environment });
    }
    Ok(())
}

/// Refuses unless somebody else can act as an administrator of everything.
async fn require_another_admin(
    connection: &mut SqliteConnection,
    name: &OperatorName,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "SELECT 1 FROM grants JOIN operators ON operator = name
         WHERE role = ? AND environment IS NULL AND name <> ?
             AND (certificate_expires > ? OR (certificate_expires IS NULL AND id IS NULL)) LIMIT 1",
    )
    .bind(Role::Admin.as_str())
    .bind(name.as_str())
    .bind(now.as_microsecond())
    .fetch_optional(connection)
    .await?
    .map(|_| ())
    .ok_or_else(|| StoreError::LastAdmin { name: name.to_string() })
}

async fn insert(
    connection: &mut SqliteConnection,
    name: &OperatorName,
    id: OperatorId,
    created: Timestamp,
    certificate_expires: Option<Timestamp>,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO operators (name, id, created, certificate_expires) VALUES (?, ?, ?, ?)")
        .bind(name.as_str())
        .bind(integer(id.as_u64()))
        .bind(created.as_microsecond())
        .bind(certificate_expires.map(|time| time.as_microsecond()))
        .execute(connection)
        .await
        .map_err(inserting("operator", name))?;
    Ok(())
}

async fn insert_grant(
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

async fn insert_enrolment(
    connection: &mut SqliteConnection,
    name: &OperatorName,
    enrolment: &NewEnrolment,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO enrolments (operator, digest, environment, expires) VALUES (?, ?, ?, ?)",
    )
    .bind(name.as_str())
    .bind(enrolment.digest.as_slice())
    .bind(enrolment.scope.as_ref().map(EnvironmentName::as_str))
    .bind(enrolment.expires.as_microsecond())
    .execute(connection)
    .await?;
    Ok(())
}

/// One operator, or all.
const OPERATORS: &str = "SELECT name, id, created, certificate_expires, expires AS enrolment_expires
     FROM operators LEFT JOIN enrolments ON operator = name WHERE ?1 IS NULL OR name = ?1 ORDER BY name";

async fn load(
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
fn operator(row: &SqliteRow, now: Timestamp) -> Result<Operator, StoreError> {
    let certificate_expires = row.optional_time("certificate_expires")?;
    let state = match (certificate_expires, row.try_get::<Option<i64>, _>("id")?) {
        (Some(expires), _) if expires <= now => OperatorState::Expired,
        (Some(_), _) | (None, None) => OperatorState::Active,
        (None, Some(_)) => OperatorState::Invited,
    };
    Ok(Operator {
        name: row.parsed("name")?,
        state,
        grants: Vec::new(),
        created: row.time("created")?,
        certificate_expires,
        enrolment_expires: row.optional_time("enrolment_expires")?.filter(|expires| *expires > now),
    })
}

/// `None` in the row of an operator who has none.
fn grant(row: &SqliteRow) -> Result<Option<Grant>, StoreError> {
    if row.try_get::<Option<&str>, _>("role")?.is_none() {
        return Ok(None);
    }
    let environment: Option<&str> = row.try_get("environment")?;
    let environment = environment.map(str::parse).transpose();
    let environment = environment.map_err(|_| StoreError::Corrupt { column: "environment" })?;
    Ok(Some(Grant { role: row.parsed("role")?, environment }))
}
