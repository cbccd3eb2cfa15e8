//! What policies speak of, and the policies that ship with the manager: read once for a process.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::LazyLock;

use cedar_policy::{
    Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Schema, ValidationMode, Validator,
};
use secretfs_wire::Action;

use super::Verdict;
use super::context::Fact;
use super::text::{PolicyError, parse};
use crate::authn::Identity;

/// The schema, in Cedar's own form.
pub(crate) const SCHEMA: &str = include_str!("secretfs.cedarschema");

/// The policies that ship with the manager, by file name.
pub(crate) const BUILTIN: [(&str, &str); 9] = [
    ("admin.cedar", include_str!("builtin/admin.cedar")),
    ("auditor.cedar", include_str!("builtin/auditor.cedar")),
    ("editor.cedar", include_str!("builtin/editor.cedar")),
    ("granter.cedar", include_str!("builtin/granter.cedar")),
    ("join.cedar", include_str!("builtin/join.cedar")),
    ("node-admin.cedar", include_str!("builtin/node-admin.cedar")),
    ("node.cedar", include_str!("builtin/node.cedar")),
    ("operator.cedar", include_str!("builtin/operator.cedar")),
    ("viewer.cedar", include_str!("builtin/viewer.cedar")),
];

/// How the ids of these policies begin; no other policy may have such a one.
pub(super) const RESERVED: &str = "secretfs/";

static MODEL: LazyLock<Model> =
    LazyLock::new(|| Model::read().expect("the schema and the policies of this program are tested"));

/// Schema and built-in policies, ready to decide with.
pub(super) struct Model {
    pub(super) schema: Schema,
    pub(super) types: Types,
    pub(super) builtin: PolicySet,
    validator: Validator,
    actions: HashMap<Action, ActionModel>,
}

/// What the schema says of an action.
pub(super) struct ActionModel {
    /// The action with the groups that it is in.
    pub(super) entity: Entity,
    /// Who can be asked for it at all.
    pub(super) callers: Callers,
    /// What it can be about.
    pub(super) resources: Vec<EntityTypeName>,
    /// What else there is to say of it.
    pub(super) facts: &'static [Fact],
}

/// Whom an action can be asked by. Which of them may do it is for policies to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Callers {
    pub(super) anonymous: bool,
    pub(super) node: bool,
    pub(super) operator: bool,
}

impl Callers {
    /// Refuses who is not among them.
    pub(super) const fn refuse(self, identity: &Identity) -> Option<Verdict> {
        match identity {
            Identity::Anonymous if !self.anonymous => Some(Verdict::Unauthenticated),
            Identity::Node(_) if !self.node => Some(Verdict::WrongCaller("node")),
            Identity::Operator(_) if !self.operator => Some(Verdict::WrongCaller("operator")),
            Identity::Anonymous | Identity::Node(_) | Identity::Operator(_) => None,
        }
    }
}

macro_rules! types {
    ($($field:ident = $name:literal,)*) => {
        /// The entity types.
        pub(super) struct Types {
            $(pub(super) $field: EntityTypeName,)*
        }

        impl Types {
            fn new() -> Result<Self, Box<cedar_policy::ParseErrors>> {
                Ok(Self { $($field: $name.parse().map_err(Box::new)?,)* })
            }
        }
    };
}

types! {
    action = "Action",
    role = "Role",
    operator = "Operator",
    node = "Node",
    anonymous = "Anonymous",
    environment = "Environment",
    secret = "Secret",
    service = "Service",
    key = "Key",
    manager = "Manager",
}

/// An entity's id.
pub(super) fn uid(of: &EntityTypeName, id: impl AsRef<str>) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

impl Model {
    /// This process's.
    pub(super) fn get() -> &'static Self {
        &MODEL
    }

    fn read() -> Result<Self, Box<dyn std::error::Error>> {
        let schema = Schema::from_str(SCHEMA)?;
        let types = Types::new()?;
        let entities = schema.action_entities()?;
        let mut actions = HashMap::new();
        for action in Action::ALL {
            let uid = uid(&types.action, action.as_str());
            let (Some(entity), Some(principals)) = (entities.get(&uid), schema.principals_for_action(&uid))
            else {
                continue;
            };
            let mut callers = Callers::default();
            for principal in principals {
                callers.anonymous |= *principal == types.anonymous;
                callers.node |= *principal == types.node;
                callers.operator |= *principal == types.operator;
            }
            let resources = schema.resources_for_action(&uid).into_iter().flatten().cloned().collect();
            actions.insert(
                *action,
                ActionModel { entity: entity.clone(), callers, resources, facts: Fact::of(*action) },
            );
        }
        let mut builtin = PolicySet::new();
        let validator = Validator::new(schema.clone());
        for (file, text) in BUILTIN {
            builtin.merge(&parse(file, text, &validator)?, false)?;
        }
        Ok(Self { schema, types, builtin, validator, actions })
    }

    /// What the schema says of an action; `None` of what only the audit log speaks of.
    pub(super) fn action(&self, action: Action) -> Option<&ActionModel> {
        self.actions.get(&action)
    }

    /// Reads a file of policies that do not ship with the manager.
    pub(super) fn parse(&self, file: &str, text: &str) -> Result<PolicySet, PolicyError> {
        let policies = parse(file, text, &self.validator)?;
        let mut ids = policies.policies().map(|policy| policy.id().to_string());
        let reserved = ids.find(|id| id.starts_with(RESERVED));
        drop(ids);
        match reserved {
            Some(id) => {
                let problem = format!("@id({id:?}): ids of {RESERVED} are of policies that ship with it");
                Err(PolicyError::new(file, None, problem))
            }
            None => Ok(policies),
        }
    }
}

/// How policies are validated: all of them strictly.
pub(super) const MODE: ValidationMode = ValidationMode::Strict;
