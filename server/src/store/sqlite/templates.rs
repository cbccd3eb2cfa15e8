use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Template, TemplateDetails};
use secretfs_wire::manifest::RawTemplate;
use secretfs_wire::{EnvironmentName, ServiceName, TargetName};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::Sqlite;
use super::columns::Columns as _;
use super::services::service_row_id;
use crate::store::{NewTemplate, StoreError, Templates};

#[async_trait]
impl Templates for Sqlite {
    async fn template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<TemplateDetails, StoreError> {
        let mut transaction = self.read().await?;
        let service = service_row_id(&mut transaction, environment, service).await?;
        load(&mut transaction, service, target).await?.ok_or_else(|| StoreError::missing("template", target))
    }

    async fn set_template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        new: NewTemplate<'_>,
        now: Timestamp,
    ) -> Result<TemplateDetails, StoreError> {
        let mut transaction = self.write().await?;
        let service = service_row_id(&mut transaction, environment, service).await?;
        let target = new.target;
        if is_attached(&mut transaction, service, target).await? {
            return Err(StoreError::TargetTaken { target: target.to_string() });
        }
        for input in new.template.inputs() {
            if !is_attached(&mut transaction, service, input).await? {
                return Err(StoreError::InputMissing { input: input.clone() });
            }
        }
        if let Some(there) = load(&mut transaction, service, target).await?
            && there.text == new.template.text()
            && there.template.ownership == new.ownership
        {
            return Ok(there);
        }
        sqlx::query(
            "INSERT INTO templates (service, target, text, uid, gid, mode, changed)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (service, target) DO UPDATE
             SET text = excluded.text, uid = excluded.uid, gid = excluded.gid, mode = excluded.mode,
                 changed = excluded.changed",
        )
        .bind(service)
        .bind(target.as_str())
        .bind(new.template.text())
        .bind(new.ownership.uid)
        .bind(new.ownership.gid)
        .bind(new.ownership.mode.bits())
        .bind(now.as_microsecond())
        .execute(&mut *transaction)
        .await?;
        set_inputs(&mut transaction, service, &new).await?;
        let set = load(&mut transaction, service, target).await?;
        transaction.commit().await?;
        set.ok_or_else(|| StoreError::missing("template", target))
    }

    async fn remove_template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let service = service_row_id(&mut transaction, environment, service).await?;
        let gone = sqlx::query("DELETE FROM templates WHERE service = ? AND target = ?")
            .bind(service)
            .bind(target.as_str())
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Err(StoreError::missing("template", target));
        }
        Ok(transaction.commit().await?)
    }
}

async fn is_attached(
    connection: &mut SqliteConnection,
    service: i64,
    target: &TargetName,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM attachments WHERE service = ? AND target = ?")
        .bind(service)
        .bind(target.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

async fn set_inputs(
    connection: &mut SqliteConnection,
    service: i64,
    new: &NewTemplate<'_>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM template_inputs WHERE service = ? AND template = ?")
        .bind(service)
        .bind(new.target.as_str())
        .execute(&mut *connection)
        .await?;
    for input in new.template.inputs() {
        sqlx::query("INSERT INTO template_inputs (service, template, input) VALUES (?, ?, ?)")
            .bind(service)
            .bind(new.target.as_str())
            .bind(input.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The templates that are made from a target, by target.
pub(super) async fn made_from(
    connection: &mut SqliteConnection,
    service: i64,
    input: &str,
) -> Result<Vec<TargetName>, StoreError> {
    let rows =
        sqlx::query("SELECT template FROM template_inputs WHERE service = ? AND input = ? ORDER BY template")
            .bind(service)
            .bind(input)
            .fetch_all(connection)
            .await?;
    rows.iter().map(|row| row.parsed("template")).collect()
}

/// Whether a target is a template's.
pub(super) async fn is_template(
    connection: &mut SqliteConnection,
    service: i64,
    target: &TargetName,
) -> Result<bool, StoreError> {
    Ok(load(connection, service, target).await?.is_some())
}

/// As nodes are told of them, by target. A template has changed when a secret that it is made from has:
/// what is attached to its inputs cannot change otherwise.
pub(super) async fn in_manifest(
    connection: &mut SqliteConnection,
    environment: &EnvironmentName,
) -> Result<BTreeMap<ServiceName, Vec<RawTemplate>>, StoreError> {
    let rows = sqlx::query(
        "SELECT e.name AS service, t.target, t.text, t.uid, t.gid, t.mode,
             max(t.changed, coalesce((
                 SELECT max(s.changed) FROM template_inputs i
                 JOIN attachments a ON a.service = i.service AND a.target = i.input
                 JOIN secrets s ON s.id = a.secret
                 WHERE i.service = t.service AND i.template = t.target
             ), 0)) AS modified
         FROM templates t JOIN services e ON e.id = t.service
         WHERE e.environment = ? ORDER BY t.target",
    )
    .bind(environment.as_str())
    .fetch_all(connection)
    .await?;
    let mut services: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in &rows {
        let ownership = row.ownership()?;
        services.entry(row.parsed("service")?).or_default().push(RawTemplate {
            target: row.try_get("target")?,
            text: row.try_get("text")?,
            uid: ownership.uid,
            gid: ownership.gid,
            mode: ownership.mode.bits(),
            modified: row.time("modified")?,
        });
    }
    Ok(services)
}

/// The templates of a service, by target.
pub(super) async fn of_service(
    connection: &mut SqliteConnection,
    service: i64,
) -> Result<Vec<Template>, StoreError> {
    let all = select(connection, service, None).await?;
    Ok(all.into_iter().map(|details| details.template).collect())
}

async fn load(
    connection: &mut SqliteConnection,
    service: i64,
    target: &TargetName,
) -> Result<Option<TemplateDetails>, StoreError> {
    Ok(select(connection, service, Some(target)).await?.pop())
}

/// One of them, or all.
async fn select(
    connection: &mut SqliteConnection,
    service: i64,
    target: Option<&TargetName>,
) -> Result<Vec<TemplateDetails>, StoreError> {
    let rows = sqlx::query(
        "SELECT t.target, t.text, t.uid, t.gid, t.mode, t.changed,
             (SELECT json_group_array(input) FROM (
                  SELECT input FROM template_inputs
                  WHERE service = t.service AND template = t.target ORDER BY input
             )) AS inputs
         FROM templates t WHERE t.service = ? AND t.target = coalesce(?, t.target) ORDER BY t.target",
    )
    .bind(service)
    .bind(target.map(TargetName::as_str))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok(TemplateDetails { template: template(row)?, text: row.try_get("text")? }))
        .collect()
}

fn template(row: &SqliteRow) -> Result<Template, StoreError> {
    Ok(Template {
        target: row.parsed("target")?,
        inputs: row.json("inputs")?,
        ownership: row.ownership()?,
        changed: row.time("changed")?,
    })
}
