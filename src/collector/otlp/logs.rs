//! Records as OpenTelemetry has them. Attributes have the names of its semantic conventions where those have
//! one, and otherwise begin with `secretfs.`.

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use secretfs_wire::audit::{Event, Object, Outcome, Process, Record};
use url::Url;

use super::super::Outgoing;

/// Whose records they are: the manager's at this URL.
pub(super) fn resource(source: &Url) -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", Some("secretfs"));
    attributes.text("server.address", source.host_str());
    attributes.number("server.port", source.port_or_known_default().map(u64::from));
    Resource { attributes: attributes.0, ..Resource::default() }
}

/// Some records as one request.
pub(super) fn request(resource: &Resource, records: &[Outgoing]) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope {
        name: "secretfs.audit".to_owned(),
        version: crate::VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_logs = ScopeLogs {
        scope: Some(scope),
        log_records: records.iter().map(log_record).collect(),
        ..ScopeLogs::default()
    };
    let resource = Some(resource.clone());
    let logs = ResourceLogs { resource, scope_logs: vec![scope_logs], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

fn log_record(Outgoing { record, written }: &Outgoing) -> LogRecord {
    let Event { action, outcome, happened, .. } = &record.event;
    let severity = match outcome {
        Outcome::Begun | Outcome::Done => SeverityNumber::Info,
        Outcome::Denied => SeverityNumber::Warn,
        Outcome::Failed => SeverityNumber::Error,
    };
    let mut attributes = attributes(record);
    attributes.text("secretfs.hash", Some(&written.hash));
    LogRecord {
        time_unix_nano: nanoseconds(happened.unwrap_or(record.time)),
        observed_time_unix_nano: nanoseconds(record.time),
        severity_number: severity.into(),
        severity_text: outcome.as_str().to_owned(),
        event_name: action.to_string(),
        // As it is hashed, so that it can be compared with the log.
        body: Some(text(&written.text)),
        attributes: attributes.0,
        ..LogRecord::default()
    }
}

fn attributes(record: &Record) -> Attributes {
    let Record { chain, sequence, event, time: _, previous: _, key: _, follows: _ } = record;
    let mut attributes = Attributes::default();
    // By this a collector knows what it has already.
    attributes.text("log.record.uid", Some(format!("{chain}:{sequence}")));
    attributes.text("secretfs.chain", Some(chain));
    attributes.number("secretfs.sequence", Some(*sequence));
    let Event { action, outcome, actor, address, environment, object, reason, policies, process, .. } = event;
    attributes.text("secretfs.call", event.call.as_ref());
    attributes.text("secretfs.action", Some(action));
    attributes.text("secretfs.outcome", Some(outcome.as_str()));
    attributes.text("secretfs.actor", Some(actor));
    attributes.text("client.address", address.as_ref());
    attributes.text("secretfs.environment", environment.as_ref());
    let Object { secret, version, service, target, node, operator, key } = object;
    attributes.text("secretfs.secret", secret.as_ref());
    attributes.number("secretfs.secret.version", *version);
    attributes.text("secretfs.service", service.as_ref());
    attributes.text("secretfs.target", target.as_ref());
    attributes.text("secretfs.node", node.as_ref());
    attributes.text("secretfs.operator", operator.as_ref());
    attributes.text("secretfs.key", key.as_ref());
    attributes.text("secretfs.reason", reason.as_ref());
    attributes.texts("secretfs.policies", policies);
    attributes.texts(
        "secretfs.inputs",
        event.inputs.iter().map(|input| format!("{}:{}", input.secret, input.version)),
    );
    attributes.texts("secretfs.doubts", event.doubts.iter().map(|doubt| doubt.as_str()));
    attributes.number("secretfs.count", event.count);
    if let Some(Process { uid, gid, pid, started, executable, cgroup, container, unseen }) = process {
        attributes.text("secretfs.process.unseen", unseen.map(|why| why.as_str()));
        attributes.number("secretfs.process.uid", Some(u64::from(*uid)));
        attributes.number("secretfs.process.gid", Some(u64::from(*gid)));
        attributes.number("process.pid", Some(u64::from(*pid)));
        attributes.text("process.creation.time", started.as_ref());
        attributes.text("process.executable.path", executable.as_ref());
        attributes.text("process.linux.cgroup", cgroup.as_ref());
        attributes.text("container.id", container.as_ref());
    }
    attributes
}

/// What is known of something, by name.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, name: &str, value: Option<impl ToString>) {
        self.add(name, value.map(text));
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        // A number in a record is below 2^53.
        let number = value.and_then(|value| i64::try_from(value).ok());
        self.add(name, number.map(|number| AnyValue { value: Some(Value::IntValue(number)) }));
    }

    fn texts(&mut self, name: &str, values: impl IntoIterator<Item = impl ToString>) {
        let values: Vec<_> = values.into_iter().map(text).collect();
        let array = (!values.is_empty()).then_some(Value::ArrayValue(ArrayValue { values }));
        self.add(name, array.map(|array| AnyValue { value: Some(array) }));
    }

    fn add(&mut self, name: &str, value: Option<AnyValue>) {
        if value.is_some() {
            self.0.push(KeyValue { key: name.to_owned(), value, ..KeyValue::default() });
        }
    }
}

fn text(value: impl ToString) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.to_string())) }
}

/// Since 1970. OpenTelemetry has no time before that.
fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}
