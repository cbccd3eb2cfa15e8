use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;

use super::fault::{Failure, not_allowed, refused_pin};
use super::module::{Module, THREADS};
use super::pin::Pin;
use crate::config::TokenChoice;
use crate::keys::KeyError;

/// One token of a module, and this process's login to it. All of it blocks.
pub(super) struct Token {
    pub(super) module: Arc<Module>,
    choice: TokenChoice,
    pin: Pin,
    /// Held while somebody logs in, so that nobody does so twice.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    login: Option<Login>,
    /// How many logins there were.
    logins: u64,
    /// What the token said of the PIN. It counts the attempts and locks itself, so a PIN that was
    /// refused is not shown to it again.
    refused: Option<RvError>,
}

struct Login {
    slot: Slot,
    /// Is used for nothing else: when the last session of a process ends, its login does.
    _keeper: Session,
    idle: Vec<Session>,
}

/// A session to work in.
pub(super) struct Access<'a> {
    pub(super) session: &'a Session,
    context: &'a Pkcs11,
}

impl Access<'_> {
    /// Whether the session is logged in to a token that is there.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let session = self.session.get_session_info()?;
        if session.session_state() != SessionState::RwUser {
            return Err(Error::Pkcs11(RvError::UserNotLoggedIn, Function::GetSessionInfo).into());
        }
        let gone = |error| Failure::NoToken(format!("the token does not answer: {error:?}"));
        self.context.get_token_info(session.slot_id()).map(|_| ()).map_err(gone)
    }
}

impl Token {
    pub(super) fn new(module: Arc<Module>, choice: TokenChoice, pin: Pin) -> Self {
        Self { module, choice, pin, state: Mutex::default() }
    }

    /// Does this in a session of its own; with a new login when that was lost, once.
    pub(super) fn with_session<T>(
        &self,
        work: impl Fn(&Access<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match self.attempt(&work) {
            Err(failure) if failure.is_lost() => self.attempt(&work),
            other => other,
        }
    }

    /// Ends the login, whatever became of it.
    pub(super) fn forget(&self) {
        self.state().login = None;
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.state().login.as_ref().map_or(0, |login| login.idle.len())
    }

    fn attempt<T>(&self, work: impl Fn(&Access<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let (login, session) = self.session()?;
        let done = self
            .module
            .context()
            .map_err(Failure::from)
            .and_then(|context| work(&Access { session: &session, context }));
        match &done {
            Err(failure) if failure.is_lost() => {
                let mut state = self.state();
                // Closed before anybody opens others, which may get the same numbers.
                drop(session);
                if state.logins == login {
                    state.login = None;
                }
            }
            // It may be in the middle of what failed: it is closed.
            Err(Failure::Call(_) | Failure::NoToken(_)) => drop(session),
            Ok(_) | Err(Failure::Told(_)) => self.give_back(login, session),
        }
        done
    }

    /// A session, and by which login.
    fn session(&self) -> Result<(u64, Session), Failure> {
        let mut state = self.state();
        let slot = match &mut state.login {
            Some(login) => match login.idle.pop() {
                Some(session) => return Ok((state.logins, session)),
                None => login.slot,
            },
            None => self.log_in(&mut state)?,
        };
        match self.module.context()?.open_rw_session(slot) {
            Ok(session) => Ok((state.logins, session)),
            Err(error) => {
                let failure = Failure::from(error);
                if failure.is_lost() {
                    state.login = None;
                }
                Err(failure)
            }
        }
    }

    fn log_in(&self, state: &mut State) -> Result<Slot, Failure> {
        if let Some(refused) = state.refused {
            return Err(wrong_pin(refused).into());
        }
        let context = self.module.context()?;
        let slot = self.slot(context)?;
        for mechanism in [MechanismType::AES_GCM, MechanismType::AES_KEY_GEN] {
            match context.get_mechanism_info(slot, mechanism) {
                Err(Error::Pkcs11(RvError::MechanismInvalid, _)) => {
                    return Err(not_allowed(format!("the token does not offer {mechanism}")).into());
                }
                other => other?,
            };
        }
        let keeper = context.open_rw_session(slot)?;
        match keeper.login_with_raw(UserType::User, self.pin.expose()) {
            // Others in this process may have a session with the same token.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => {
                state.refused = refused_pin(&error);
                return Err(state.refused.map_or_else(|| error.into(), |refused| wrong_pin(refused).into()));
            }
        }
        state.logins += 1;
        state.login = Some(Login { slot, _keeper: keeper, idle: Vec::new() });
        Ok(slot)
    }

    fn slot(&self, context: &Pkcs11) -> Result<Slot, Failure> {
        let slots = context.get_slots_with_token()?;
        let label = match &self.choice {
            TokenChoice::Slot(number) => {
                let there: Vec<_> = slots.iter().map(ToString::to_string).collect();
                let absent =
                    || Failure::NoToken(format!("no token is in slot {number}; slots: {}", list(&there)));
                return slots.into_iter().find(|slot| slot.id() == *number).ok_or_else(absent);
            }
            TokenChoice::Label(label) => label,
        };
        // A token that does not tell of itself is none that somebody chose by its label.
        let tokens: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| Some((slot, context.get_token_info(slot).ok()?)))
            .filter(|(_, token)| token.token_initialized())
            .map(|(slot, token)| (slot, token.label().trim_end().to_owned()))
            .collect();
        let mut chosen = tokens.iter().filter(|(_, there)| there == label);
        match (chosen.next(), chosen.next()) {
            (Some((slot, _)), None) => Ok(*slot),
            (Some(_), Some(_)) => {
                Err(not_allowed(format!("several tokens are labelled {label:?}; choose one by its slot"))
                    .into())
            }
            (None, _) => {
                let there: Vec<_> = tokens.into_iter().map(|(_, label)| label).collect();
                Err(Failure::NoToken(format!("no token is labelled {label:?}; labels: {}", list(&there))))
            }
        }
    }

    fn give_back(&self, by: u64, session: Session) {
        let mut state = self.state();
        if state.logins == by
            && let Some(login) = &mut state.login
            && login.idle.len() < THREADS as usize
        {
            login.idle.push(session);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wrong_pin(refused: RvError) -> KeyError {
    not_allowed(format!(
        "the token refuses the PIN ({refused:?}), and is not asked again with it, since it would lock itself; \
         correct the PIN and restart the manager"
    ))
}

fn list(there: &[String]) -> String {
    if there.is_empty() { "none".to_owned() } else { there.join(", ") }
}
