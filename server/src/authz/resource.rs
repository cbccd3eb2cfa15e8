//! What a request is about.

use cedar_policy::EntityTypeName;
use secretfs_wire::api::Facts;
use secretfs_wire::audit::Object;
use secretfs_wire::{Action, EnvironmentName, InvalidName, OperatorName, UnknownRole};

use super::model::{ActionModel, Types};
use crate::authn::{Identity, NodeIdentity};

/// What a request is about: by the names in its path, and by what its body says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The environment that it is in.
    pub(crate) environment: Option<EnvironmentName>,
    /// The names in it.
    pub(crate) object: Object,
    /// What there is to say beside names.
    pub(crate) facts: Facts,
}

/// A path's parameter that is no word of its kind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidParameter {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Role(#[from] UnknownRole),
}

/// The one thing among the names that is decided about.
pub(super) enum Target<'a> {
    Manager,
    Environment(&'a EnvironmentName),
    Inside(&'a EnvironmentName, Kind, &'a str),
    Key(&'a str),
    Operator(&'a OperatorName),
    OwnNode(&'a NodeIdentity),
}

impl Target<'_> {
    pub(super) const fn type_name<'t>(&self, types: &'t Types) -> &'t EntityTypeName {
        match self {
            Self::Manager => &types.manager,
            Self::Environment(_) => &types.environment,
            Self::Inside(_, kind, _) => kind.type_name(types),
            Self::Key(_) => &types.key,
            Self::Operator(_) => &types.operator,
            Self::OwnNode(_) => &types.node,
        }
    }
}

impl Kind {
    pub(super) const fn type_name(self, types: &Types) -> &EntityTypeName {
        match self {
            Self::Secret => &types.secret,
            Self::Service => &types.service,
            Self::Node => &types.node,
        }
    }
}

/// What there is in an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    Service,
    Node,
}

impl Resource {
    /// Takes names from a path's parameters. One of another kind is not looked at.
    ///
    /// # Errors
    /// When something is not a name, or not a role.
    pub(crate) fn from_path<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, InvalidParameter> {
        let mut resource = Self::default();
        let object = &mut resource.object;
        for (parameter, name) in parameters {
            match parameter {
                "environment" => resource.environment = Some(name.parse()?),
                "secret" => object.secret = Some(name.parse()?),
                "service" => object.service = Some(name.parse()?),
                "target" => object.target = Some(name.parse()?),
                "node" => object.node = Some(name.parse()?),
                "operator" => object.operator = Some(name.parse()?),
                "key" => object.key = Some(name.parse()?),
                "role" => {
                    resource.facts.roles.insert(name.parse()?);
                }
                _ => {}
            }
        }
        Ok(resource)
    }

    /// A whole environment.
    pub(crate) fn environment(name: EnvironmentName) -> Self {
        Self { environment: Some(name), ..Self::default() }
    }

    /// The same, without the environment where the action is about nothing in one.
    pub(super) fn for_action(self, action: &ActionModel, types: &Types) -> Self {
        let inside = [&types.environment, &types.secret, &types.service, &types.node];
        let takes_one = action.resources.iter().any(|about| inside.contains(&about));
        Self { environment: self.environment.filter(|_| takes_one), ..self }
    }

    /// The thing that is decided about. What is done on one's own behalf is about oneself; of a secret in a
    /// service, and of a file of it, it is the service.
    pub(super) fn target<'a>(&'a self, identity: &'a Identity, action: Action) -> Target<'a> {
        let object = &self.object;
        match (identity, action) {
            (
                Identity::Node(node),
                Action::NodeSession
                | Action::NodeFollow
                | Action::NodeFetch
                | Action::NodeRenew
                | Action::NodeReport
                | Action::NodeAudit,
            ) => return Target::OwnNode(node),
            (
                Identity::Operator(operator),
                Action::OperatorRenew | Action::OperatorShow | Action::PolicyExplain,
            ) if object.operator.is_none() => {
                return Target::Operator(&operator.name);
            }
            _ => {}
        }
        if let Some(environment) = &self.environment {
            // Which node is to come is no node yet.
            if action == Action::TokenCreate {
                return Target::Environment(environment);
            }
            return match (&object.service, &object.secret, &object.node) {
                (Some(service), ..) => Target::Inside(environment, Kind::Service, service.as_str()),
                (None, Some(secret), _) => Target::Inside(environment, Kind::Secret, secret.as_str()),
                (None, None, Some(node)) => Target::Inside(environment, Kind::Node, node.as_str()),
                (None, None, None) => Target::Environment(environment),
            };
        }
        match (&object.operator, &object.key) {
            (Some(operator), _) => Target::Operator(operator),
            (None, Some(key)) => Target::Key(key.as_str()),
            (None, None) => Target::Manager,
        }
    }
}
