//! How values of the manager stand in columns. What comes out of a column is checked again: whoever
//! edits the database must not be able to make the manager say what its grammar forbids.

use std::str::FromStr;

use jiff::Timestamp;
use secretfs_wire::api::{Assignment, NodeState};
use secretfs_wire::{KeyReference, Mode, Ownership};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::keys::{Wrapped, WrappedKey};
use crate::store::StoreError;

/// Typed access to a row's columns by name.
pub(super) trait Columns {
    /// A text in the grammar of `T`.
    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError>;
    /// The same where there may be none.
    fn optional<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError>;
    /// A number that is not negative.
    fn unsigned(&self, column: &'static str) -> Result<u64, StoreError>;
    /// A number that the id type `T` knows.
    fn id<T>(&self, column: &'static str, from: fn(u64) -> Option<T>) -> Result<T, StoreError>;
    /// A time in microseconds.
    fn time(&self, column: &'static str) -> Result<Timestamp, StoreError>;
    /// The same where there may be none.
    fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError>;
    fn bytes(&self, column: &'static str) -> Result<Vec<u8>, StoreError>;
    /// A value as JSON.
    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError>;
    /// The columns `key_backend` and `key_name`.
    fn key(&self) -> Result<KeyReference, StoreError>;
    /// These, and the columns `key_version` and `wrapped_key`.
    fn wrapped_key(&self) -> Result<WrappedKey, StoreError>;
    /// The columns `uid`, `gid` and `mode`.
    fn ownership(&self) -> Result<Ownership, StoreError>;
    /// The column `state` of a node.
    fn node_state(&self) -> Result<NodeState, StoreError>;
    /// The columns `kind` and `chosen`.
    fn assignment(&self) -> Result<Assignment, StoreError>;
}

impl Columns for SqliteRow {
    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        let text: &str = self.try_get(column)?;
        text.parse().map_err(|_| StoreError::Corrupt { column })
    }

    fn optional<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.try_get(column)?;
        text.map(str::parse).transpose().map_err(|_| StoreError::Corrupt { column })
    }

    fn unsigned(&self, column: &'static str) -> Result<u64, StoreError> {
        let number: i64 = self.try_get(column)?;
        u64::try_from(number).map_err(|_| StoreError::Corrupt { column })
    }

    fn id<T>(&self, column: &'static str, from: fn(u64) -> Option<T>) -> Result<T, StoreError> {
        from(self.unsigned(column)?).ok_or(StoreError::Corrupt { column })
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        Timestamp::from_microsecond(self.try_get(column)?).map_err(|_| StoreError::Corrupt { column })
    }

    fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        let microseconds: Option<i64> = self.try_get(column)?;
        let time = microseconds.map(Timestamp::from_microsecond).transpose();
        time.map_err(|_| StoreError::Corrupt { column })
    }

    fn bytes(&self, column: &'static str) -> Result<Vec<u8>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let text: &str = self.try_get(column)?;
        serde_json::from_str(text).map_err(|_| StoreError::Corrupt { column })
    }

    fn key(&self) -> Result<KeyReference, StoreError> {
        Ok(KeyReference { backend: self.parsed("key_backend")?, name: self.parsed("key_name")? })
    }

    fn wrapped_key(&self) -> Result<WrappedKey, StoreError> {
        let wrapped = Wrapped { version: self.unsigned("key_version")?, bytes: self.bytes("wrapped_key")? };
        Ok(WrappedKey { key: self.key()?, wrapped })
    }

    fn ownership(&self) -> Result<Ownership, StoreError> {
        let id = |column| u32::try_from(self.unsigned(column)?).map_err(|_| StoreError::Corrupt { column });
        let mode = u16::try_from(self.unsigned("mode")?).ok().and_then(Mode::from_bits);
        Ok(Ownership {
            uid: id("uid")?,
            gid: id("gid")?,
            mode: mode.ok_or(StoreError::Corrupt { column: "mode" })?,
        })
    }

    fn node_state(&self) -> Result<NodeState, StoreError> {
        match self.try_get("state")? {
            "pending" => Ok(NodeState::Pending),
            "active" => Ok(NodeState::Active),
            "revoked" => Ok(NodeState::Revoked),
            _ => Err(StoreError::Corrupt { column: "state" }),
        }
    }

    fn assignment(&self) -> Result<Assignment, StoreError> {
        match self.try_get("kind")? {
            "node" => self.parsed("chosen").map(Assignment::Node),
            "selector" => self.parsed("chosen").map(Assignment::Selector),
            _ => Err(StoreError::Corrupt { column: "kind" }),
        }
    }
}

/// A count or an id as SQL has it. Everything that the manager counts fits.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A value for [`Columns::json`].
pub(super) fn json_text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(error.into()))
}

pub(super) fn state_text(state: NodeState) -> &'static str {
    match state {
        NodeState::Pending => "pending",
        NodeState::Active => "active",
        NodeState::Revoked => "revoked",
    }
}

/// The columns `kind` and `chosen`.
pub(super) fn assignment_text(assignment: &Assignment) -> (&'static str, String) {
    match assignment {
        Assignment::Node(name) => ("node", name.to_string()),
        Assignment::Selector(selector) => ("selector", selector.to_string()),
    }
}
