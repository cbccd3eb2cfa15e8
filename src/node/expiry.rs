//! The end of a node's certificate that was not renewed: whoever is cut off so that it does not hear
//! that it was revoked keeps what it has until then, and no longer.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::presence::Node;

/// How often the clock is looked at, at the least: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(1);

/// Takes everything away when the certificate ends, and gives it back if it is renewed after all. For
/// ever.
pub(super) async fn end_with_certificate(node: Arc<Node>) {
    loop {
        let end = node.shown().certificate_expires;
        let left = left(Timestamp::now(), end);
        node.set_certificate_ended(left.is_zero());
        let next = if left.is_zero() { LOOK } else { left.min(LOOK) };
        tokio::time::sleep(next).await;
    }
}

/// For how long a certificate still holds. One whose end is not known is the manager's to refuse.
pub(super) fn left(now: Timestamp, end: Option<Timestamp>) -> Duration {
    let Some(end) = end else { return Duration::MAX };
    Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_from_the_end_on() {
        let end = Timestamp::UNIX_EPOCH;
        let before = end - Duration::from_millis(1);
        assert_eq!(left(before, Some(end)), Duration::from_millis(1));
        assert_eq!(left(end, Some(end)), Duration::ZERO);
        assert_eq!(left(end + Duration::from_secs(5), Some(end)), Duration::ZERO);
        assert_eq!(left(Timestamp::MAX, None), Duration::MAX);
    }
}
