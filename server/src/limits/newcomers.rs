//! How many connections there may be without a certificate, so that whoever has one finds room.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::network;
use crate::config::LimitsConfig;

/// Connections that have shown no certificate: those whose handshake is not over, and those that have none.
///
/// They are counted apart. Who keeps connections without a certificate does not keep a neighbour's node
/// from its handshake, and the total is of those that stay: a node in its handshake is not known to be one.
#[derive(Clone)]
pub(crate) struct Newcomers {
    handshakes: PerNetwork,
    anonymous: PerNetwork,
    total: Arc<Semaphore>,
}

/// A connection without a certificate that may stay. It counts until this is dropped.
pub(crate) struct Anonymous {
    _place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Newcomers {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        let most = config.anonymous_connections_per_network;
        Self {
            handshakes: PerNetwork::new(most),
            anonymous: PerNetwork::new(most),
            total: Arc::new(Semaphore::new(config.anonymous_connections)),
        }
    }

    /// A connection whose handshake begins; `None` if its network has too many of these.
    pub(crate) fn begin(&self, address: IpAddr) -> Option<Place> {
        self.handshakes.enter(address)
    }

    /// A connection that has no certificate; `None` if there are too many, in its network or all together.
    pub(crate) fn stay(&self, address: IpAddr) -> Option<Anonymous> {
        let permit = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Anonymous { _place: self.anonymous.enter(address)?, _permit: permit })
    }
}

/// Counts by network.
#[derive(Clone)]
struct PerNetwork {
    most: usize,
    counts: Counts,
}

/// Networks with a connection at least. Never held across an await.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection that counts for its network until this is dropped.
pub(crate) struct Place {
    network: IpAddr,
    counts: Counts,
}

impl PerNetwork {
    fn new(most: usize) -> Self {
        Self { most, counts: Counts::default() }
    }

    fn enter(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut counts = lock(&self.counts);
        let count = counts.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { network, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = lock(&self.counts).entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn lock(counts: &Counts) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn newcomers(total: usize, per_network: usize) -> Newcomers {
        let limits = crate::config::RawConfig::default().check().expect("a configuration").limits;
        Newcomers::new(&LimitsConfig {
            anonymous_connections: total,
            anonymous_connections_per_network: per_network,
            ..limits
        })
    }

    #[test]
    fn a_network_has_so_many_places_and_gives_them_back() {
        let newcomers = newcomers(100, 2);
        let [one, _two] = ["2001:db8::1", "2001:db8::ffff"]
            .map(|host| newcomers.begin(address(host)).expect("there is room"));
        assert!(newcomers.begin(address("2001:db8::2")).is_none(), "a /64 is one network");
        assert!(newcomers.begin(address("2001:db8:0:1::1")).is_some());
        assert!(newcomers.stay(address("2001:db8::2")).is_some(), "handshakes are counted apart");
        drop(one);
        assert!(newcomers.begin(address("2001:db8::2")).is_some());
        assert_eq!(lock(&newcomers.handshakes.counts).len(), 1, "who has left is forgotten");
    }

    #[test]
    fn all_networks_together_have_a_bound() {
        let newcomers = newcomers(2, 1);
        let stay = |host: u32| newcomers.stay(IpAddr::V4(host.into()));
        let (_one, two) = (stay(1).expect("room"), stay(2).expect("room"));
        assert!(stay(3).is_none());
        drop(two);
        assert!(stay(1).is_none(), "it has its one");
        assert!(stay(3).is_some(), "and what it was refused costs nobody a place");
    }
}
