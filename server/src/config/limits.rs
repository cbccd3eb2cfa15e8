//! The section `[manager.limits]`: how much one caller may ask for, and how often it may fail.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::{InvalidConfig, MILLISECOND, parsed};

/// One report: its opens, and one more for each KiB in which they are longer than others.
const LEAST_OPENS_BURST: u32 = 1250;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Limits as one source gives them; what is absent is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLimitsConfig {
    /// How many failed joins or logins of an address cost no wait. Default: 5.
    pub failures: Option<u32>,
    /// How long the wait after a failure grows. Default: `1m`; at most `1h`.
    pub failure_wait: Option<String>,
    /// How many requests a node may make each second in the long run. Default: 500.
    pub node_requests: Option<u32>,
    /// How many it may make at once. Default: 5000.
    pub node_burst: Option<u32>,
    /// How many opens of files a node may report each second in the long run; one that is long counts as
    /// several. Default: 1000.
    pub node_opens: Option<u32>,
    /// How many it may report at once: no fewer than one report may count as, 1250. Default: 20000.
    pub node_opens_burst: Option<u32>,
    /// How many requests an operator may make each second in the long run. Default: 500.
    pub operator_requests: Option<u32>,
    /// How many they may make at once. Default: 5000.
    pub operator_burst: Option<u32>,
    /// How many connections without a client certificate there may be. Default: a tenth of all.
    pub anonymous_connections: Option<usize>,
    /// How many of them a network may have, and as many whose handshake is not over. Default: a hundredth
    /// of all.
    pub anonymous_connections_per_network: Option<usize>,
}

/// Checked limits.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// How many failed joins or logins of an address cost no wait.
    pub failures: u32,
    /// How long the wait after a failure grows.
    pub failure_wait: Duration,
    /// What a node may ask for.
    pub node: RequestRate,
    /// How many opens a node may report.
    pub node_opens: RequestRate,
    /// What an operator may ask for.
    pub operator: RequestRate,
    /// How many connections without a client certificate there may be.
    pub anonymous_connections: usize,
    /// How many of them a network may have, and as many whose handshake is not over.
    pub anonymous_connections_per_network: usize,
}

/// How many requests one caller may make, or how much else is counted.
#[derive(Debug, Clone, Copy)]
pub struct RequestRate {
    /// Each second in the long run.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

impl RawLimitsConfig {
    /// Checks each limit. Those of connections are parts of what there may be altogether.
    pub(super) fn check(self, max_connections: usize) -> Result<LimitsConfig, InvalidConfig> {
        let failure_wait =
            parsed("limits.failure_wait", self.failure_wait.unwrap_or_else(|| "1m".to_owned()))?;
        if !(MILLISECOND..=HOUR).contains(&failure_wait) {
            return Err(InvalidConfig::OutOfRange { setting: "limits.failure_wait", range: "1ms to 1h" });
        }
        Ok(LimitsConfig {
            failures: self.failures.unwrap_or(5),
            failure_wait,
            node: RequestRate {
                per_second: number("limits.node_requests", self.node_requests, 500)?,
                burst: number("limits.node_burst", self.node_burst, 5000)?,
            },
            node_opens: RequestRate {
                per_second: number("limits.node_opens", self.node_opens, 1000)?,
                burst: number("limits.node_opens_burst", self.node_opens_burst, 20_000)
                    .ok()
                    .filter(|burst| burst.get() >= LEAST_OPENS_BURST)
                    .ok_or(InvalidConfig::OutOfRange {
                        setting: "limits.node_opens_burst",
                        range: "at least 1250, as which one report may count",
                    })?,
            },
            operator: RequestRate {
                per_second: number("limits.operator_requests", self.operator_requests, 500)?,
                burst: number("limits.operator_burst", self.operator_burst, 5000)?,
            },
            anonymous_connections: part(
                "limits.anonymous_connections",
                self.anonymous_connections.unwrap_or((max_connections / 10).max(1)),
                max_connections,
            )?,
            anonymous_connections_per_network: part(
                "limits.anonymous_connections_per_network",
                self.anonymous_connections_per_network.unwrap_or((max_connections / 100).max(1)),
                max_connections,
            )?,
        })
    }
}

fn number(setting: &'static str, given: Option<u32>, default: u32) -> Result<NonZeroU32, InvalidConfig> {
    NonZeroU32::new(given.unwrap_or(default))
        .ok_or(InvalidConfig::OutOfRange { setting, range: "at least 1" })
}

/// Half of all at most: the rest is for whoever has a certificate.
fn part(setting: &'static str, given: usize, max_connections: usize) -> Result<usize, InvalidConfig> {
    if !(1..=(max_connections / 2).max(1)).contains(&given) {
        return Err(InvalidConfig::OutOfRange { setting, range: "1 to half of max_connections" });
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_without_a_limit() {
        let limits = RawLimitsConfig::default().check(10_000).expect("the defaults");
        assert_eq!((limits.failures, limits.node.burst.get()), (5, 5000));
        assert_eq!((limits.anonymous_connections, limits.anonymous_connections_per_network), (1000, 100));
        for (raw, setting) in [
            (RawLimitsConfig { node_requests: Some(0), ..Default::default() }, "limits.node_requests"),
            (
                RawLimitsConfig { node_opens_burst: Some(1249), ..Default::default() },
                "limits.node_opens_burst",
            ),
            (RawLimitsConfig { operator_burst: Some(0), ..Default::default() }, "limits.operator_burst"),
            (
                RawLimitsConfig { failure_wait: Some("2h".into()), ..Default::default() },
                "limits.failure_wait",
            ),
            (
                RawLimitsConfig { anonymous_connections: Some(5001), ..Default::default() },
                "limits.anonymous_connections",
            ),
            (
                RawLimitsConfig { anonymous_connections_per_network: Some(0), ..Default::default() },
                "limits.anonymous_connections_per_network",
            ),
        ] {
            let error = raw.check(10_000).expect_err("no limit").to_string();
            assert!(error.starts_with(setting), "{error}");
        }
    }
}
