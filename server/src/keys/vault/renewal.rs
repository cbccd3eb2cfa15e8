//! Keeping the token: it is renewed when two thirds of its time are over, and replaced when it cannot be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::client::{Client, Request};
use super::token::{AuthLease, Lease, Token, Tokens};
use crate::keys::KeyError;

/// After a failure, doubled with each further one.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A renewal that brings less has met the end that the token cannot be renewed beyond.
const LEAST_GAIN: Duration = Duration::from_secs(1);

/// What keeps the token of one Vault.
pub(super) struct Renewal {
    client: Arc<Client>,
    tokens: Arc<Tokens>,
    timeout: Duration,
    /// The token that is looked after, and when it wants something.
    kept: Option<(Arc<Token>, Option<Due>)>,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// When the token ends.
    end: Instant,
    is_renewable: bool,
}

#[derive(Deserialize)]
struct LookedUp {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Renewed {
    auth: AuthLease,
}

impl Due {
    fn of(lease: Lease, since: Instant) -> Option<Self> {
        let duration = lease.duration?;
        Some(Self { at: since + duration * 2 / 3, end: since + duration, is_renewable: lease.is_renewable })
    }
}

impl Renewal {
    pub(super) fn new(client: Arc<Client>, tokens: Arc<Tokens>, timeout: Duration) -> Self {
        Self { client, tokens, timeout, kept: None }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let wait = match self.step().await {
                Ok(due) => {
                    pause = SHORTEST_PAUSE;
                    due.map(|due| due.at.saturating_duration_since(Instant::now()))
                }
                Err(error) => {
                    tracing::warn!(%error, "the token for Vault is not renewed; trying again");
                    let wait = pause;
                    pause = LONGEST_PAUSE.min(2 * pause);
                    Some(wait)
                }
            };
            tokio::select! {
                () = async {
                    match wait {
                        Some(wait) => sleep(wait).await,
                        None => std::future::pending().await,
                    }
                } => {}
                () = self.tokens.replaced() => {}
            }
        }
    }

    /// Does what is due; what is due next, if anything ever is.
    async fn step(&mut self) -> Result<Option<Due>, KeyError> {
        let token = self.tokens.current(&self.client, self.deadline()).await?;
        let known = match &self.kept {
            Some((kept, due)) if Arc::ptr_eq(kept, &token) => *due,
            _ => self.first_due(&token).await?,
        };
        let due = match known {
            Some(due) if due.at <= Instant::now() => self.prolong(&token, due).await?,
            due => due.map(|due| (Arc::clone(&token), due)),
        };
        let next = due.as_ref().map(|(_, due)| *due);
        self.kept = Some(due.map_or((token, None), |(kept, due)| (kept, Some(due))));
        Ok(next)
    }

    async fn first_due(&self, token: &Token) -> Result<Option<Due>, KeyError> {
        match token.lease {
            Some(lease) => Ok(Due::of(lease, token.obtained)),
            None => Ok(self.look_up(token).await?.and_then(|lease| Due::of(lease, Instant::now()))),
        }
    }

    /// Renews the token, or else gets another one.
    async fn prolong(&self, token: &Arc<Token>, due: Due) -> Result<Option<(Arc<Token>, Due)>, KeyError> {
        if due.is_renewable
            && let Some(lease) = self.renew(token).await?
        {
            match Due::of(lease, Instant::now()) {
                Some(next) if next.end > due.end + LEAST_GAIN => {
                    tracing::debug!("the token for Vault is renewed");
                    return Ok(Some((Arc::clone(token), next)));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        if let Some(other) = self.tokens.obtain(&self.client, Some(token), self.deadline()).await? {
            tracing::info!("there is a new token for Vault");
            let next = self.first_due(&other).await?;
            return Ok(next.map(|next| (other, next)));
        }
        let left = due.end.saturating_duration_since(Instant::now());
        tracing::warn!(
            seconds = left.as_secs(),
            "the token for Vault ends and cannot be renewed; give the manager a new one"
        );
        // From then on Vault refuses it, and whoever is refused looks for another one.
        Ok(None)
    }

    /// What Vault tells of a token, unless its policy keeps it from asking.
    async fn look_up(&self, token: &Token) -> Result<Option<Lease>, KeyError> {
        let request = Request::get("auth/token/lookup-self".to_owned());
        let answer = self.client.ask(&request, Some(token.header()), self.deadline()).await?;
        if answer.status != StatusCode::OK {
            return Ok(None);
        }
        let LookedUp { data } = answer.json()?;
        Ok(Some(Lease::new(data.ttl, data.renewable)))
    }

    /// The new lease, unless Vault does not renew the token.
    async fn renew(&self, token: &Token) -> Result<Option<Lease>, KeyError> {
        let request = Request::post("auth/token/renew-self".to_owned(), Bytes::from_static(b"{}"));
        let answer = self.client.ask(&request, Some(token.header()), self.deadline()).await?;
        if answer.status != StatusCode::OK {
            return Ok(None);
        }
        let Renewed { auth } = answer.json()?;
        Ok(Some(auth.into()))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}
