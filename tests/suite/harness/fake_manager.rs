//! A manager that may say anything, with real TLS and a real CA: it lets any node join, shows it the
//! manifest that the test wrote, and answers for each target as the test wants.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secretfs_wire::api::{EnvelopeRequest, JoinRequest, Joined, NodeState, Open, OpenReport, Session};
use secretfs_wire::audit::{AuditMode, EventId};
use secretfs_wire::envelope::{DeliveryContext, NodePublicKey, SessionKey};
use secretfs_wire::manifest::{RawService, RawTarget};
use secretfs_wire::stream::{Change, StreamMessage};
use secretfs_wire::{
    CaPin, EnvironmentName, JoinToken, NodeId, NodeName, Ownership, SecretBytes, SessionId, TokenSecret,
    VersionId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::pki::Authority;
use super::site::ENVIRONMENT;
use super::tls_server::{Accepted, TlsServer, head, read_request, reply};

/// How a target is answered for.
#[derive(Clone)]
pub(crate) enum Answer {
    /// As an honest manager does.
    Value(Vec<u8>),
    /// With the head of a whole answer and half of its body, then the end of the connection.
    CutShort(Vec<u8>),
    /// With a value that was sealed for another service's target.
    SealedForAnother(Vec<u8>),
    /// With bytes that are no envelope.
    Noise,
}

/// How a report of opens is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recording {
    /// It is recorded.
    Yes,
    /// The connection ends before it is.
    No,
    /// The connection ends, now and then after it was recorded, and now and then before.
    InTrouble,
}

pub(crate) struct FakeManager {
    server: TlsServer,
    authority: Arc<Authority>,
    opens: Arc<Opens>,
}

/// What a manager has on record.
struct Opens {
    recording: Mutex<Recording>,
    reports: Mutex<usize>,
    /// By their ids: what comes again is the same.
    recorded: Mutex<BTreeMap<EventId, Open>>,
    /// How many came again.
    again: Mutex<usize>,
    lost: Mutex<u64>,
}

struct State {
    authority: Arc<Authority>,
    services: Vec<RawService>,
    answers: BTreeMap<String, Answer>,
    joined: Mutex<Option<(NodeName, NodePublicKey)>>,
    session: Mutex<Option<SessionKey>>,
    opens: Arc<Opens>,
}

impl FakeManager {
    /// Serves one service, `web`, with these targets, beside what else the manifest says.
    pub(crate) fn start(
        targets: Vec<RawTarget>,
        answers: &[(&str, Answer)],
        others: Vec<RawService>,
    ) -> Self {
        let authority = Arc::new(Authority::new());
        let mut services = vec![RawService { name: "web".to_owned(), targets, templates: vec![] }];
        services.extend(others);
        let opens = Arc::new(Opens {
            recording: Mutex::new(Recording::Yes),
            reports: Mutex::default(),
            recorded: Mutex::default(),
            again: Mutex::default(),
            lost: Mutex::default(),
        });
        let state = Arc::new(State {
            authority: authority.clone(),
            services,
            answers: answers.iter().map(|(target, answer)| ((*target).to_owned(), answer.clone())).collect(),
            joined: Mutex::new(None),
            session: Mutex::new(None),
            opens: opens.clone(),
        });
        let server = TlsServer::start(&authority, move |connection| {
            // A connection that breaks is the client's to complain about.
            let _ = state.serve(connection);
        });
        Self { server, authority, opens }
    }

    /// From now on reports of opens are answered so.
    pub(crate) fn set_recording(&self, recording: Recording) {
        *self.opens.recording.lock().expect("no panic") = recording;
    }

    /// All opens that are on record.
    pub(crate) fn opens(&self) -> Vec<Open> {
        self.opens.recorded.lock().expect("no panic").values().cloned().collect()
    }

    /// How many opens were told more than once.
    pub(crate) fn told_again(&self) -> usize {
        *self.opens.again.lock().expect("no panic")
    }

    /// How many opens the node says that it has lost.
    pub(crate) fn lost(&self) -> u64 {
        *self.opens.lost.lock().expect("no panic")
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn token(&self) -> String {
        let pin = CaPin::of_bundle([self.authority.certificate().as_ref()]);
        JoinToken { secret: TokenSecret::random(), pin }.expose_text().to_string()
    }
}

/// A target that nothing is wrong with, of `size` bytes.
pub(crate) fn target(name: &str, size: usize) -> RawTarget {
    RawTarget {
        target: name.to_owned(),
        secret: name.chars().filter(char::is_ascii_alphanumeric).collect(),
        version: 1,
        version_id: VersionId::random().to_string(),
        size: size as u64,
        uid: 0,
        gid: 0,
        mode: 0o444,
        modified: Timestamp::now(),
        audit: AuditMode::Buffered,
    }
}

impl State {
    fn serve(&self, connection: Accepted) -> io::Result<()> {
        let mut connection = BufReader::new(connection);
        loop {
            let (path, body) = read_request(&mut connection)?;
            let out = connection.get_mut();
            match path.as_str() {
                "/v1/join" => reply_json(out, &self.join(&parse(&body)?))?,
                "/v1/node/session" => reply_json(out, &self.open_session())?,
                "/v1/node/envelopes" => self.envelope(out, &parse(&body)?)?,
                "/v1/node/opens" => self.record(out, parse(&body)?)?,
                "/v1/node/changes" => return self.stream(out),
                _ => write!(out, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?,
            }
        }
    }

    fn join(&self, request: &JoinRequest) -> Joined {
        let key = STANDARD.decode(&request.envelope_key).expect("base64");
        let key = NodePublicKey::from_der(&key).expect("an RSA key");
        let name = request.name.clone().expect("a name");
        *self.joined.lock().expect("no panic") = Some((name.clone(), key));
        Joined {
            id: NodeId::random(),
            environment: environment(),
            name,
            certificate: self.authority.sign(&request.certificate_request),
            state: NodeState::Active,
        }
    }

    fn open_session(&self) -> Session {
        let key = SessionKey::generate().expect("randomness");
        let joined = self.joined.lock().expect("no panic");
        let (_, node) = joined.as_ref().expect("a node that joined");
        let wrapped_key = key.wrap_for(node).expect("a wrapped key");
        *self.session.lock().expect("no panic") = Some(key);
        Session { session: SessionId::random(), wrapped_key, expires_in_seconds: 3600 }
    }

    fn record(&self, out: &mut Accepted, report: OpenReport) -> io::Result<()> {
        let recording = *self.opens.recording.lock().expect("no panic");
        let number = {
            let mut reports = self.opens.reports.lock().expect("no panic");
            *reports += 1;
            *reports
        };
        let breaks = || Err(io::ErrorKind::ConnectionAborted.into());
        match recording {
            Recording::No => return breaks(),
            Recording::InTrouble if number % 8 == 3 => return breaks(),
            Recording::InTrouble | Recording::Yes => {}
        }
        let mut recorded = self.opens.recorded.lock().expect("no panic");
        for open in report.opens {
            if recorded.insert(open.id, open).is_some() {
                *self.opens.again.lock().expect("no panic") += 1;
            }
        }
        if let Some(lost) = report.lost {
            *self.opens.lost.lock().expect("no panic") = lost.total;
        }
        drop(recorded);
        match recording {
            Recording::InTrouble if number % 8 == 6 => breaks(),
            _ => reply(out, b""),
        }
    }

    fn envelope(&self, out: &mut Accepted, request: &EnvelopeRequest) -> io::Result<()> {
        match &self.answers[request.target.as_str()] {
            Answer::Value(value) => reply(out, &self.seal(request, "web", value)),
            Answer::SealedForAnother(value) => reply(out, &self.seal(request, "other", value)),
            Answer::Noise => reply(out, &[0x5a; 200]),
            Answer::CutShort(value) => {
                let whole = self.seal(request, "web", value);
                head(out, whole.len())?;
                out.write_all(&whole[..whole.len() / 2])?;
                out.conn.send_close_notify();
                out.flush()?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }

    fn seal(&self, request: &EnvelopeRequest, service: &str, value: &[u8]) -> Vec<u8> {
        let raw = self.services[0].targets.iter().find(|raw| raw.target == request.target.as_str());
        let raw = raw.expect("a target of the manifest");
        let joined = self.joined.lock().expect("no panic");
        let (node, _) = joined.as_ref().expect("a node that joined");
        let context = DeliveryContext {
            environment: &environment(),
            node,
            service: &service.parse().expect("a name"),
            target: &request.target,
            secret: &raw.secret.parse().expect("a name"),
            version: raw.version,
            version_id: request.version_id,
            ownership: Ownership::default(),
        };
        let value = SecretBytes::new(value.to_vec()).expect("a value");
        let session = self.session.lock().expect("no panic");
        session.as_ref().expect("a session").seal(request.salt, context, &value).expect("an envelope")
    }

    /// The manifest once, then signs of life until the node hangs up.
    fn stream(&self, out: &mut Accepted) -> io::Result<()> {
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        let change = Change { services: self.services.clone(), removed: vec![] };
        let mut message = StreamMessage { sequence: 0, revision: 1, change: Some(change) };
        loop {
            chunk(out, &message)?;
            thread::sleep(Duration::from_millis(200));
            message = StreamMessage { sequence: message.sequence + 1, change: None, ..message };
        }
    }
}

fn environment() -> EnvironmentName {
    ENVIRONMENT.parse().expect("a name")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(io::Error::other)
}

fn reply_json(out: &mut Accepted, value: &impl Serialize) -> io::Result<()> {
    reply(out, &serde_json::to_vec(value).expect("JSON"))
}

fn chunk(out: &mut Accepted, message: &StreamMessage) -> io::Result<()> {
    let line = serde_json::to_string(message).expect("JSON");
    write!(out, "{:x}\r\n{line}\n\r\n", line.len() + 1)?;
    out.flush()
}
