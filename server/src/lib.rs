//! The secretfs manager as a library: the only place that can decrypt what is stored.
//!
//! [`Manager::init`] makes a new one, [`Manager::open`] opens it and [`run`] serves it over mutually
//! authenticated TLS 1.3 until it is told to stop. From outside to inside: `listener` terminates TLS,
//! `authn` says who asks and `authz` who may, `api` takes requests apart, `app` carries them out, on
//! `store` and `keys`. Until it is unlocked it is `sealed`, and `seal` hears what opens it.

#![forbid(unsafe_code)]

mod api;
mod app;
#[cfg(test)]
mod at_rest;
mod audit;
mod authn;
mod authz;
#[cfg(test)]
#[path = "../../tests/backends/mod.rs"]
mod backends;
mod backup;
mod ca;
mod config;
mod data_dir;
mod error;
mod keys;
mod limits;
mod listener;
mod manager;
mod metrics;
mod run;
mod seal;
mod sealed;
mod store;
#[cfg(test)]
mod testing;

pub use authz::PolicyError;
pub use authz::trial::{
    CaseNode, CaseOutcome, Expected, PolicyCase, PolicyCases, PolicyTrial, builtin_policies, policy_schema,
};
pub use backup::{About, BackupError, backup, restore};
pub use config::{
    Config, InvalidConfig, LimitsConfig, PinSource, Pkcs11Config, RawAppRoleConfig, RawConfig,
    RawLimitsConfig, RawPkcs11Config, RawVaultConfig, RequestRate, TokenChoice, VaultConfig, VaultLogin,
};
pub use manager::{FirstSteps, InitError, Manager, OpenError, Opening, OperatorCredentials};
pub use run::{RunError, run};
pub use seal::{
    AuditAsideError, AutoUnlock, InvalidSplit, NewSeal, RecoveryError, Refusal, RekeyError, SealPlan,
    SetAside, Split, StoppedError, StoppedManager, UnlockClient, UnlockClientError, UnlockMeans,
    UnlockProgress,
};
pub use sealed::SealedManager;
