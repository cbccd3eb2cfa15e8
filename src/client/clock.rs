//! The manager's clock, as its answers show it, and what can be said of a host's own clock that is wrong.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{DATE, HeaderMap};
use rustls::{AlertDescription, CertificateError};
use secretfs_wire::CLOCK_TOLERANCE;

/// A difference that is worth a word: more than a second of HTTP, a slow answer and a worn-out quartz.
const NOTICEABLE: SignedDuration = SignedDuration::from_mins(1);

/// What the manager's clock shows now, whatever this host's clock shows or is set to.
#[derive(Debug, Default)]
pub(crate) struct ManagerClock(Mutex<Option<(Timestamp, Instant)>>);

impl ManagerClock {
    /// The time for the manager; this host's, as long as the manager has not been heard.
    pub(crate) fn now(&self) -> Timestamp {
        self.heard().unwrap_or_else(Timestamp::now)
    }

    fn heard(&self) -> Option<Timestamp> {
        let (said, at) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        said.checked_add(at.elapsed()).ok()
    }

    /// How far this host's clock is ahead of the manager's, if the difference is worth a word.
    pub(crate) fn host_ahead(&self) -> Option<SignedDuration> {
        let ahead = Timestamp::now().duration_since(self.heard()?);
        (ahead.abs() >= NOTICEABLE).then_some(ahead)
    }

    /// Learns the time from an answer (RFC 9110, 6.6.1). Logs when the clocks differ.
    pub(super) fn hear(&self, headers: &HeaderMap) {
        let Some(date) = headers.get(DATE).and_then(|date| date.to_str().ok()) else { return };
        // What is no date is no time to go by; an answer is none the worse for it.
        let Ok(said) = jiff::fmt::rfc2822::parse(date) else { return };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((said.timestamp(), Instant::now()));
        if let Some(ahead) = self.host_ahead() {
            tracing::warn!("{}", describe(ahead));
        }
    }
}

/// A difference of clocks in a line, and what to do about it.
pub(crate) fn describe(host_ahead: SignedDuration) -> String {
    let way = if host_ahead.is_negative() { "behind" } else { "ahead of" };
    format!(
        "this host's clock is {} {way} the manager's; set it (timedatectl)",
        rounded(host_ahead.unsigned_abs())
    )
}

/// What a refused handshake says about clocks.
pub(super) fn explain(error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            // It begins so long before it was made, which was before now.
            let early = Duration::from_secs(not_before.as_secs().saturating_sub(time.as_secs()));
            let behind = SignedDuration::try_from(early + CLOCK_TOLERANCE).ok()?;
            Some(describe(-behind))
        }
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            let late = Duration::from_secs(time.as_secs().saturating_sub(not_after.as_secs()));
            Some(format!(
                "by this host's clock the manager's certificate ended {} ago; compare the clocks of both (timedatectl)",
                rounded(late)
            ))
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Some(
            "by the manager's clock the certificate of this host has ended or not begun; compare the clocks of \
             both (timedatectl)"
                .to_owned(),
        ),
        _ => None,
    }
}

fn rounded(duration: Duration) -> String {
    let minutes = (duration.as_secs() + 30) / 60;
    match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 60 / 24),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::*;

    fn heard(date: &str) -> ManagerClock {
        let clock = ManagerClock::default();
        clock.hear(&HeaderMap::from_iter([(DATE, date.parse().unwrap())]));
        clock
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn the_managers_clock_goes_on_from_what_it_said() {
        let clock = heard("Wed, 21 Oct 2015 07:28:00 GMT");
        let said: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        assert!((0..5).contains(&clock.now().duration_since(said).as_secs()));
        assert!(clock.host_ahead().unwrap() > SignedDuration::from_hours(24));
    }

    #[test]
    fn small_differences_and_nonsense_are_nothing() {
        let now = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
        assert_eq!(heard(&now.unwrap()).host_ahead(), None);
        assert_eq!(heard("soon").host_ahead(), None);
        assert!(Timestamp::now().duration_since(heard("soon").now()).abs() < SignedDuration::from_secs(5));
    }

    #[test]
    fn a_difference_is_one_line_that_says_what_to_do() {
        for (ahead, words) in [
            (SignedDuration::from_secs(-7 * 60 - 4), "7 min behind the manager's"),
            (SignedDuration::from_mins(3), "3 min ahead of the manager's"),
            (SignedDuration::from_hours(-5), "5 h behind"),
            (SignedDuration::from_hours(-24 * 400), "400 days behind"),
        ] {
            let line = describe(ahead);
            assert!(line.contains(words) && line.contains("timedatectl") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_says_how_wrong_the_clock_is() {
        let time = at(1_000_000);
        let early = CertificateError::NotValidYetContext { time, not_before: at(1_000_120) };
        let line = explain(&rustls::Error::InvalidCertificate(early)).unwrap();
        assert!(line.contains("7 min behind"), "{line}");
        let late = CertificateError::ExpiredContext { time, not_after: at(1_000_000 - 3 * 3600) };
        let line = explain(&rustls::Error::InvalidCertificate(late)).unwrap();
        assert!(line.contains("ended 3 h ago"), "{line}");
        assert!(explain(&rustls::Error::AlertReceived(AlertDescription::CertificateExpired)).is_some());
        assert_eq!(explain(&rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), None);
    }
}
