use serde::{Deserialize, Serialize};

/// How the manager does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// The manager's version.
    pub version: String,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How the manager does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HealthState {
    /// It serves. HTTP status 200.
    Healthy,
    /// It cannot reach its store or its keys. HTTP status 503.
    Unhealthy,
    /// It runs and waits for its unlock key; it serves nothing else. HTTP status 503.
    Sealed,
    /// It is shutting down: send no new work. HTTP status 503.
    Stopping,
}
