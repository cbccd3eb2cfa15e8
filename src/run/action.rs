//! What a change leads to.

use std::str::FromStr;

use nix::sys::signal::Signal as NamedSignal;
use rustix::process::Signal;

/// What is done when a secret has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OnChange {
    /// The program is sent a signal.
    Signal(Signal),
    /// The program is stopped and started again.
    Restart,
    /// A shell runs this command.
    Execute(String),
}

/// A text that names no action.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a signal such as SIGHUP, nor `restart`, nor `exec:COMMAND`")]
pub(crate) struct InvalidAction(String);

impl FromStr for OnChange {
    type Err = InvalidAction;

    fn from_str(text: &str) -> Result<Self, InvalidAction> {
        if text == "restart" {
            return Ok(Self::Restart);
        }
        if let Some(command) = text.strip_prefix("exec:") {
            let command = command.trim();
            return match command.is_empty() {
                true => Err(InvalidAction(text.to_owned())),
                false => Ok(Self::Execute(command.to_owned())),
            };
        }
        signal(text).map(Self::Signal).ok_or_else(|| InvalidAction(text.to_owned()))
    }
}

/// A signal by its name, with or without `SIG`, as kill(1) takes it.
fn signal(name: &str) -> Option<Signal> {
    let name = name.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let named: NamedSignal = name.parse().ok()?;
    Signal::from_named_raw(named as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_spellings() {
        for text in ["SIGHUP", "HUP", "sighup", "hup"] {
            assert_eq!(text.parse(), Ok(OnChange::Signal(Signal::HUP)), "{text}");
        }
        assert_eq!("USR2".parse(), Ok(OnChange::Signal(Signal::USR2)));
        assert_eq!("SIGWINCH".parse(), Ok(OnChange::Signal(Signal::WINCH)));
    }

    #[test]
    fn a_restart_and_a_command_are_named() {
        assert_eq!("restart".parse(), Ok(OnChange::Restart));
        assert_eq!("exec: nginx -s reload".parse(), Ok(OnChange::Execute("nginx -s reload".into())));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in ["", "exec:", "exec: ", "SIGFOO", "SIG", "1", "reload"] {
            let error = text.parse::<OnChange>().expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text:?} is neither")), "{error}");
        }
    }
}
