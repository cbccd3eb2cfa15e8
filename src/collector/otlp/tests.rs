use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

use super::super::test_records::denied;
use super::super::{Collector, Trust};
use super::*;

/// What a collector was sent: path, credential and body.
type Sent = (String, Option<String>, ExportLogsServiceRequest);
type Answer = Response<Full<Bytes>>;

/// A collector that gives these answers, and takes everything after them.
struct TestCollector {
    url: Url,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl TestCollector {
    async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (all_sent, answers) = (sent.clone(), Arc::new(Mutex::new(VecDeque::from(answers))));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sent, answers) = (all_sent.clone(), answers.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (sent, answers) = (sent.clone(), answers.clone());
                    async move {
                        let path = request.uri().path().to_owned();
                        let credential = request.headers().get(AUTHORIZATION).cloned();
                        assert_eq!(request.headers()[CONTENT_TYPE], PROTOBUF);
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let body = ExportLogsServiceRequest::decode(body).unwrap();
                        let credential = credential.map(|value| value.to_str().unwrap().to_owned());
                        sent.lock().unwrap().push((path, credential, body));
                        let answer = answers.lock().unwrap().pop_front();
                        Ok::<_, Infallible>(answer.unwrap_or_else(|| answer_with(200, Vec::new())))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, sent }
    }

    fn client(&self, headers: Option<&NamedTempFile>) -> Collector {
        collector(self.url.clone(), headers).unwrap()
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }
}

fn collector(url: Url, headers: Option<&NamedTempFile>) -> Result<Collector, CollectorError> {
    let headers = headers.map(|file| file.path().to_owned());
    let access = Access { url, trust: Trust::default(), headers };
    Collector::new(access, &"https://manager.example:7443".parse().unwrap(), false)
}

fn answer_with(status: u16, body: Vec<u8>) -> Answer {
    Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap()
}

fn token() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, "Authorization: Bearer token\n").unwrap();
    file
}

#[tokio::test]
async fn a_record_says_in_opentelemetrys_words_what_it_is() {
    let test = TestCollector::start(Vec::new()).await;
    test.client(Some(&token())).send(&[denied(), denied()]).await.unwrap();
    let [(path, credential, body)] = test.sent().try_into().expect("one request");
    assert_eq!((path.as_str(), credential.as_deref()), ("/v1/logs", Some("Bearer token")));
    let [logs] = body.resource_logs.try_into().expect("one manager");
    let attributes = logs.resource.expect("a resource").attributes;
    assert!(attributes.iter().any(|attribute| attribute.key == "service.name"));
    let records = &logs.scope_logs[0].log_records;
    assert_eq!(records.len(), 2);
    let record = &records[0];
    assert_eq!((record.event_name.as_str(), record.severity_text.as_str()), ("secret.rotate", "denied"));
    assert_eq!(record.time_unix_nano, 1_795_593_600_123_456_000);
    let text = |name: &str| {
        let found = record.attributes.iter().find(|attribute| attribute.key == name)?;
        match found.value.clone()?.value? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    };
    assert_eq!(text("log.record.uid").as_deref(), Some("00000000000000ab:7"));
    assert_eq!(text("secretfs.actor").as_deref(), Some("manager"));
    let body = record.body.clone().and_then(|body| body.value);
    assert_eq!(body, Some(Value::StringValue(denied().written.text)));
}

#[tokio::test]
async fn who_is_busy_is_asked_again_and_who_refuses_is_not() {
    let mut busy = answer_with(503, Vec::new());
    busy.headers_mut().insert("retry-after", HeaderValue::from_static("0"));
    let test = TestCollector::start(vec![busy, answer_with(429, Vec::new())]).await;
    test.client(None).send(&[denied()]).await.unwrap();
    assert_eq!(test.sent().len(), 3);

    let test = TestCollector::start(vec![answer_with(400, Vec::new())]).await;
    let refused = test.client(None).send(&[denied()]).await;
    assert!(matches!(refused, Err(CollectorError::Refused(StatusCode::BAD_REQUEST))), "{refused:?}");
    assert_eq!(test.sent().len(), 1);
}

#[tokio::test]
async fn what_was_not_taken_is_not_sent_again() {
    let partial = ExportLogsPartialSuccess { rejected_log_records: 1, error_message: "too old".to_owned() };
    let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
    let test = TestCollector::start(vec![answer_with(200, answer.encode_to_vec())]).await;
    test.client(None).send(&[denied()]).await.unwrap();
    assert_eq!(test.sent().len(), 1);
}

#[tokio::test]
async fn a_token_leaves_this_host_under_tls_only() {
    let exposed = collector("http://192.0.2.1:4318".parse().unwrap(), Some(&token()));
    assert!(matches!(exposed, Err(CollectorError::Exposed)));
    for url in ["http://[::1]:4318", "http://localhost:4318", "https://192.0.2.1:4318"] {
        assert!(
            !matches!(collector(url.parse().unwrap(), Some(&token())), Err(CollectorError::Exposed)),
            "{url}"
        );
    }
}

#[test]
fn a_path_that_is_named_is_kept() {
    let access = |url: &str| Access { url: url.parse().unwrap(), trust: Trust::default(), headers: None };
    let source = "https://manager.example:7443".parse().unwrap();
    for (given, used) in [
        ("http://localhost:4318", "http://localhost:4318/v1/logs"),
        ("http://localhost:4318/", "http://localhost:4318/v1/logs"),
        ("https://localhost/otlp/v1/logs", "https://localhost/otlp/v1/logs"),
    ] {
        assert_eq!(Client::new(access(given), &source).unwrap().url.as_str(), used);
    }
}
