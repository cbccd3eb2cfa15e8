//! The manifest: what a node may see. Never a value.
//!
//! What arrives is a [`RawManifest`]: texts and numbers that anybody might have sent. A node uses
//! only the checked [`Manifest`], and checking refuses single entries with a reason instead of the
//! whole: one bad entry must not cost a node its other secrets (it crashed KeywhizFs).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::AuditMode;
use crate::template::Template;
use crate::{Mode, Ownership, SECRET_MAX_BYTES, SecretName, ServiceName, TargetName, VersionId};

/// A manifest as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RawManifest {
    /// The state of the environment that it was taken from; a later one has no lower revision.
    #[serde(default)]
    pub revision: u64,
    /// The services assigned to the node.
    pub services: Vec<RawService>,
}

/// One service as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RawService {
    /// The service's name.
    pub name: String,
    /// Its targets.
    pub targets: Vec<RawTarget>,
    /// Its targets that are made from others of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<RawTemplate>,
}

/// One target as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RawTarget {
    /// The file name.
    pub target: String,
    /// The attached secret's name.
    pub secret: String,
    /// The current version's number, from 1.
    pub version: u64,
    /// The current version's id.
    pub version_id: String,
    /// The current version's size in bytes.
    pub size: u64,
    /// The owner's user id.
    pub uid: u32,
    /// The owner's group id.
    pub gid: u32,
    /// The permission bits, 0 to 0o777.
    pub mode: u16,
    /// When the current version became current, or the attachment changed, whichever is later.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub modified: Timestamp,
    /// When an open of it has to be on record.
    #[serde(default, skip_serializing_if = "AuditMode::is_default")]
    pub audit: AuditMode,
}

/// One template as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RawTemplate {
    /// The file name.
    pub target: String,
    /// What is rendered.
    pub text: String,
    /// The owner's user id.
    pub uid: u32,
    /// The owner's group id.
    pub gid: u32,
    /// The permission bits, 0 to 0o777.
    pub mode: u16,
    /// When the text or the ownership changed, or any of the inputs did, whichever is latest.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub modified: Timestamp,
}

/// A checked manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Services by name; each has its targets by name. A service without targets is an empty
    /// directory.
    pub services: BTreeMap<ServiceName, BTreeMap<TargetName, Target>>,
}

/// What a node knows of one target without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The current version's id.
    pub version_id: VersionId,
    /// Where its value comes from.
    pub content: Content,
    /// Owner and permissions.
    pub ownership: Ownership,
    /// The file's modification time.
    pub modified: Timestamp,
    /// When an open of it has to be on record; of a template, as the strictest of its inputs has it.
    pub audit: AuditMode,
}

/// Where the value of a target comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The manager gives it.
    Secret(Attached),
    /// The node renders it.
    Template(Arc<Recipe>),
}

/// The current version of an attached secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The secret's name.
    pub secret: SecretName,
    /// The version's number, from 1.
    pub version: u64,
    /// The version's size in bytes: 1 to 1 MiB.
    pub size: u32,
}

/// A template and what it is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The template.
    pub template: Template,
    /// The targets that it names, all of them of secrets.
    pub inputs: BTreeMap<TargetName, Target>,
}

impl Target {
    /// The attached secret, unless it is a template.
    pub fn attached(&self) -> Option<&Attached> {
        match &self.content {
            Content::Secret(attached) => Some(attached),
            Content::Template(_) => None,
        }
    }

    /// How many bytes it has, if the manifest says so: of a template nobody knows before it is rendered.
    pub fn size(&self) -> Option<u32> {
        self.attached().map(|attached| attached.size)
    }
}

/// An entry that was left out of a checked manifest, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// `service` or `service/target`, escaped and bounded.
    pub entry: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Manifest {
    /// Checks each entry; what is wrong is left out and reported.
    pub fn check(raw: RawManifest) -> (Self, Vec<Rejected>) {
        let mut manifest = Self::default();
        let mut rejected = Vec::new();
        for service in raw.services {
            let name = match ServiceName::try_from(service.name.clone()) {
                Ok(name) => name,
                Err(error) => {
                    rejected.push(Rejected { entry: escape(&service.name), reason: error.to_string() });
                    continue;
                }
            };
            if manifest.services.contains_key(&name) {
                let reason = "the service appears twice; the first one counts".to_owned();
                rejected.push(Rejected { entry: escape(name.as_str()), reason });
                continue;
            }
            let mut targets = BTreeMap::new();
            for raw in service.targets {
                let entry = format!("{name}/{}", escape(&raw.target));
                match check_target(raw) {
                    Ok((target, _)) if targets.contains_key(&target) => {
                        let reason = "two targets have this name; the first one counts".to_owned();
                        rejected.push(Rejected { entry, reason });
                    }
                    Ok((target, details)) => {
                        targets.insert(target, details);
                    }
                    Err(reason) => rejected.push(Rejected { entry, reason }),
                }
            }
            let mut rendered = BTreeMap::new();
            for raw in service.templates {
                let entry = format!("{name}/{}", escape(&raw.target));
                match check_template(raw, &targets) {
                    Ok((target, _)) if targets.contains_key(&target) || rendered.contains_key(&target) => {
                        let reason = "two targets have this name; the first one counts".to_owned();
                        rejected.push(Rejected { entry, reason });
                    }
                    Ok((target, details)) => {
                        rendered.insert(target, details);
                    }
                    Err(reason) => rejected.push(Rejected { entry, reason }),
                }
            }
            // Only now, so that no template is an input of another.
            targets.append(&mut rendered);
            manifest.services.insert(name, targets);
        }
        (manifest, rejected)
    }

    /// What is known of all targets.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.services.values().flat_map(BTreeMap::values)
    }

    /// The target of a service, if the node may see it.
    pub fn target(&self, service: &ServiceName, target: &TargetName) -> Option<&Target> {
        self.services.get(service)?.get(target)
    }
}

fn check_target(raw: RawTarget) -> Result<(TargetName, Target), String> {
    let target = TargetName::try_from(raw.target).map_err(|error| error.to_string())?;
    let size = u32::try_from(raw.size)
        .ok()
        .filter(|size| (1..=SECRET_MAX_BYTES).contains(&(*size as usize)))
        .ok_or_else(|| format!("size {} is not 1 byte to 1 MiB", raw.size))?;
    if raw.version == 0 {
        return Err("version 0 does not exist".to_owned());
    }
    let details = Target {
        version_id: raw.version_id.parse().map_err(|error: crate::InvalidId| error.to_string())?,
        content: Content::Secret(Attached {
            secret: SecretName::try_from(raw.secret).map_err(|error| error.to_string())?,
            version: raw.version,
            size,
        }),
        ownership: check_ownership(raw.uid, raw.gid, raw.mode)?,
        modified: raw.modified,
        audit: raw.audit,
    };
    Ok((target, details))
}

fn check_template(
    raw: RawTemplate,
    targets: &BTreeMap<TargetName, Target>,
) -> Result<(TargetName, Target), String> {
    let target = TargetName::try_from(raw.target).map_err(|error| error.to_string())?;
    let template = Template::parse(&raw.text).map_err(|error| error.to_string())?;
    let input = |name: &TargetName| {
        let details = targets.get(name).ok_or_else(|| template.missing(name).to_string())?;
        Ok::<_, String>((name.clone(), details.clone()))
    };
    let inputs = template.inputs().map(input).collect::<Result<BTreeMap<_, _>, _>>()?;
    let audit = inputs.values().map(|input| input.audit).max().unwrap_or_default();
    let details = Target {
        version_id: template.version(inputs.iter().map(|(name, input)| (name, input.version_id))),
        content: Content::Template(Arc::new(Recipe { template, inputs })),
        ownership: check_ownership(raw.uid, raw.gid, raw.mode)?,
        modified: raw.modified,
        audit,
    };
    Ok((target, details))
}

fn check_ownership(uid: u32, gid: u32, mode: u16) -> Result<Ownership, String> {
    let mode = Mode::from_bits(mode).ok_or_else(|| format!("mode {mode:o} is beyond 0777"))?;
    Ok(Ownership { uid, gid, mode })
}

/// What a hostile name may do to a log is bounded: control characters escaped, 195 characters.
fn escape(name: &str) -> String {
    name.chars().take(crate::NAME_MAX_BYTES).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> RawTarget {
        RawTarget {
            target: name.to_owned(),
            secret: "db".to_owned(),
            version: 1,
            version_id: VersionId::random().to_string(),
            size: 5,
            uid: 0,
            gid: 0,
            mode: 0o444,
            modified: Timestamp::UNIX_EPOCH,
            audit: AuditMode::Buffered,
        }
    }

    #[test]
    fn one_bad_entry_costs_only_itself() {
        let good = target("good");
        let bad = [
            RawTarget { target: "../escape".into(), ..good.clone() },
            RawTarget { target: "\u{1b}[2J".into(), ..good.clone() },
            RawTarget { target: "empty".into(), size: 0, ..good.clone() },
            RawTarget { target: "huge".into(), size: 1 << 40, ..good.clone() },
            RawTarget { target: "suid".into(), mode: 0o4755, ..good.clone() },
            RawTarget { target: "zero".into(), version: 0, ..good.clone() },
            RawTarget { target: "id".into(), version_id: "x".into(), ..good.clone() },
            RawTarget { target: "secret".into(), secret: "a/b".into(), ..good.clone() },
            RawTarget { target: "good".into(), size: 6, ..good.clone() },
        ];
        let count = bad.len();
        let mut targets = vec![good];
        targets.extend(bad);
        targets.push(target("also_good"));
        let services = vec![
            RawService { name: "web".into(), targets, templates: vec![] },
            RawService { name: "web".into(), targets: vec![], templates: vec![] },
            RawService { name: "..".into(), targets: vec![target("t")], templates: vec![] },
        ];
        let (manifest, rejected) = Manifest::check(RawManifest { revision: 1, services });
        assert_eq!(rejected.len(), count + 2, "{rejected:#?}");
        let web = &manifest.services[&"web".parse::<ServiceName>().expect("name")];
        let names: Vec<_> = web.keys().map(TargetName::as_str).collect();
        assert_eq!(names, ["also_good", "good"]);
        assert_eq!(web[&"good".parse::<TargetName>().expect("name")].size(), Some(5), "the first one counts");
        assert!(rejected.iter().all(|r| !r.entry.contains('\u{1b}') && !r.reason.contains('\u{1b}')));
    }

    #[test]
    fn one_bad_template_costs_only_itself() {
        let good = RawTemplate {
            target: "app.conf".into(),
            text: "password={{ secrets.a }}".into(),
            uid: 0,
            gid: 0,
            mode: 0o400,
            modified: Timestamp::UNIX_EPOCH,
        };
        let templates = vec![
            good.clone(),
            RawTemplate { target: "a".into(), ..good.clone() },
            RawTemplate { target: "app.conf".into(), text: "second".into(), ..good.clone() },
            RawTemplate { target: "../b".into(), ..good.clone() },
            RawTemplate { target: "syntax".into(), text: "{{ secrets.a".into(), ..good.clone() },
            RawTemplate { target: "input".into(), text: "{{ secrets.absent }}".into(), ..good.clone() },
            RawTemplate { target: "nested".into(), text: "{{ secrets['app.conf'] }}".into(), ..good.clone() },
            RawTemplate { target: "suid".into(), mode: 0o4755, ..good.clone() },
            RawTemplate { target: "also_good".into(), ..good },
        ];
        let service = RawService { name: "web".into(), targets: vec![target("a"), target("b")], templates };
        let (manifest, rejected) = Manifest::check(RawManifest { revision: 1, services: vec![service] });
        let rejected: Vec<_> = rejected.iter().map(|rejected| rejected.entry.as_str()).collect();
        let all = ["web/a", "web/app.conf", "web/../b", "web/syntax", "web/input", "web/nested", "web/suid"];
        assert_eq!(rejected, all);
        let web = &manifest.services[&"web".parse::<ServiceName>().expect("name")];
        let names: Vec<_> = web.keys().map(TargetName::as_str).collect();
        assert_eq!(names, ["a", "also_good", "app.conf", "b"]);
        let rendered = &web[&"app.conf".parse::<TargetName>().expect("name")];
        let Content::Template(recipe) = &rendered.content else { panic!("no template") };
        assert_eq!(recipe.template.text(), "password={{ secrets.a }}");
        assert_eq!(recipe.inputs.keys().map(TargetName::as_str).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_rendering_has_another_version_when_an_input_has() {
        let raw = RawTemplate {
            target: "app.conf".into(),
            text: "{{ secrets.a }}".into(),
            uid: 0,
            gid: 0,
            mode: 0o400,
            modified: Timestamp::UNIX_EPOCH,
        };
        let a = target("a");
        let version = |a: &RawTarget| {
            let service = RawService {
                name: "web".into(),
                targets: vec![a.clone(), target("b")],
                templates: vec![raw.clone()],
            };
            let (manifest, _) = Manifest::check(RawManifest { revision: 1, services: vec![service] });
            let (web, app) = ("web".parse().expect("name"), "app.conf".parse().expect("name"));
            manifest.target(&web, &app).expect("the rendering").version_id
        };
        assert_eq!(version(&a), version(&a), "whatever else changes");
        assert_ne!(version(&a), version(&target("a")));
    }

    #[test]
    fn a_rendering_is_audited_as_strictly_as_any_of_its_inputs() {
        let template = |target: &str, text: &str| RawTemplate {
            target: target.into(),
            text: text.into(),
            uid: 0,
            gid: 0,
            mode: 0o400,
            modified: Timestamp::UNIX_EPOCH,
        };
        let service = RawService {
            name: "web".into(),
            targets: vec![target("a"), RawTarget { audit: AuditMode::Required, ..target("b") }],
            templates: vec![
                template("one", "{{ secrets.a }}"),
                template("both", "{{ secrets.a }}{{ secrets.b }}"),
            ],
        };
        let (manifest, _) = Manifest::check(RawManifest { revision: 1, services: vec![service] });
        let audit = |name: &str| {
            let (web, name) = ("web".parse().expect("name"), name.parse().expect("name"));
            manifest.target(&web, &name).expect("a target").audit
        };
        assert_eq!(audit("one"), AuditMode::Buffered);
        assert_eq!(audit("both"), AuditMode::Required);
    }

    #[test]
    fn what_is_not_required_is_written_as_before() {
        let text = serde_json::to_string(&target("a")).expect("JSON");
        assert!(!text.contains("audit"), "nodes of an older version would digest it in another way");
        let required = RawTarget { audit: AuditMode::Required, ..target("a") };
        let text = serde_json::to_string(&required).expect("JSON");
        assert_eq!(serde_json::from_str::<RawTarget>(&text).expect("a target"), required);
    }

    #[test]
    fn a_manager_that_knows_no_templates_is_understood() {
        let service: RawService = serde_json::from_str(r#"{"name":"web","targets":[]}"#).expect("a service");
        assert_eq!(service.templates, []);
    }
}
