use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use secretfs_wire::KeyBackendKind;

use crate::keys::{BackendFault, KeyError};

/// Why a job in the module failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A call into the module.
    Call(Error),
    /// The token is not there, with what is there instead.
    NoToken(String),
    /// What the caller is told as it is.
    Told(KeyError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::Told(error)
    }
}

impl Failure {
    /// Whether what the process knew of the token no longer holds: its sessions, its login, an object
    /// that was found a moment ago. All that is done in the module can be done once more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_gone()
            || matches!(
                self,
                Self::Call(Error::Pkcs11(
                    RvError::SessionHandleInvalid
                        | RvError::SessionClosed
                        | RvError::UserNotLoggedIn
                        | RvError::OperationActive
                        | RvError::OperationNotInitialized
                        | RvError::KeyHandleInvalid
                        | RvError::ObjectHandleInvalid,
                    _,
                ))
            )
    }

    /// Whether the token itself is not there. The module may then have to be initialized again to see
    /// it: many list their tokens once, and some never come back from a lost device by themselves.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::NoToken(_) => true,
            Self::Call(Error::Pkcs11(code, _)) => matches!(
                code,
                RvError::CryptokiNotInitialized
                    | RvError::DeviceRemoved
                    | RvError::DeviceError
                    | RvError::TokenNotPresent
                    | RvError::TokenNotRecognized
                    | RvError::SlotIdInvalid
            ),
            Self::Call(_) | Self::Told(_) => false,
        }
    }

    pub(super) fn into_key_error(self) -> KeyError {
        match self {
            Self::Told(error) => error,
            Self::NoToken(what) => unavailable(what),
            Self::Call(Error::Pkcs11(code, function)) => {
                let text = format!("C_{function:?} answered {code:?}");
                if is_lasting(code) { not_allowed(text) } else { unavailable(text) }
            }
            Self::Call(error) => malformed(error.to_string()),
        }
    }
}

/// Whether trying again is of no use until somebody has changed something in the HSM.
fn is_lasting(code: RvError) -> bool {
    matches!(
        code,
        RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::FunctionNotSupported
            | RvError::KeyFunctionNotPermitted
            | RvError::KeyTypeInconsistent
            | RvError::KeySizeRange
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::AttributeReadOnly
            | RvError::ActionProhibited
            | RvError::TokenWriteProtected
            | RvError::SessionReadOnly
    )
}

/// The token's answer to a login that it refused for the PIN.
pub(super) fn refused_pin(error: &Error) -> Option<RvError> {
    let Error::Pkcs11(code, Function::Login) = error else { return None };
    let refused = matches!(
        code,
        RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::UserPinNotInitialized
    );
    refused.then_some(*code)
}

/// It does not answer, or not now.
pub(super) fn unavailable(what: impl Into<String>) -> KeyError {
    fault(BackendFault::Unavailable(what.into(), None))
}

/// It does not let the manager do this.
pub(super) fn not_allowed(what: impl Into<String>) -> KeyError {
    fault(BackendFault::NotAllowed(what.into()))
}

/// It answers what it should not.
pub(super) fn malformed(what: impl Into<String>) -> KeyError {
    fault(BackendFault::Malformed(what.into()))
}

fn fault(fault: BackendFault) -> KeyError {
    KeyError::Backend { backend: KeyBackendKind::Pkcs11, fault }
}
