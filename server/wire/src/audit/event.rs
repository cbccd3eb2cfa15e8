use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Action, CallId, EnvironmentName, KeyName, NodeId, NodeName, OpenLogId, OperatorId, OperatorName,
    SecretName, ServiceName, TargetName,
};

/// Something that was done, or tried. It holds names and numbers; never a value, a part of one, or a
/// digest of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// What.
    pub action: Action,
    /// How it went.
    pub outcome: Outcome,
    /// Which call, of one that has a record when it begins and one when it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// By whom.
    pub actor: Actor,
    /// From where, as the manager saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// In which environment, if in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// On what.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub object: Object,
    /// Why it was denied or failed, or what else there is to say, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policies that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// What a file was made from that is rendered from a template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// The program, of what happened at a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// When it happened, of what a node reports later, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub happened: Option<Timestamp>,
    /// Of what a node reports: its id there. A report that comes again makes no second record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// How many, of what is counted and not told one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What of it is a node's word alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubt>,
    /// Of opens that a node lost: how many there were in all. `count` is how many came since it was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

impl Event {
    /// One of which nothing else is known yet.
    pub const fn new(action: Action, outcome: Outcome, actor: Actor) -> Self {
        Self {
            action,
            outcome,
            call: None,
            actor,
            address: None,
            environment: None,
            object: Object::NONE,
            reason: None,
            policies: Vec::new(),
            inputs: Vec::new(),
            process: None,
            happened: None,
            id: None,
            count: None,
            doubts: Vec::new(),
            lost: None,
        }
    }
}

/// How far something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// It is allowed and about to be done: written before a change, so that none is without a record.
    Begun,
    /// It was done.
    Done,
    /// It was not allowed.
    Denied,
    /// It was allowed and went wrong.
    Failed,
}

impl Outcome {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Actor {
    /// Nobody that is known: a host that joins, an operator who logs in.
    Anonymous,
    /// An operator.
    Operator {
        /// The operator's name.
        name: OperatorName,
        /// The id: another operator may have had the name, or the same one another key. None of one whose
        /// certificate was made without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<OperatorId>,
    },
    /// A node.
    Node {
        /// The environment that it joined.
        environment: EnvironmentName,
        /// Its name.
        name: NodeName,
        /// Its id: another node may have had the name.
        id: NodeId,
    },
    /// The manager itself.
    Manager,
}

/// As people write it: `operator/alice`, `node/web-1`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Operator { name, .. } => write!(f, "operator/{name}"),
            Self::Node { name, .. } => write!(f, "node/{name}"),
            Self::Manager => f.write_str("manager"),
        }
    }
}

/// What something is done to; several parts where it takes several names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Object {
    /// A secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// A version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// A service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// A file of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// A node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// An operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorName>,
    /// A key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyName>,
}

impl Object {
    /// Nothing in particular.
    pub const NONE: Self = Self {
        secret: None,
        version: None,
        service: None,
        target: None,
        node: None,
        operator: None,
        key: None,
    };

    /// Whether it is nothing in particular.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }
}

/// A version of a secret, of which a file was made with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Input {
    /// The secret.
    pub secret: SecretName,
    /// The version's number.
    pub version: u64,
}

/// What a node says and the manager could not confirm when it recorded it. A node that is honest gives
/// cause for it too: it reports late what was in order when it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Doubt {
    /// Which secret it was, or which version: the manager does not have it, or no longer.
    Version,
    /// That it was there to be opened: the node has no such file, or no longer.
    Place,
    /// That it is one event: the node told another one under the same id before.
    Id,
}

impl Doubt {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Place => "place",
            Self::Id => "id",
        }
    }
}

/// Why nobody has looked who a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Unseen {
    /// The node daemon cannot see it: it is not in its process namespace, or was gone.
    NotVisible,
    /// It could not be said in time.
    TooLate,
    /// There is nobody who looks.
    NoWitness,
}

impl Unseen {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotVisible => "not_visible",
            Self::TooLate => "too_late",
            Self::NoWitness => "no_witness",
        }
    }
}

/// A program on a node, as its kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Process {
    /// The user that it opened the file as.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Its process id, as the node daemon sees it. 0 of a process that it cannot see; where `unseen` says
    /// why nothing else is known, the id of the thread.
    pub pid: u32,
    /// Why nothing more is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Unseen>,
    /// When it was started, so that it is not taken for another one that had its process id before or
    /// after. By the node's clock, to 10 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started: Option<Timestamp>,
    /// The path of its program, in its own mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Its control group (cgroups(7)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The id of its container, if its control group is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// What a node's own record of something is known by, so that it can be told twice and be recorded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventId {
    /// The node's memory that it was in.
    pub log: OpenLogId,
    /// Its number there. Written as text: JSON readers round large numbers.
    #[serde(with = "as_text")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub number: u64,
}

/// How many opens one memory of a node had no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lost {
    /// The memory.
    pub log: OpenLogId,
    /// How many so far.
    pub total: u64,
}

mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
