use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::AuditMode;
use crate::{NodeName, Ownership, SecretName, Selector, ServiceName, TargetName};

/// A named consumer of secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// How many secrets are attached to it.
    pub attachments: u64,
    /// How many assignments it has.
    pub assignments: u64,
    /// When it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

/// A service with its attachments and assignments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceDetails {
    /// Its name.
    pub name: ServiceName,
    /// When it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
    /// Its attachments, by target.
    pub attachments: Vec<Attachment>,
    /// Its templates, by target.
    #[serde(default)]
    pub templates: Vec<Template>,
    /// Where it runs.
    pub assignments: Vec<Assignment>,
}

/// A secret that a service sees as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attachment {
    /// The file name.
    pub target: TargetName,
    /// The secret.
    pub secret: SecretName,
    /// Who may read it on the node.
    #[serde(flatten)]
    pub ownership: Ownership,
    /// When an open of it has to be on record.
    #[serde(default)]
    pub audit: AuditMode,
}

/// Asks to attach a secret to a service. An attachment of the same secret to the same target is
/// changed; a target that holds something else is a conflict.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attach {
    /// The secret.
    pub secret: SecretName,
    /// The file name; the secret's name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// Who may read it on the node: 0, 0 and 0444 by default.
    #[serde(flatten)]
    pub ownership: Ownership,
    /// When an open of it has to be on record: soon after, by default.
    #[serde(default)]
    pub audit: AuditMode,
}

/// A file that a service sees, made on the node from secrets that are attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Template {
    /// The file name.
    pub target: TargetName,
    /// The targets that it is made from.
    pub inputs: Vec<TargetName>,
    /// Who may read it on the node.
    #[serde(flatten)]
    pub ownership: Ownership,
    /// When its text or its ownership was changed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub changed: Timestamp,
}

/// A template with its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateDetails {
    /// The template.
    #[serde(flatten)]
    pub template: Template,
    /// What is rendered. It is configuration, and no secret.
    pub text: String,
}

/// Where a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Assignment {
    /// On the node of this name, also when it joins only later.
    Node(NodeName),
    /// On every node that has these labels.
    Selector(Selector),
}
