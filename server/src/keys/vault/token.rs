//! The token that Vault is shown, and where it comes from.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::{fault, not_allowed};
use super::client::{Client, Request};
use super::transit;
use crate::config::VaultLogin;
use crate::keys::{BackendFault, KeyError};

/// A token, and a secret id, is never longer.
const MAX_SECRET_BYTES: usize = 16 * 1024;
/// A role that was let in so recently and is refused by a policy is not helped by another token: it is
/// not let in anew for each read.
const LOGIN_INTERVAL: Duration = Duration::from_secs(60);

/// Why there can be no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenSetupError {
    #[error(
        "the environment variable {0} has no token; set it, or one of vault.token_file and vault.approle"
    )]
    NoVariable(String),
    #[error("what the environment variable {0} has is no token")]
    Variable(String),
}

/// A token of Vault's, in memory that is wiped when the last copy of it is dropped.
pub(super) struct Token {
    header: HeaderValue,
    pub(super) obtained: Instant,
    /// As the login told it; `None` for a token that was made elsewhere.
    pub(super) lease: Option<Lease>,
}

/// How long a token holds, from when this was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// `None` when it does not end.
    pub(super) duration: Option<Duration>,
    pub(super) is_renewable: bool,
}

/// The token in use.
pub(super) struct Tokens {
    source: Source,
    /// Never held across an await.
    current: Mutex<Option<Arc<Token>>>,
    /// Held across the login, so that of several that need a new token one gets it.
    login: tokio::sync::Mutex<()>,
    replaced: Notify,
}

enum Source {
    /// An environment variable, which was read at the start and does not change.
    Fixed(Arc<Token>),
    File(PathBuf),
    AppRole {
        path: String,
        role_id: String,
        secret_id_file: PathBuf,
    },
}

#[derive(Serialize)]
struct Login<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Zeroizing<String>,
    #[serde(flatten)]
    lease: AuthLease,
}

/// As a login and a renewal tell it.
#[derive(Deserialize)]
pub(super) struct AuthLease {
    lease_duration: u64,
    renewable: bool,
}

impl Lease {
    pub(super) fn new(seconds: u64, is_renewable: bool) -> Self {
        let duration = Some(Duration::from_secs(seconds)).filter(|duration| !duration.is_zero());
        Self { duration, is_renewable }
    }
}

impl From<AuthLease> for Lease {
    fn from(told: AuthLease) -> Self {
        Self::new(told.lease_duration, told.renewable)
    }
}

impl Token {
    /// `None` when it is nothing that a header can hold.
    fn new(text: Zeroizing<Vec<u8>>, lease: Option<Lease>) -> Option<Self> {
        if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        // The header shares these bytes instead of copying them.
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        header.set_sensitive(true);
        Some(Self { header, obtained: Instant::now(), lease })
    }

    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }
}

impl Tokens {
    pub(super) fn new(login: &VaultLogin) -> Result<Self, TokenSetupError> {
        let source = match login {
            VaultLogin::Variable(name) => Source::Fixed(Arc::new(from_variable(name)?)),
            VaultLogin::File(path) => Source::File(path.clone()),
            VaultLogin::AppRole { mount, role_id, secret_id_file } => Source::AppRole {
                path: format!("auth/{mount}/login"),
                role_id: role_id.clone(),
                secret_id_file: secret_id_file.clone(),
            },
        };
        Ok(Self {
            source,
            current: Mutex::default(),
            login: tokio::sync::Mutex::default(),
            replaced: Notify::new(),
        })
    }

    /// The token in use, which the first caller obtains.
    pub(super) async fn current(&self, client: &Client, deadline: Instant) -> Result<Arc<Token>, KeyError> {
        if let Some(token) = self.get() {
            return Ok(token);
        }
        self.obtain(client, None, deadline).await?.ok_or(KeyError::Crypto)
    }

    /// Another token after Vault has refused this one; nothing when there is no other.
    pub(super) async fn instead_of(
        &self,
        client: &Client,
        refused: &Arc<Token>,
        by_policy: bool,
        deadline: Instant,
    ) -> Result<Option<Arc<Token>>, KeyError> {
        let is_new = refused.obtained.elapsed() < LOGIN_INTERVAL;
        if matches!(self.source, Source::AppRole { .. }) && by_policy && is_new {
            return Ok(None);
        }
        self.obtain(client, Some(refused), deadline).await
    }

    /// A token other than `old`; nothing when there is none.
    pub(super) async fn obtain(
        &self,
        client: &Client,
        old: Option<&Arc<Token>>,
        deadline: Instant,
    ) -> Result<Option<Arc<Token>>, KeyError> {
        let login = tokio::time::timeout_at(deadline, self.login.lock()).await;
        let _login = login.map_err(|_| unavailable("there is no token of Vault's yet".to_owned()))?;
        let is_old = |token: &Arc<Token>| old.is_some_and(|old| Arc::ptr_eq(old, token));
        if let Some(token) = self.get().filter(|token| !is_old(token)) {
            return Ok(Some(token));
        }
        let token = match &self.source {
            Source::Fixed(token) => Arc::clone(token),
            Source::File(path) => Arc::new(from_file(path).await?),
            Source::AppRole { path, role_id, secret_id_file } => {
                Arc::new(log_in(client, path, role_id, secret_id_file, deadline).await?)
            }
        };
        if old.is_some_and(|old| old.header == token.header) {
            return Ok(None);
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
        self.replaced.notify_one();
        Ok(Some(token))
    }

    /// Waits until there is another token.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }

    fn get(&self) -> Option<Arc<Token>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn unavailable(text: String) -> KeyError {
    fault(BackendFault::Unavailable(text, None))
}

fn from_variable(name: &str) -> Result<Token, TokenSetupError> {
    let text = std::env::var_os(name).ok_or_else(|| TokenSetupError::NoVariable(name.to_owned()))?;
    let text = Zeroizing::new(text.into_encoded_bytes());
    if text.trim_ascii().is_empty() {
        return Err(TokenSetupError::NoVariable(name.to_owned()));
    }
    let text = Zeroizing::new(text.trim_ascii().to_vec());
    Token::new(text, None).ok_or_else(|| TokenSetupError::Variable(name.to_owned()))
}

/// Whoever writes the file may do so while the manager runs: what is wrong with it now may be right
/// with the next attempt.
async fn from_file(path: &Path) -> Result<Token, KeyError> {
    let text = read_secret("vault.token_file", path).await?;
    Token::new(text, None)
        .ok_or_else(|| unavailable(format!("vault.token_file {} has no token", path.display())))
}

async fn log_in(
    client: &Client,
    path: &str,
    role_id: &str,
    secret_id_file: &Path,
    deadline: Instant,
) -> Result<Token, KeyError> {
    let setting = "vault.approle.secret_id_file";
    let file = secret_id_file.display();
    let secret_id = read_secret(setting, secret_id_file).await?;
    let secret_id =
        str::from_utf8(&secret_id).map_err(|_| unavailable(format!("{setting} {file} is no text")))?;
    let body = transit::body(role_id.len() + 2 * secret_id.len(), &Login { role_id, secret_id })?;
    let answer = client.ask(&Request::post(path.to_owned(), body), None, deadline).await?;
    match answer.status.as_u16() {
        200 => {}
        404 => return Err(not_allowed(format!("Vault knows no login at {path}; see vault.approle.mount"))),
        status => {
            return Err(not_allowed(format!(
                "Vault does not let the AppRole in ({status}){}; see vault.approle.role_id and the secret id in {file}",
                answer.words()
            )));
        }
    }
    let LoggedIn { auth } = answer.json()?;
    let text = Zeroizing::new(auth.client_token.as_bytes().to_vec());
    Token::new(text, Some(auth.lease.into())).ok_or_else(|| answer.not_understood())
}

/// The secret in a file, without the white space around it.
async fn read_secret(setting: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        // As large as it can get, so that it is never moved.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
        std::fs::File::open(file)?.take(MAX_SECRET_BYTES as u64).read_to_end(&mut text)?;
        Ok(Zeroizing::new(text.trim_ascii().to_vec()))
    });
    let read = read.await.map_err(|_| KeyError::Crypto)?;
    read.map_err(|error: std::io::Error| {
        unavailable(format!("cannot read {setting} {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Option<Token> {
        Token::new(Zeroizing::new(text.as_bytes().to_vec()), None)
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = token("hvs.canary").expect("a token");
        assert_eq!(token.header(), "hvs.canary");
        assert!(!format!("{:?}", token.header()).contains("canary"));
    }

    #[test]
    fn what_no_header_can_hold_is_no_token() {
        for text in ["", "two words", "two\nlines", "höher"] {
            assert!(token(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_variable_must_be_there() {
        let login = VaultLogin::Variable("SECRETFS_TEST_NO_SUCH_TOKEN".to_owned());
        let error = Tokens::new(&login).err().expect("none").to_string();
        assert!(error.contains("SECRETFS_TEST_NO_SUCH_TOKEN has no token"), "{error}");
        // Every process of a test has this one.
        let path = std::env::var("PATH").expect("a variable");
        assert_eq!(from_variable("PATH").expect("a text").header(), path.as_str());
    }

    #[test]
    fn a_lease_of_nothing_does_not_end() {
        assert_eq!(Lease::new(0, true).duration, None);
        assert_eq!(Lease::new(3, true).duration, Some(Duration::from_secs(3)));
    }
}
