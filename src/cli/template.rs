use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use secretfs_wire::api::Template;
use secretfs_wire::template::TEMPLATE_MAX_BYTES;
use secretfs_wire::{Mode, Ownership, ServiceName, TargetName};

use super::error::Failure;
use super::{Global, output};
use crate::client::EnvironmentClient;

/// Files that nodes make from what is attached to a service.
#[derive(Debug, Subcommand)]
pub(super) enum TemplateCommand {
    /// Create a template, or replace it with its owner and mode
    #[command(
        after_help = "Examples:\n  secretfs service template set web app.conf app.conf.tmpl --uid 1000 --mode 0400\n  \
        echo 'postgres://app:{{ secrets.db_password | urlencode }}@db/app' | secretfs service template set web dsn\n\n\
        The text is configuration and no secret: operators can read it. `secrets.NAME` is what is attached\n\
        to the same service as NAME; secrets[\"NAME\"] if that has dashes or dots.\n\
        Filters: b64decode, b64encode, escape, indent(N), tojson, trim, urlencode."
    )]
    Set {
        #[command(flatten)]
        at: Place,
        /// A file with the text, or `-` for standard input
        #[arg(value_name = "FILE|-", default_value = "-")]
        file: PathBuf,
        /// The owner's user id
        #[arg(long, default_value_t = 0)]
        uid: u32,
        /// The owner's group id
        #[arg(long, default_value_t = 0)]
        gid: u32,
        /// The permission bits, octal
        #[arg(long, default_value_t)]
        mode: Mode,
    },
    /// Print a template's text
    #[command(after_help = "Example:\n  secretfs service template show web app.conf")]
    Show(Place),
    /// List a service's templates
    #[command(after_help = "Example:\n  secretfs service template ls web --json")]
    Ls {
        /// The service
        service: ServiceName,
    },
    /// Remove a template
    #[command(after_help = "Example:\n  secretfs service template rm web app.conf")]
    Rm(Place),
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The service
    service: ServiceName,
    /// The file name
    target: TargetName,
}

pub(super) async fn run(
    command: TemplateCommand,
    environment: &EnvironmentClient<'_>,
    global: &Global,
) -> Result<(), Failure> {
    match command {
        TemplateCommand::Set { at: Place { service, target }, file, uid, gid, mode } => {
            let text = read(file).await?;
            let ownership = Ownership { uid, gid, mode };
            let set = environment.set_template(&service, &target, text, ownership).await?;
            output::one(global, &set, &format!("{service}/{target}"))?;
        }
        TemplateCommand::Show(Place { service, target }) => {
            let details = environment.template(&service, &target).await?;
            match global.json {
                true => output::json(&details)?,
                false => output::verbatim(&details.text)?,
            }
        }
        TemplateCommand::Ls { service } => {
            let templates = environment.service(&service).await?.templates;
            let headings = ["TARGET", "MADE FROM", "UID", "GID", "MODE", "CHANGED"];
            output::listing(global, headings, &templates, |template| {
                let Ownership { uid, gid, mode } = template.ownership;
                [
                    template.target.to_string(),
                    output::or_dash(inputs(template)),
                    uid.to_string(),
                    gid.to_string(),
                    mode.to_string(),
                    output::time(template.changed),
                ]
            })?;
        }
        TemplateCommand::Rm(Place { service, target }) => {
            environment.remove_template(&service, &target).await?;
            output::one(global, &target, target.as_str())?;
        }
    }
    Ok(())
}

/// A line of `service inspect`.
pub(super) fn describe(template: &Template) -> String {
    let Ownership { uid, gid, mode } = template.ownership;
    let from = output::or_dash(inputs(template));
    format!("{}  from {from}  uid {uid}  gid {gid}  mode {mode}", template.target)
}

fn inputs(template: &Template) -> String {
    template.inputs.iter().map(TargetName::as_str).collect::<Vec<_>>().join(",")
}

/// Reads one byte more than a template may have, at most: the manager says what is too much.
async fn read(path: PathBuf) -> Result<Vec<u8>, Failure> {
    let is_stdin = path.as_os_str() == "-";
    let shown = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let read = tokio::task::spawn_blocking(move || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let source: Box<dyn Read> =
            if is_stdin { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) };
        source.take(TEMPLATE_MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    });
    read.await
        .map_err(|error| Failure::from_error(&error))?
        .map_err(|error| Failure::failed(format!("cannot read the template from {shown}: {error}")))
}
