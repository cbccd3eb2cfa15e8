//! The signals that a supervisor gets in its program's stead.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::{Signal, getpgrp};
use tokio::signal::unix::{self, SignalKind};

/// Signals that are the program's. The first five are what a terminal sends to everybody in its
/// foreground.
const FORWARDED: [Signal; 9] = [
    Signal::INT,
    Signal::QUIT,
    Signal::TSTP,
    Signal::WINCH,
    Signal::CONT,
    Signal::TERM,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
];

/// Signals that were sent to this process.
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Takes them from now on. Those that are ignored stay so, here and in the program: that is what
    /// nohup(1) and `&` in a script ask for.
    pub(super) fn register() -> io::Result<Self> {
        let ignored = ignored();
        let wanted = FORWARDED.into_iter().filter(|signal| ignored & bit(*signal) == 0);
        let all = wanted.chain([Signal::CHILD]);
        all.map(|signal| Ok((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?)))
            .collect::<io::Result<Vec<_>>>()
            .map(Self)
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let received =
                all.find_map(|(signal, stream)| stream.poll_recv(context).is_ready().then_some(*signal));
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Whether the program has got this signal already: a terminal sends its signals to all processes in
/// its foreground, and program and supervisor are in one process group.
///
/// A signal that somebody else sends to a supervisor in the foreground cannot be told apart.
pub(super) fn terminal_sent_it(signal: Signal) -> bool {
    matches!(signal, Signal::INT | Signal::QUIT | Signal::TSTP | Signal::WINCH) && in_foreground()
}

fn in_foreground() -> bool {
    let terminal = fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| rustix::termios::tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// Which signals this process was started to ignore, as proc(5) shows it.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
