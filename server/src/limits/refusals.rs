//! What was refused, folded: whoever floods the manager must not flood its log with that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::{Limit, Limited, network};

/// How many callers are told apart between two reports; the others are counted together.
const MOST: usize = 1000;

/// Refusals since they were last taken out.
#[derive(Default)]
pub(crate) struct Refusals {
    /// Never held across an await.
    folded: Mutex<HashMap<(Limit, Option<Limited>), Count>>,
}

struct Count {
    since: Timestamp,
    times: u64,
}

/// All refusals of one caller by one limit in some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) limit: Limit,
    /// `None`: several, of which too many were refused to tell them apart.
    pub(crate) caller: Option<Limited>,
    /// When the first one was.
    pub(crate) since: Timestamp,
    pub(crate) times: u64,
}

impl Limited {
    /// Whoever has this address.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address @ IpAddr::V4(_)) => write!(f, "{address}"),
            Self::Address(network @ IpAddr::V6(_)) => write!(f, "{network}/64"),
            Self::Subject(subject) => write!(f, "{subject}"),
        }
    }
}

impl Refusals {
    /// Counts one.
    pub(crate) fn note(&self, limit: Limit, caller: Limited, now: Timestamp) {
        let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (limit, Some(caller));
        if folded.len() >= MOST && !folded.contains_key(&key) {
            key.1 = None;
        }
        folded.entry(key).or_insert(Count { since: now, times: 0 }).times += 1;
    }

    /// Takes out what was counted.
    pub(crate) fn take(&self) -> Vec<Refused> {
        let folded = std::mem::take(&mut *self.folded.lock().unwrap_or_else(PoisonError::into_inner));
        let refused = folded.into_iter().map(|((limit, caller), Count { since, times })| Refused {
            limit,
            caller,
            since,
            times,
        });
        refused.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_is_told_once_and_all_are_counted() {
        let (refusals, now) = (Refusals::default(), Timestamp::UNIX_EPOCH);
        for number in 0..10_000_u32 {
            refusals.note(Limit::Enrolment, Limited::at(IpAddr::V4((number % 2000).into())), now);
        }
        let taken = refusals.take();
        assert_eq!(taken.iter().map(|refused| refused.times).sum::<u64>(), 10_000);
        assert_eq!(taken.len(), MOST + 1);
        let one = taken.iter().find(|refused| refused.caller == Some(Limited::at(IpAddr::V4(7.into()))));
        assert_eq!(one.map(|refused| refused.times), Some(5));
        assert!(refusals.take().is_empty());
    }
}
