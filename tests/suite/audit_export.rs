//! The audit log on its way to those who collect logs.

use std::fs;
use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;

use crate::harness::pki::Authority;
use crate::harness::requirement::trials;
use crate::harness::rsyslog::Rsyslog;
use crate::harness::tls_server::{Accepted, TlsServer, read_request, reply};
use crate::harness::{Operator, Site, deadline};

trials! {
    needs [Rsyslog, Age, Clock];
    a_syslog_server_receives_each_record_over_tls_and_an_export_goes_on_where_it_was,
    an_opentelemetry_collector_receives_each_record_once_more_at_most,
    an_export_goes_on_over_a_torn_line,
    an_export_finishes_the_old_chain_of_a_restored_manager_and_begins_the_new_one,
    who_follows_the_log_renews_the_certificate,
}

/// A command that goes on, and ends with the test.
struct Follower(Child);

impl Follower {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("started"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// The number of the last record, as the manager has it.
fn newest(operator: &Operator) -> u64 {
    let last = operator.ok(&["audit", "tail", "-n", "1", "--all-environments", "--json"]);
    let record: serde_json::Value = serde_json::from_str(last.trim()).expect("a record");
    record["sequence"].as_u64().expect("its number")
}

fn a_syslog_server_receives_each_record_over_tls_and_an_export_goes_on_where_it_was() {
    let mut site = Site::start();
    let authority = Authority::new();
    let at = site.area().directory("syslog");
    let server = Rsyslog::start(&authority, &at, site.logs());
    let (certificate, key) = authority.client().pem();
    fs::write(at.join("client.pem"), format!("{certificate}{key}")).expect("written");
    let url = server.url();
    let (ca, client, cursor) = (at.join("ca.pem"), at.join("client.pem"), at.join("cursor"));
    let export = ["audit", "export", "--to-url", &url, "--cursor-file", text(&cursor)];
    // It is known and knows the other, or nothing is said.
    let refused = site.operator.run(&export);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(!cursor.exists() && server.received().is_empty());

    let trusted = [export.as_slice(), &["--to-ca", text(&ca), "--to-cert", text(&client)]].concat();
    site.operator.ok(&trusted);
    site.create_secret("db", b"a canary in a cage");
    let _following = Follower::start(&mut site.operator.command(&[trusted.as_slice(), &["-f"]].concat()));
    deadline::eventually("it is received", || server.received().contains("\"secret\":\"db\""));
    site.manager.stop();
    site.manager.run();
    site.rotate("db", b"another canary");
    let received = deadline::poll("what comes after a restart is received", || {
        let received = server.received();
        received.contains("secret.rotate").then_some(received)
    });
    assert!(!received.contains("canary"), "{received}");
    let line = received.lines().find(|line| line.contains("secret.rotate")).expect("a line");
    assert!(line.starts_with("audit info 127.0.0.1 secretfs secret.rotate {"), "{line}");
    // Each of them, in order, once.
    let numbers = received.lines().map(|line| {
        let record: serde_json::Value =
            serde_json::from_str(&line[line.find('{').expect("a record")..]).expect("JSON");
        record["sequence"].as_u64().expect("a number")
    });
    let numbers: Vec<_> = numbers.collect();
    assert!(numbers.len() > 5 && numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
}

/// What an OpenTelemetry collector has heard.
#[derive(Default)]
struct Heard {
    /// The numbers of the records that it has taken.
    taken: Vec<String>,
    /// How many requests it has answered that it is busy.
    refused: usize,
}

/// Takes every other request.
fn collect(heard: &Mutex<Heard>, connection: Accepted) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let (path, body) = read_request(&mut connection)?;
        assert_eq!(path, "/v1/logs");
        let request = ExportLogsServiceRequest::decode(body.as_slice()).expect("OTLP");
        let mut heard = heard.lock().expect("no panic");
        let out = connection.get_mut();
        if heard.refused <= heard.taken.len() && heard.refused < 2 {
            heard.refused += 1;
            write!(out, "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n")?;
            out.flush()?;
            continue;
        }
        let records = request.resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
        for record in records.flat_map(|logs| logs.log_records) {
            let uid = record.attributes.into_iter().find(|attribute| attribute.key == "log.record.uid");
            match uid.and_then(|uid| uid.value?.value) {
                Some(Value::StringValue(uid)) => heard.taken.push(uid),
                other => panic!("{other:?} is no id"),
            }
        }
        drop(heard);
        reply(out, b"")?;
    }
}

fn an_opentelemetry_collector_receives_each_record_once_more_at_most() {
    let site = Site::start();
    site.create_secret("db", b"value");
    let (authority, heard) = (Authority::new(), Arc::new(Mutex::new(Heard::default())));
    let hearing = heard.clone();
    let server = TlsServer::start(&authority, move |connection| {
        // The client may hang up when it likes.
        let _ = collect(&hearing, connection);
    });
    let at = site.area().directory("otlp");
    let ca = at.join("ca.pem");
    fs::write(&ca, authority.pem()).expect("written");
    let url = server.url();
    let arguments = ["audit", "export", "--to-url", &url, "--to-ca", text(&ca)];
    let done = site.operator.run(&arguments);
    assert_eq!(done.code, 0, "{done:?}");
    let heard = heard.lock().expect("no panic");
    assert!(heard.refused > 0);
    let numbers = heard.taken.iter().map(|uid| uid.split_once(':').expect("chain and number").1.to_owned());
    let expected = (1..=heard.taken.len()).map(|number| number.to_string());
    assert!(heard.taken.len() > 3 && numbers.eq(expected), "{:?}", heard.taken);

    let wrong = site.operator.run(&["audit", "export", "--to-url", &url]);
    assert_eq!(wrong.code, 5, "whom the system does not trust is told nothing: {wrong:?}");
    let wrong = site.operator.run(&["audit", "export", "--to-url", &url, "--format", "syslog"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

fn an_export_goes_on_over_a_torn_line() {
    let site = Site::start();
    let export = site.area().directory("kept").join("export.jsonl");
    site.operator.ok(&["audit", "export", "--to", text(&export)]);
    let whole = fs::read_to_string(&export).expect("an export");
    // Whoever wrote it was killed.
    fs::write(&export, &whole[..whole.len() - 10]).expect("torn");
    site.create_secret("db", b"value");
    site.operator.ok(&["audit", "export", "--to", text(&export)]);
    let ca = site.operator.directory().join("ca.pem");
    site.operator.ok(&["audit", "verify", "--ca", text(&ca), text(&export)]);
    assert!(fs::read_to_string(&export).expect("an export").contains("secret.create"));

    fs::write(&export, format!("nonsense\n{whole}")).expect("written");
    let refused = site.operator.run(&["audit", "export", "--to", text(&export)]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("line 1 of ") && refused.stderr.contains("another file"), "{refused:?}");
    let nothing = site.operator.ok(&["audit", "tail", "-n", "0"]);
    assert_eq!(nothing, "");
}

fn an_export_finishes_the_old_chain_of_a_restored_manager_and_begins_the_new_one() {
    let mut site = Site::sealed_by(&[]);
    let kept = site.area().directory("kept");
    let identity = kept.join("backup.txt");
    assert!(Command::new("age-keygen").arg("-o").arg(&identity).status().expect("age-keygen").success());
    let public = Command::new("age-keygen").arg("-y").arg(&identity).output().expect("age-keygen");
    let recipient = String::from_utf8(public.stdout).expect("text").trim().to_owned();
    let (backup, cursor, lines) = (kept.join("manager.age"), kept.join("cursor"), kept.join("old.jsonl"));
    let ids = |printed: &str| {
        let ids = printed.lines().map(|line| {
            let at = line.find('{').expect("a record");
            let record: serde_json::Value = serde_json::from_str(&line[at..]).expect("JSON");
            (
                record["chain"].as_str().expect("a chain").to_owned(),
                record["sequence"].as_u64().expect("a number"),
            )
        });
        ids.collect::<Vec<_>>()
    };
    let export = ["audit", "export", "--format", "syslog", "--cursor-file", text(&cursor)];
    let first = ids(&site.operator.ok(&export));
    // A name alone is of a file in the directory where one is.
    let mut here = site.operator.command(&[&export[..4], &["--cursor-file", "here"]].concat());
    assert!(here.current_dir(&kept).output().expect("ended").status.success());
    assert!(kept.join("here").exists());
    site.operator.ok(&["audit", "export", "--to", text(&lines)]);
    site.create_secret("db", b"value");
    let last = newest(&site.operator);
    let made = site.manager.command(&["backup", "-r", &recipient, "-o", text(&backup)], b"");
    assert_eq!(made.code, 0, "{}", made.stderr);
    site.manager.stop();
    fs::remove_dir_all(site.manager.data()).expect("the disk is lost");
    let restored = site.manager.command(&["restore", "-i", text(&identity), text(&backup)], b"");
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    site.manager.run_sealed();
    let unlocked = site.manager.command(&["unlock"], site.manager.unlock_lines().as_bytes());
    assert_eq!(unlocked.code, 0, "{}", unlocked.stderr);
    site.manager.wait_until_it_serves();

    let rest = ids(&site.operator.ok(&export));
    let (old, new): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(chain, _)| *chain == first[0].0);
    let begin = first.len() as u64 + 1;
    let numbers: Vec<_> = old.iter().map(|(_, number)| *number).collect();
    assert!(numbers[0] == begin && numbers.contains(&last), "{numbers:?} after {begin} and with {last}");
    assert!(new.iter().map(|(_, number)| *number).eq(1..=new.len() as u64) && !new.is_empty(), "{new:?}");
    // A file that is verified holds one chain.
    let refused = site.operator.run(&["audit", "export", "--to", text(&lines)]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("another file"), "{refused:?}");
}

fn who_follows_the_log_renews_the_certificate() {
    let mut site = Site::start();
    let alice = site.logged_in("alice", &["--role", "auditor"]);
    let identity = alice.directory().join("operator.pem");
    let read = || fs::read_to_string(&identity).expect("credentials");
    let first = read();
    // Seven days are 168 hours.
    site.manager.run_with_clock("+100h");
    let mut command = alice.command(&["audit", "tail", "-f"]);
    crate::harness::clock::shift_clock(&mut command, "+100h");
    let printed = site.area().directory("kept").join("printed");
    let output = fs::File::create(&printed).expect("a file");
    let _following = Follower(command.stdin(Stdio::null()).stdout(output).spawn().expect("started"));
    deadline::eventually("it is renewed", || read() != first);
    let at = |arguments: &[&str]| site.operator.run_at(Some("+100h"), arguments);
    assert_eq!(at(&["service", "create", "web"]).code, 0);
    deadline::eventually("it goes on under the new one", || {
        fs::read_to_string(&printed).expect("what was printed").contains("service.create")
    });
}
