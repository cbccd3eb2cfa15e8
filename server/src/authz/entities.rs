//! From who asks and what for to the entities that policies speak of; only those that a request needs.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use cedar_policy::{Entities, Entity, EntityUid, Request, RestrictedExpression};
use secretfs_wire::{EnvironmentName, Grant, OperatorName, Role};

use super::model::{ActionModel, Model, uid};
use super::resource::{Kind, Resource, Target};
use crate::authn::{Identity, NodeIdentity};
use crate::error::Cause;

type Attributes = HashMap<String, RestrictedExpression>;

/// A question to the policies: the request, and all they can look at.
pub(super) struct Question {
    pub(super) request: Request,
    pub(super) entities: Entities,
}

impl Question {
    /// # Errors
    /// When the schema does not have this action for this caller or this kind of thing.
    pub(super) fn new(
        model: &Model,
        identity: &Identity,
        action: &ActionModel,
        target: &Target<'_>,
        resource: &Resource,
        address: IpAddr,
    ) -> Result<Self, Cause> {
        let mut built = Builder { model, entities: vec![action.entity.clone()] };
        let environment = match target {
            Target::Environment(name) | Target::Inside(name, ..) => Some(*name),
            Target::OwnNode(node) => Some(&node.environment),
            Target::Manager | Target::Key(_) | Target::Operator(_) => None,
        };
        let principal = built.principal(identity, environment)?;
        let target = built.target(target)?;
        if let Some(environment) = environment {
            built.environment(environment)?;
        }
        // The caller's own environment is there too when it is asked about nothing in it.
        if let (Identity::Node(node), None) = (identity, environment) {
            built.environment(&node.environment)?;
        }
        let context = built.context(action.facts, resource, address)?;
        let request = Request::new(principal, action.entity.uid(), target, context, Some(&model.schema))?;
        // Their form is this module's own doing; what they are built from has been checked.
        let schema = cfg!(debug_assertions).then_some(&model.schema);
        if schema.is_some() {
            built.entities.retain(|entity| *entity.uid().type_name() != model.types.action);
        }
        Ok(Self { request, entities: Entities::from_entities(built.entities, schema)? })
    }
}

/// What a request needs, so far.
pub(super) struct Builder<'a> {
    model: &'a Model,
    entities: Vec<Entity>,
}

impl Builder<'_> {
    fn add(
        &mut self,
        uid: EntityUid,
        attributes: Attributes,
        parents: HashSet<EntityUid>,
    ) -> Result<(), Cause> {
        // Who asks may be what is asked about.
        if !self.entities.iter().any(|entity| entity.uid() == uid) {
            self.entities.push(Entity::new(uid, attributes, parents)?);
        }
        Ok(())
    }

    fn principal(
        &mut self,
        identity: &Identity,
        environment: Option<&EnvironmentName>,
    ) -> Result<EntityUid, Cause> {
        let types = &self.model.types;
        match identity {
            Identity::Anonymous => {
                let uid = uid(&types.anonymous, "anonymous");
                self.add(uid.clone(), HashMap::new(), HashSet::new())?;
                Ok(uid)
            }
            Identity::Node(node) => self.node(node),
            Identity::Operator(operator) => {
                let uid = uid(&types.operator, operator.name.as_str());
                let roles = self.roles(&operator.grants, environment);
                self.add(uid.clone(), named(operator.name.as_str()), roles)?;
                Ok(uid)
            }
        }
    }

    /// The roles that grants give. Who has one everywhere has it in the environment that is asked about.
    fn roles(&self, grants: &[Grant], environment: Option<&EnvironmentName>) -> HashSet<EntityUid> {
        let mut roles = HashSet::new();
        for Grant { role, environment: within } in grants {
            match within {
                Some(within) => {
                    roles.insert(self.role(*role, Some(within)));
                }
                None => {
                    roles.insert(self.role(*role, None));
                    roles.extend(environment.map(|environment| self.role(*role, Some(environment))));
                }
            }
        }
        roles
    }

    fn role(&self, role: Role, environment: Option<&EnvironmentName>) -> EntityUid {
        match environment {
            Some(environment) => uid(&self.model.types.role, format!("{environment}/{role}")),
            None => uid(&self.model.types.role, role.as_str()),
        }
    }

    fn target(&mut self, target: &Target<'_>) -> Result<EntityUid, Cause> {
        let types = &self.model.types;
        match target {
            Target::Manager => {
                let uid = uid(&types.manager, "manager");
                self.add(uid.clone(), HashMap::new(), HashSet::new())?;
                Ok(uid)
            }
            Target::Environment(name) => Ok(uid(&types.environment, name)),
            Target::Inside(environment, kind, name) => self.inside(environment, *kind, name),
            Target::Key(name) => {
                let uid = uid(&types.key, name);
                self.add(uid.clone(), named(name), HashSet::new())?;
                Ok(uid)
            }
            Target::Operator(name) => self.operator(name),
            Target::OwnNode(node) => self.node(node),
        }
    }

    /// Somebody who is decided over. Their roles are not looked at.
    pub(super) fn operator(&mut self, name: &OperatorName) -> Result<EntityUid, Cause> {
        let uid = uid(&self.model.types.operator, name);
        self.add(uid.clone(), named(name.as_str()), HashSet::new())?;
        Ok(uid)
    }

    fn node(&mut self, node: &NodeIdentity) -> Result<EntityUid, Cause> {
        self.inside(&node.environment, Kind::Node, node.name.as_str())
    }

    pub(super) fn inside(
        &mut self,
        within: &EnvironmentName,
        kind: Kind,
        name: &str,
    ) -> Result<EntityUid, Cause> {
        let types = &self.model.types;
        let (uid, environment) =
            (uid(kind.type_name(types), format!("{within}/{name}")), uid(&types.environment, within));
        let mut attributes = named(name);
        let reference = RestrictedExpression::new_entity_uid(environment.clone());
        attributes.insert("environment".to_owned(), reference);
        self.add(uid.clone(), attributes, HashSet::from([environment]))?;
        Ok(uid)
    }

    fn environment(&mut self, name: &EnvironmentName) -> Result<(), Cause> {
        let uid = uid(&self.model.types.environment, name);
        let mut attributes = named(name.as_str());
        attributes.insert("environment".to_owned(), RestrictedExpression::new_entity_uid(uid.clone()));
        for role in Role::ALL {
            let role_in_it = RestrictedExpression::new_entity_uid(self.role(role, Some(name)));
            attributes.insert(plural(role).to_owned(), role_in_it);
        }
        self.add(uid, attributes, HashSet::new())
    }
}

/// The attribute of an environment that has a role's members.
const fn plural(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewers",
        Role::Editor => "editors",
        Role::Granter => "granters",
        Role::NodeAdmin => "node_admins",
        Role::Auditor => "auditors",
        Role::Admin => "admins",
    }
}

fn named(name: &str) -> Attributes {
    HashMap::from([("name".to_owned(), RestrictedExpression::new_string(name.to_owned()))])
}
