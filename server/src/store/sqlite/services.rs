use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Assignment, Attachment, Service, ServiceDetails};
use secretfs_wire::audit::AuditMode;
use secretfs_wire::{EnvironmentName, SecretName, ServiceName, TargetName};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::columns::{Columns as _, assignment_text};
use super::secrets::secret_row_id;
use super::{Sqlite, inserting, require_environment, templates};
use crate::store::{Services, StoreError};

#[async_trait]
impl Services for Sqlite {
    async fn services(&self, environment: &EnvironmentName) -> Result<Vec<Service>, StoreError> {
        let mut transaction = self.read().await?;
        require_environment(&mut transaction, environment).await?;
        let rows = sqlx::query(
            "SELECT name, created,
                 (SELECT count(*) FROM attachments WHERE service = services.id) AS attachments,
                 (SELECT count(*) FROM assignments WHERE service = services.id) AS assignments
             FROM services WHERE environment = ? ORDER BY name",
        )
        .bind(environment.as_str())
        .fetch_all(&mut *transaction)
        .await?;
        let service = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Service {
                name: row.parsed("name")?,
                attachments: row.unsigned("attachments")?,
                assignments: row.unsigned("assignments")?,
                created: row.time("created")?,
            })
        };
        rows.iter().map(service).collect()
    }

    async fn service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<ServiceDetails, StoreError> {
        let mut transaction = self.read().await?;
        let id = service_row_id(&mut transaction, environment, name).await?;
        let row = sqlx::query("SELECT created FROM services WHERE id = ?")
            .bind(id)
            .fetch_one(&mut *transaction)
            .await?;
        let attachments = sqlx::query(
            "SELECT a.target, s.name AS secret, a.uid, a.gid, a.mode, a.audit
             FROM attachments a JOIN secrets s ON s.id = a.secret
             WHERE a.service = ? ORDER BY a.target",
        )
        .bind(id)
        .fetch_all(&mut *transaction)
        .await?;
        let attachment = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Attachment {
                target: row.parsed("target")?,
                secret: row.parsed("secret")?,
                ownership: row.ownership()?,
                audit: row.parsed("audit")?,
            })
        };
        let assignments =
            sqlx::query("SELECT kind, chosen FROM assignments WHERE service = ? ORDER BY kind, chosen")
                .bind(id)
                .fetch_all(&mut *transaction)
                .await?;
        Ok(ServiceDetails {
            name: name.clone(),
            created: row.time("created")?,
            attachments: attachments.iter().map(attachment).collect::<Result<_, StoreError>>()?,
            templates: templates::of_service(&mut transaction, id).await?,
            assignments: assignments.iter().map(|row| row.assignment()).collect::<Result<_, _>>()?,
        })
    }

    async fn create_service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
        now: Timestamp,
    ) -> Result<Service, StoreError> {
        let mut transaction = self.write().await?;
        require_environment(&mut transaction, environment).await?;
        sqlx::query("INSERT INTO services (environment, name, created) VALUES (?, ?, ?)")
            .bind(environment.as_str())
            .bind(name.as_str())
            .bind(now.as_microsecond())
            .execute(&mut *transaction)
            .await
            .map_err(inserting("service", name))?;
        transaction.commit().await?;
        Ok(Service { name: name.clone(), attachments: 0, assignments: 0, created: now })
    }

    async fn remove_service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let id = service_row_id(&mut transaction, environment, name).await?;
        sqlx::query("DELETE FROM services WHERE id = ?").bind(id).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    async fn attach(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        attachment: &Attachment,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let service = service_row_id(&mut transaction, environment, service).await?;
        let secret = secret_row_id(&mut transaction, environment, &attachment.secret).await?;
        let Attachment { target, ownership, audit, .. } = attachment;
        if templates::is_template(&mut transaction, service, target).await? {
            return Err(StoreError::TargetTaken { target: target.to_string() });
        }
        let there = sqlx::query(
            "SELECT secret, uid, gid, mode, audit FROM attachments WHERE service = ? AND target = ?",
        )
        .bind(service)
        .bind(target.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(row) = there {
            if row.try_get::<i64, _>("secret")? != secret {
                return Err(StoreError::TargetTaken { target: target.to_string() });
            }
            if row.ownership()? == *ownership && row.parsed::<AuditMode>("audit")? == *audit {
                return Ok(());
            }
        }
        sqlx::query(
            "INSERT INTO attachments (service, target, secret, uid, gid, mode, audit, changed)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (service, target) DO UPDATE
             SET uid = excluded.uid, gid = excluded.gid, mode = excluded.mode, audit = excluded.audit,
                 changed = excluded.changed",
        )
        .bind(service)
        .bind(target.as_str())
        .bind(secret)
        .bind(ownership.uid)
        .bind(ownership.gid)
        .bind(ownership.mode.bits())
        .bind(audit.as_str())
        .bind(now.as_microsecond())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    async fn detach(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        secret: &SecretName,
        target: Option<&TargetName>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let service = service_row_id(&mut transaction, environment, service).await?;
        let id = secret_row_id(&mut transaction, environment, secret).await?;
        let gone = sqlx::query(
            "SELECT target FROM attachments WHERE service = ? AND secret = ? AND target = coalesce(?, target)",
        )
        .bind(service)
        .bind(id)
        .bind(target.map(TargetName::as_str))
        .fetch_all(&mut *transaction)
        .await?;
        if gone.is_empty() {
            return Err(StoreError::missing("attachment of secret", secret));
        }
        for row in &gone {
            let target: &str = row.try_get("target")?;
            let by = templates::made_from(&mut transaction, service, target).await?;
            if !by.is_empty() {
                return Err(StoreError::InTemplates { name: secret.to_string(), by });
            }
            sqlx::query("DELETE FROM attachments WHERE service = ? AND target = ?")
                .bind(service)
                .bind(target)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn assign(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let service = service_row_id(&mut transaction, environment, service).await?;
        let (kind, chosen) = assignment_text(assignment);
        let added = sqlx::query(
            "INSERT INTO assignments (service, kind, chosen) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(service)
        .bind(kind)
        .bind(chosen)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(added.rows_affected() == 1)
    }

    async fn unassign(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let service = service_row_id(&mut transaction, environment, service).await?;
        let (kind, chosen) = assignment_text(assignment);
        let gone = sqlx::query("DELETE FROM assignments WHERE service = ? AND kind = ? AND chosen = ?")
            .bind(service)
            .bind(kind)
            .bind(&chosen)
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Err(StoreError::missing("assignment to", chosen));
        }
        Ok(transaction.commit().await?)
    }
}

pub(super) async fn service_row_id(
    connection: &mut SqliteConnection,
    environment: &EnvironmentName,
    name: &ServiceName,
) -> Result<i64, StoreError> {
    require_environment(connection, environment).await?;
    let row = sqlx::query("SELECT id FROM services WHERE environment = ? AND name = ?")
        .bind(environment.as_str())
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.ok_or_else(|| StoreError::missing("service", name))?.try_get("id")?)
}
