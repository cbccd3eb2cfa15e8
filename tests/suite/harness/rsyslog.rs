//! A real syslog server that speaks TLS and knows its clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::area::Logs;
use super::deadline;
use super::pki::Authority;
use super::process::Daemon;

/// Messages go to a file, one a line: facility, severity, host, program, kind and text.
pub(crate) struct Rsyslog {
    _daemon: Daemon,
    port: u16,
    received: PathBuf,
}

/// Why it cannot speak TLS, if it cannot.
pub(crate) fn missing_driver() -> Option<String> {
    let mut libraries = fs::read_dir("/usr/lib").into_iter().flatten().map_while(Result::ok);
    let is_there = libraries.any(|directory| directory.path().join("rsyslog/lmnsd_gtls.so").exists());
    (!is_there).then(|| "rsyslog's driver for TLS is not installed (rsyslog-gnutls)".to_owned())
}

impl Rsyslog {
    /// Starts one in a directory. `authority` has certified it, and all that it listens to.
    pub(crate) fn start(authority: &Authority, directory: &Path, logs: &Logs) -> Self {
        let file = |name: &str| directory.join(name);
        let (certificate, key) = authority.server().pem();
        fs::write(file("ca.pem"), authority.pem()).expect("written");
        fs::write(file("certificate.pem"), certificate).expect("written");
        fs::write(file("key.pem"), key).expect("written");
        let configuration = format!(
            r#"
global(
  workDirectory={work:?} maxMessageSize="64k" defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile={ca:?} defaultNetstreamDriverCertFile={certificate:?}
  defaultNetstreamDriverKeyFile={key:?}
)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imtcp" port="0" listenPortFileName={port:?})
template(name="fields" type="string"
  string="%syslogfacility-text% %syslogseverity-text% %hostname% %app-name% %msgid% %msg%\n")
action(type="omfile" file={received:?} template="fields")
"#,
            work = directory,
            ca = file("ca.pem"),
            certificate = file("certificate.pem"),
            key = file("key.pem"),
            port = file("port"),
            received = file("received"),
        );
        fs::write(file("rsyslog.conf"), configuration).expect("written");
        let mut command = Command::new("rsyslogd");
        command.arg("-n").arg("-f").arg(file("rsyslog.conf")).arg("-i").arg(file("pid"));
        let mut daemon = Daemon::start("rsyslogd", &mut command, logs);
        let port = deadline::poll("rsyslogd listens", || {
            assert_eq!(daemon.ended(), None, "rsyslogd ended: {}", daemon.log());
            fs::read_to_string(file("port")).ok()?.trim().parse().ok()
        });
        Self { _daemon: daemon, port, received: file("received") }
    }

    pub(crate) fn url(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    /// All that it has received.
    pub(crate) fn received(&self) -> String {
        fs::read_to_string(&self.received).unwrap_or_default()
    }
}
