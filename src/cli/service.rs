use clap::{Args, Subcommand};
use secretfs_wire::api::{Assignment, Attach, ServiceDetails};
use secretfs_wire::audit::AuditMode;
use secretfs_wire::{Mode, NodeName, Ownership, SecretName, Selector, ServiceName, TargetName};

use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::template::{self, TemplateCommand};
use super::{Global, output};

/// Services, what is attached to them and where they run.
#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Create a service
    #[command(after_help = "Example:\n  secretfs service create web")]
    Create(Named),
    /// List services
    #[command(after_help = "Example:\n  secretfs service ls --json")]
    Ls,
    /// Show a service's attachments, templates and assignments
    #[command(after_help = "Example:\n  secretfs service inspect web")]
    Inspect(Named),
    /// Remove a service with all that it has
    #[command(after_help = "Example:\n  secretfs service rm web")]
    Rm(Named),
    /// Let a service see a secret as a file; again to change its owner or mode
    #[command(
        after_help = "Example:\n  secretfs service attach web db_password --target password --uid 1000 --mode 0400"
    )]
    Attach {
        /// The service
        service: ServiceName,
        /// The secret
        secret: SecretName,
        /// The file name [default: the secret's name]
        #[arg(long)]
        target: Option<TargetName>,
        /// The owner's user id
        #[arg(long, default_value_t = 0)]
        uid: u32,
        /// The owner's group id
        #[arg(long, default_value_t = 0)]
        gid: u32,
        /// The permission bits, octal
        #[arg(long, default_value_t)]
        mode: Mode,
        /// When an open has to be on record: buffered, soon after; required, before it succeeds
        #[arg(long, value_name = "MODE", default_value_t)]
        audit: AuditMode,
    },
    /// Take a secret away from a service
    #[command(after_help = "Example:\n  secretfs service detach web db_password")]
    Detach {
        /// The service
        service: ServiceName,
        /// The secret
        secret: SecretName,
        /// Only this file [default: all files of the secret]
        #[arg(long)]
        target: Option<TargetName>,
    },
    /// Files that are made from what is attached
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Run a service on a node, or on all nodes that have labels
    #[command(after_help = "Examples:\n  secretfs service assign web --node web-1\n  \
        secretfs service assign web --selector role=web,zone=a")]
    Assign(AssignmentArgs),
    /// Run a service there no longer
    #[command(after_help = "Example:\n  secretfs service unassign web --node web-1")]
    Unassign(AssignmentArgs),
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Its name
    name: ServiceName,
}

#[derive(Debug, Args)]
pub(super) struct AssignmentArgs {
    /// The service
    service: ServiceName,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PlaceArgs {
    /// The node of this name, also when it joins only later
    #[arg(long)]
    node: Option<NodeName>,
    /// Every node with these labels
    #[arg(long, value_name = "KEY=VALUE,...")]
    selector: Option<Selector>,
}

impl AssignmentArgs {
    fn assignment(self) -> Result<(ServiceName, Assignment), Failure> {
        match (self.place.node, self.place.selector) {
            (Some(node), None) => Ok((self.service, Assignment::Node(node))),
            (None, Some(selector)) => Ok((self.service, Assignment::Selector(selector))),
            _ => Err(Failure::usage("give either --node or --selector")),
        }
    }
}

pub(super) async fn run(command: ServiceCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let operator = Operator::new(global, &file)?;
    let environment = operator.environment()?;
    match command {
        ServiceCommand::Create(Named { name }) => {
            let created = environment.create_service(&name).await?;
            output::one(global, &created, created.name.as_str())?;
        }
        ServiceCommand::Ls => {
            let services = environment.services().await?;
            let headings = ["NAME", "ATTACHMENTS", "ASSIGNMENTS", "CREATED"];
            output::listing(global, headings, &services, |service| {
                [
                    service.name.to_string(),
                    service.attachments.to_string(),
                    service.assignments.to_string(),
                    output::time(service.created),
                ]
            })?;
        }
        ServiceCommand::Inspect(Named { name }) => {
            let details = environment.service(&name).await?;
            output::one(global, &details, &describe(&details))?;
        }
        ServiceCommand::Rm(Named { name }) => {
            environment.remove_service(&name).await?;
            output::one(global, &name, name.as_str())?;
        }
        ServiceCommand::Attach { service, secret, target, uid, gid, mode, audit } => {
            let ownership = Ownership { uid, gid, mode };
            let asked = Attach { secret, target, ownership, audit };
            let attachment = environment.attach(&service, &asked).await?;
            output::one(global, &attachment, &format!("{service}/{}", attachment.target))?;
        }
        ServiceCommand::Detach { service, secret, target } => {
            environment.detach(&service, &secret, target.as_ref()).await?;
            output::one(global, &secret, secret.as_str())?;
        }
        ServiceCommand::Template(command) => template::run(command, &environment, global).await?,
        ServiceCommand::Assign(args) => {
            let (service, assignment) = args.assignment()?;
            let assignment = environment.assign(&service, &assignment).await?;
            output::one(global, &assignment, &format!("{service} {}", show(&assignment)))?;
        }
        ServiceCommand::Unassign(args) => {
            let (service, assignment) = args.assignment()?;
            environment.unassign(&service, &assignment).await?;
            output::one(global, &assignment, &format!("{service} {}", show(&assignment)))?;
        }
    }
    Ok(())
}

fn show(assignment: &Assignment) -> String {
    match assignment {
        Assignment::Node(node) => format!("node {node}"),
        Assignment::Selector(selector) => format!("selector {selector}"),
    }
}

fn describe(details: &ServiceDetails) -> String {
    let mut lines = vec![
        format!("Name:         {}", details.name),
        format!("Created:      {}", output::time(details.created)),
        format!("Attachments:{}", if details.attachments.is_empty() { "  -" } else { "" }),
    ];
    for attachment in &details.attachments {
        let Ownership { uid, gid, mode } = attachment.ownership;
        let (target, secret, audit) = (&attachment.target, &attachment.secret, attachment.audit);
        lines.push(format!("  {target}  secret {secret}  uid {uid}  gid {gid}  mode {mode}  audit {audit}"));
    }
    lines.push(format!("Templates:{}", if details.templates.is_empty() { "    -" } else { "" }));
    lines.extend(details.templates.iter().map(|template| format!("  {}", template::describe(template))));
    lines.push(format!("Assignments:{}", if details.assignments.is_empty() { "  -" } else { "" }));
    lines.extend(details.assignments.iter().map(|assignment| format!("  {}", show(assignment))));
    lines.join("\n")
}
