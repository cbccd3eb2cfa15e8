//! The services that keys can be kept in, for tests: a real OpenBao, whatever can go wrong on the way
//! to it, and a real SoftHSM. Each is started by the test that needs it and gone with it.
//!
//! The suite and the manager's unit tests both take this directory in with `#[path]`. All of it is
//! plain blocking code, so that it can be called from a test with a runtime and from one without.

#![allow(dead_code, unused_imports, reason = "the suite and the unit tests each use a part of it")]

pub(crate) mod deadline;
pub(crate) mod faulty_proxy;
pub(crate) mod openbao;
mod process;
pub(crate) mod requirement;
pub(crate) mod softhsm;
#[cfg(test)]
mod tests;

/// A token or PIN that nobody else has, so that a test can hunt for it.
fn random_text() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
