//! The token under which Vault is asked: where it comes from, and how it is kept alive.

use std::fs;
use std::sync::Weak;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::client::{Client, Fault};
use crate::config::VaultLogin;

/// How long to wait with the next attempt when a token could not be renewed, nor another one be had.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);
/// A lease that is nearly over is not asked for in a loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// The current token.
pub(super) struct Session {
    login: VaultLogin,
    /// Held while one caller logs in, so that many that need a token make one login.
    current: Mutex<Option<Token>>,
    /// Rung when there is another token than before.
    changed: Notify,
}

#[derive(Clone)]
struct Token {
    /// Marked as sensitive.
    header: HeaderValue,
    /// As the login has told; `None` when Vault has to be asked.
    lease: Option<Lease>,
}

/// How long a token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    /// Zero when it does not end.
    duration: Duration,
    renewable: bool,
}

impl Session {
    pub(super) fn new(login: VaultLogin) -> Self {
        Self { login, current: Mutex::const_new(None), changed: Notify::const_new() }
    }

    /// The token, from a login when there is none.
    pub(super) async fn token(&self, client: &Client) -> Result<HeaderValue, Fault> {
        let mut current = self.current.lock().await;
        if let Some(token) = &*current {
            return Ok(token.header.clone());
        }
        let token = self.log_in(client).await?;
        let header = token.header.clone();
        *current = Some(token);
        self.changed.notify_one();
        Ok(header)
    }

    /// Another token than this one, which Vault has not honoured; `None` when there is no other.
    pub(super) async fn replace(
        &self,
        client: &Client,
        refused: &HeaderValue,
    ) -> Result<Option<HeaderValue>, Fault> {
        let mut current = self.current.lock().await;
        if let Some(token) = &*current
            && token.header != *refused
        {
            return Ok(Some(token.header.clone()));
        }
        let token = self.log_in(client).await?;
        let header = (token.header != *refused).then(|| token.header.clone());
        if header.is_some() {
            *current = Some(token);
            self.changed.notify_one();
        }
        Ok(header)
    }

    async fn log_in(&self, client: &Client) -> Result<Token, Fault> {
        match &self.login {
            VaultLogin::Environment(variable) => match std::env::var(variable) {
                Ok(text) => sensitive(&Zeroizing::new(text), None),
                Err(_) => Err(Fault::NoToken(format!("{variable} is not set"), None)),
            },
            VaultLogin::File(path) => match fs::read_to_string(path).map(Zeroizing::new) {
                Ok(text) => sensitive(&text, None),
                Err(error) => {
                    Err(Fault::NoToken(format!("cannot read {}", path.display()), Some(error.into())))
                }
            },
            VaultLogin::AppRole { mount, role_id, secret_id_file } => {
                let secret_id = fs::read_to_string(secret_id_file).map(Zeroizing::new).map_err(|error| {
                    Fault::NoToken(format!("cannot read {}", secret_id_file.display()), Some(error.into()))
                })?;
                let body = AppRoleLogin { role_id, secret_id: secret_id.trim() };
                let path = format!("auth/{mount}/login");
                let answer = client.log_in::<Login>(&path, &body).await;
                let Login { auth } = answer.map_err(|fault| match fault {
                    Fault::Rejected(words) => {
                        Fault::NoToken(format!("the AppRole is refused: {words}"), None)
                    }
                    fault => fault,
                })?;
                let lease =
                    Lease { duration: Duration::from_secs(auth.lease_duration), renewable: auth.renewable };
                sensitive(&auth.client_token, Some(lease))
            }
        }
    }

    /// Renews the token at two thirds of its lease, or gets another one when that is not possible. Ends
    /// with the client.
    pub(super) async fn keep(client: Weak<Client>) {
        loop {
            let Some(strong) = client.upgrade() else { return };
            let session = strong.session();
            let lease = session.lease(&strong).await;
            let wait = lease.filter(|lease| !lease.duration.is_zero()).map(|lease| lease.duration * 2 / 3);
            let is_due = tokio::select! {
                // Without a token, or one that does not end, there is nothing to do until there is another.
                // A minute later it may be worth another question; the client may also have gone.
                () = sleep(wait.map_or(Duration::from_secs(60), |wait| wait.max(SHORTEST_WAIT))) => wait.is_some(),
                () = session.changed.notified() => false,
            };
            if !is_due {
                continue;
            }
            if let Err(fault) = session.renew(&strong, lease).await {
                tracing::warn!(%fault, "the token for Vault is not renewed");
                drop(strong);
                sleep(RENEWAL_PAUSE).await;
            }
        }
    }

    /// How long the current token lives, if there is one that says so.
    async fn lease(&self, client: &Client) -> Option<Lease> {
        let token = self.current.lock().await.clone()?;
        if token.lease.is_some() {
            return token.lease;
        }
        let asked = client.send(&Method::GET, "auth/token/lookup-self", None, Some(&token.header)).await;
        let answer = asked.inspect_err(|fault| tracing::debug!(%fault, "the token's lease is not known"));
        let looked_up: LookedUp = serde_json::from_slice(&answer.ok()?).ok()?;
        let duration = Duration::from_secs(looked_up.data.ttl);
        Some(Lease { duration, renewable: looked_up.data.renewable })
    }

    async fn renew(&self, client: &Client, lease: Option<Lease>) -> Result<(), Fault> {
        let mut current = self.current.lock().await;
        let Some(token) = current.clone() else { return Ok(()) };
        if lease.is_some_and(|lease| lease.renewable) {
            let renewed =
                client.send(&Method::POST, "auth/token/renew-self", None, Some(&token.header)).await;
            match renewed.map(|answer| serde_json::from_slice::<Login>(&answer)) {
                // At its longest life a token is renewed for less and less.
                Ok(Ok(Login { auth })) if auth.lease_duration > 1 => {
                    let duration = Duration::from_secs(auth.lease_duration);
                    *current =
                        Some(Token { lease: Some(Lease { duration, renewable: auth.renewable }), ..token });
                    return Ok(());
                }
                Ok(_) => {}
                Err(fault) => tracing::debug!(%fault, "a token is not renewed, but replaced"),
            }
        }
        let new = self.log_in(client).await?;
        if new.header == token.header && new.lease.is_none() {
            // The same as before, from its file: whoever writes it keeps it alive, or it ends.
            return Err(Fault::NoToken("the one that there is cannot be renewed".to_owned(), None));
        }
        *current = Some(new);
        Ok(())
    }
}

#[derive(Serialize)]
struct AppRoleLogin<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Deserialize)]
struct Login {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Zeroizing<String>,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct LookedUp {
    data: Lookup,
}

#[derive(Deserialize)]
struct Lookup {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

fn sensitive(text: &str, lease: Option<Lease>) -> Result<Token, Fault> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Fault::NoToken("it is empty".to_owned(), None));
    }
    let mut header = HeaderValue::from_str(text)
        .map_err(|_| Fault::NoToken("it holds what no token holds".to_owned(), None))?;
    header.set_sensitive(true);
    Ok(Token { header, lease })
}
