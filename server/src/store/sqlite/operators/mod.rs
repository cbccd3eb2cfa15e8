mod rows;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Operator, OperatorState};
use secretfs_wire::{EnvironmentName, Grant, OperatorId, OperatorName, Role};
use sqlx::sqlite::SqliteConnection;

use super::columns::{Columns as _, integer};
use super::tokens::withdraw_tokens_of;
use super::{Sqlite, require_environment};
use crate::store::{NewEnrolment, NewOperator, Operators, StoreError};

use rows::{OPERATORS, grant, insert, insert_enrolment, insert_grant, load, operator};

const ADMIN_EVERYWHERE: Grant = Grant { role: Role::Admin, environment: None };

#[async_trait]
impl Operators for Sqlite {
    async fn add_operator(&self, new: NewOperator) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        insert(&mut transaction, &new).await?;
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
        operators.retain(|operator| {
            scope.is_none() || operator.scope.as_ref() == scope || !operator.grants.is_empty()
        });
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
        let within = match scope {
            Some(environment) if !decides_over(&mut transaction, &operator, environment, now).await? => scope,
            _ => None,
        };
        match within {
            Some(environment) => take_roles(&mut transaction, &operator, environment).await?,
            None => remove(&mut transaction, &operator, now).await?,
        }
        let withdrawn = withdraw_tokens_of(&mut transaction, name, within, now).await?;
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
        let before = load(&mut transaction, name, now).await?;
        if before.scope.is_some() && grant.environment != before.scope {
            return Err(StoreError::RoleOutsideScope { name: before.name });
        }
        insert_grant(&mut transaction, name, grant).await?;
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
        require_scope(&mut transaction, &operator, enrolment.scope.as_ref(), now).await?;
        if operator.state == OperatorState::Invited {
            set_scope(&mut transaction, name, enrolment.scope.as_ref()).await?;
        }
        insert_enrolment(&mut transaction, name, &enrolment).await?;
        Ok(transaction.commit().await?)
    }

    async fn cancel_enrolment(
        &self,
        name: &OperatorName,
        scope: Option<&EnvironmentName>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let operator = load(&mut transaction, name, now).await?;
        require_scope(&mut transaction, &operator, scope, now).await?;
        if operator.enrolment_expires.is_none() {
            return Err(StoreError::missing("open enrolment of operator", name));
        }
        sqlx::query("DELETE FROM enrolments WHERE operator = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await?;
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
        let used = "DELETE FROM enrolments WHERE digest = ? AND expires > ? RETURNING operator, scope";
        let row = sqlx::query(used)
            .bind(digest.as_slice())
            .bind(now.as_microsecond())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(StoreError::TokenRefused)?;
        let name: OperatorName = row.parsed("operator")?;
        set_scope(&mut transaction, &name, row.optional("scope")?.as_ref()).await?;
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
                let new = NewOperator {
                    name: name.clone(),
                    id: OperatorId::random(),
                    scope: None,
                    grants: Vec::new(),
                    created: now,
                    certificate_expires: None,
                    enrolment: None,
                };
                insert(&mut transaction, &new).await?;
            }
            Ok(Operator { scope: Some(_), .. }) => {
                // Whoever has that key was not to administer everything.
                set_scope(&mut transaction, name, None).await?;
                sqlx::query("UPDATE operators SET id = ?, certificate_expires = NULL WHERE name = ?")
                    .bind(integer(OperatorId::random().as_u64()))
                    .bind(name.as_str())
                    .execute(&mut *transaction)
                    .await?;
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

/// Whether those who may decide in one environment only decide who somebody is: not if another one or all have
/// enrolled them, or have a token out for them.
async fn decides_over(
    connection: &mut SqliteConnection,
    operator: &Operator,
    environment: &EnvironmentName,
    now: Timestamp,
) -> Result<bool, StoreError> {
    require_environment(connection, environment).await?;
    let wider = sqlx::query("SELECT 1 FROM enrolments WHERE operator = ? AND scope IS NOT ? AND expires > ?")
        .bind(operator.name.as_str())
        .bind(environment.as_str())
        .bind(now.as_microsecond())
        .fetch_optional(connection)
        .await?;
    Ok(operator.scope.as_ref() == Some(environment) && wider.is_none())
}

async fn require_scope(
    connection: &mut SqliteConnection,
    operator: &Operator,
    scope: Option<&EnvironmentName>,
    now: Timestamp,
) -> Result<(), StoreError> {
    match scope {
        Some(environment) if !decides_over(connection, operator, environment, now).await? => {
            Err(other_scope(operator, environment))
        }
        _ => Ok(()),
    }
}

fn other_scope(operator: &Operator, environment: &EnvironmentName) -> StoreError {
    StoreError::OtherScope { name: operator.name.clone(), environment: environment.clone() }
}

/// Takes the roles in an environment from somebody who belongs to others.
async fn take_roles(
    connection: &mut SqliteConnection,
    operator: &Operator,
    environment: &EnvironmentName,
) -> Result<(), StoreError> {
    let taken = sqlx::query("DELETE FROM grants WHERE operator = ? AND environment = ?")
        .bind(operator.name.as_str())
        .bind(environment.as_str())
        .execute(connection)
        .await?;
    if taken.rows_affected() == 0 { Err(other_scope(operator, environment)) } else { Ok(()) }
}

async fn remove(
    connection: &mut SqliteConnection,
    operator: &Operator,
    now: Timestamp,
) -> Result<(), StoreError> {
    if operator.grants.contains(&ADMIN_EVERYWHERE) {
        require_another_admin(connection, &operator.name, now).await?;
    }
    sqlx::query("DELETE FROM operators WHERE name = ?")
        .bind(operator.name.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn set_scope(
    connection: &mut SqliteConnection,
    name: &OperatorName,
    scope: Option<&EnvironmentName>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE operators SET scope = ? WHERE name = ?")
        .bind(scope.map(EnvironmentName::as_str))
        .bind(name.as_str())
        .execute(connection)
        .await?;
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
