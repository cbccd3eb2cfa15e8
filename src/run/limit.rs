//! How often a program may be restarted.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// At most so many restarts in any span of so long, written `5/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartLimit {
    count: usize,
    within: Duration,
}

/// A text that is no limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of restarts in a time, such as 5/1m")]
pub(crate) struct InvalidLimit(String);

impl FromStr for RestartLimit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let parse = || {
            let (count, within) = text.split_once('/')?;
            let count = count.trim().parse().ok().filter(|count| (1..=1000).contains(count))?;
            let within = humantime::parse_duration(within).ok().filter(|within| !within.is_zero())?;
            Some(Self { count, within })
        };
        parse().ok_or_else(|| InvalidLimit(text.to_owned()))
    }
}

impl fmt::Display for RestartLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, humantime::format_duration(self.within))
    }
}

/// The restarts that were, as far as they count.
#[derive(Debug)]
pub(super) struct Restarts {
    limit: RestartLimit,
    times: VecDeque<Instant>,
}

impl Restarts {
    pub(super) fn new(limit: RestartLimit) -> Self {
        Self { limit, times: VecDeque::new() }
    }

    /// Counts one more restart, or says from when on there may be one.
    pub(super) fn begin(&mut self, now: Instant) -> Result<(), Instant> {
        let RestartLimit { count, within } = self.limit;
        self.times.retain(|time| now.saturating_duration_since(*time) < within);
        match self.times.front() {
            Some(first) if self.times.len() >= count => Err(*first + within),
            _ => {
                self.times.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_in_a_time() {
        let limit: RestartLimit = "5/1m".parse().unwrap();
        assert_eq!((limit.count, limit.within), (5, Duration::from_secs(60)));
        assert_eq!(limit.to_string(), "5/1m");
        for text in ["", "5", "5/", "/1m", "0/1m", "5/0s", "-1/1m", "5/soon", "5000/1m"] {
            assert_eq!(text.parse::<RestartLimit>(), Err(InvalidLimit(text.into())));
        }
    }

    #[test]
    fn restarts_beyond_the_limit_wait_until_the_first_is_old_enough() {
        let mut restarts = Restarts::new("2/1m".parse().unwrap());
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(restarts.begin(at(0)), Ok(()));
        assert_eq!(restarts.begin(at(20)), Ok(()));
        assert_eq!(restarts.begin(at(30)), Err(at(60)));
        assert_eq!(restarts.begin(at(60)), Ok(()));
        assert_eq!(restarts.begin(at(61)), Err(at(80)));
    }
}
