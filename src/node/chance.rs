//! Numbers that a fleet must not have in common.

use aws_lc_rs::rand;

/// A number from 0 to 1. Without randomness, the middle: nothing must fail for want of it.
pub(super) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
