//! A real OpenBao in dev mode: all in memory, unsealed from the start, gone with the test.
//!
//! Which program: `SECRETFS_TEST_BAO`, which `tests/run` sets, or else `bao` or `vault` on PATH.

mod admin;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) use self::admin::{Admin, AppRole, Token, TokenOptions};
use super::process::{Process, bound_command};
use super::requirement::{Missing, program};
use super::{deadline, random_text};

const PROGRAM_VARIABLE: &str = "SECRETFS_TEST_BAO";

/// How often another port is tried when somebody else was faster.
const ATTEMPTS: usize = 5;

/// A running server.
pub(crate) struct OpenBao {
    program: PathBuf,
    address: SocketAddr,
    root_token: String,
    unseal_key: String,
    tls: Option<TlsFiles>,
    process: Process,
    // The last one: the server's files are in it.
    directory: TempDir,
}

/// What a server with TLS made for itself, in PEM.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    pub(crate) ca: PathBuf,
    /// For 127.0.0.1 and localhost.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl OpenBao {
    /// What is missing, if something is.
    pub(crate) fn missing() -> Option<Missing> {
        bao().and_then(|bao| bound_command(&bao)).err()
    }

    /// Starts one that speaks cleartext.
    pub(crate) fn start() -> Result<Self, Missing> {
        Self::start_with(false)
    }

    /// Starts one that speaks TLS, under an authority of its own.
    pub(crate) fn start_tls() -> Result<Self, Missing> {
        Self::start_with(true)
    }

    fn start_with(tls: bool) -> Result<Self, Missing> {
        let program = bao()?;
        let directory = tempfile::Builder::new().prefix("secretfs-openbao-").tempdir();
        let directory = directory.expect("a temporary directory");
        let root_token = random_text();
        for _ in 0..ATTEMPTS {
            let address = free_address();
            let command = server_command(&program, directory.path(), address, &root_token, tls)?;
            let mut process = Process::start(command, &directory.path().join("server.log"));
            if let Some(unseal_key) = unseal_key(&mut process) {
                let tls = tls.then(|| TlsFiles::in_directory(directory.path()));
                return Ok(Self { program, address, root_token, unseal_key, tls, process, directory });
            }
        }
        panic!("others took the port {ATTEMPTS} times");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The files of a server that was started with TLS.
    pub(crate) fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// The authority of a server that was started with TLS.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.tls.as_ref().map(|files| files.ca.as_path())
    }

    /// A token that may do anything and does not end.
    pub(crate) fn root_token(&self) -> &str {
        &self.root_token
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Sets things up in the root namespace.
    pub(crate) fn admin(&self) -> Admin<'_> {
        Admin::new(self, None)
    }

    /// Makes a namespace, to set things up in it. Vault has none in its free edition.
    pub(crate) fn create_namespace(&self, name: &str) -> Admin<'_> {
        self.admin().write(&format!("sys/namespaces/{name}"), &[]);
        Admin::new(self, Some(name.to_owned()))
    }

    /// From now on it refuses to work, as after a restart. Its keys and tokens are kept.
    pub(crate) fn seal(&self) {
        self.admin().write("sys/seal", &[]);
    }

    /// Works again.
    pub(crate) fn unseal(&self) {
        self.admin().write("sys/unseal", &[("key", &self.unseal_key)]);
    }
}

impl TlsFiles {
    fn in_directory(directory: &Path) -> Self {
        let file = |name| directory.join(name);
        Self { ca: file("vault-ca.pem"), certificate: file("vault-cert.pem"), key: file("vault-key.pem") }
    }
}

/// The program, whether it is told or found.
fn bao() -> Result<PathBuf, Missing> {
    match std::env::var_os(PROGRAM_VARIABLE).filter(|path| !path.is_empty()) {
        None => program(&["bao", "vault"]),
        Some(path) if Path::new(&path).is_file() => Ok(path.into()),
        Some(path) => Err(Missing(format!("{PROGRAM_VARIABLE} names {}, which is no file", path.display()))),
    }
}

fn server_command(
    program: &Path,
    directory: &Path,
    address: SocketAddr,
    root_token: &str,
    tls: bool,
) -> Result<Command, Missing> {
    let configuration = directory.join("server.hcl");
    // Clustering would listen on one port more.
    fs::write(&configuration, "disable_clustering = true\n").expect("a configuration");
    let mut command = bound_command(program)?;
    command
        .args(["server", "-dev", "-dev-no-store-token"])
        .arg(format!("-dev-root-token-id={root_token}"))
        .arg(format!("-dev-listen-address={address}"))
        .arg(format!("-config={}", configuration.display()));
    if tls {
        command.arg("-dev-tls").arg(format!("-dev-tls-cert-dir={}", directory.display()));
    }
    clean_environment(&mut command, directory);
    Ok(command)
}

/// Nothing of the developer's own OpenBao or Vault reaches a command.
fn clean_environment(command: &mut Command, home: &Path) {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
}

/// An address that nobody has, for now: the server cannot be asked which one it chose.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

/// Waits until the server is ready, when it says its key; nothing, if its address was taken.
fn unseal_key(process: &mut Process) -> Option<String> {
    deadline::poll("OpenBao is ready", || {
        let log = process.log();
        // The line after it shows that this one is whole.
        if let Some((_, rest)) = log.split_once("\nUnseal Key: ")
            && let Some((key, _)) = rest.split_once("\nRoot Token: ")
        {
            return Some(Some(key.trim().to_owned()));
        }
        let status = process.ended()?;
        // Read again: it may have said why just before its end.
        let log = process.log();
        assert!(log.contains("address already in use"), "OpenBao ended with {status}: {log}");
        Some(None)
    })
}
