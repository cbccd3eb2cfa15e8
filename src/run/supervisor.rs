//! The program, the changes, the signals and the clock, in one loop.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use tokio::time::{Instant as Deadline, sleep_until};

use super::action::OnChange;
use super::limit::Restarts;
use super::program::{Hook, Program, exit_code};
use super::signals::{Signals, terminal_sent_it};
use super::watch::Changes;
use super::{Options, RunError, orphans};

/// How long the command of an action may take. Then it is killed, so that the next change is acted on.
const HOOK_LIMIT: Duration = Duration::from_secs(300);

pub(super) struct Supervisor {
    options: Options,
    program: Program,
    restarts: Restarts,
    /// The program is to be started again once it has ended; until when it has time to.
    restarting: Option<Instant>,
    /// A restart that the limit has put off.
    put_off: Option<Instant>,
    hook: Option<(Hook, Instant)>,
    /// A change that came while the hook ran.
    hook_again: bool,
    /// Somebody asked the program to end: it is not started again.
    ending: bool,
}

impl Supervisor {
    /// Starts the program.
    pub(super) fn start(options: Options) -> Result<Self, RunError> {
        let program = Program::start(&options.command).map_err(RunError::Start)?;
        let restarts = Restarts::new(options.restart_limit);
        Ok(Self {
            options,
            program,
            restarts,
            restarting: None,
            put_off: None,
            hook: None,
            hook_again: false,
            ending: false,
        })
    }

    /// Supervises it until it ends by itself; its exit code.
    pub(super) async fn supervise(
        mut self,
        mut signals: Signals,
        mut changes: Changes,
    ) -> Result<u8, RunError> {
        loop {
            let (due, waits) = self.due();
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::CHILD => if let Some(code) = self.reap()? {
                        return Ok(code);
                    },
                    signal => self.forward(signal),
                },
                // The thread that watches lives as long as this process.
                Ok(()) = changes.changed() => {
                    let names = changes.borrow_and_update().join(", ");
                    self.changed(&names);
                }
                () = sleep_until(due), if waits => self.tick(),
            }
        }
    }

    /// When something is to be done although nothing happens, and whether there is such a time.
    fn due(&self) -> (Deadline, bool) {
        let hook = self.hook.as_ref().map(|(_, end)| *end);
        let next = [self.restarting, self.put_off, hook].into_iter().flatten().min();
        (next.unwrap_or_else(Instant::now).into(), next.is_some())
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.restarting.is_some_and(|end| end <= now) {
            tracing::warn!(after = ?self.options.stop_timeout, "the program did not end and is killed");
            self.program.signal(Signal::KILL);
            // The kernel ends it now; there is nothing more to do at a certain time.
            self.restarting = Some(now + self.options.stop_timeout.max(Duration::from_secs(1)));
        }
        if self.put_off.is_some_and(|begin| begin <= now) {
            self.put_off = None;
            self.restart();
        }
        if let Some((hook, end)) = &mut self.hook
            && *end <= now
        {
            tracing::error!(after = ?HOOK_LIMIT, "the command of --on-change did not end and is killed");
            hook.signal(Signal::KILL);
            *end = now + HOOK_LIMIT;
        }
    }

    fn changed(&mut self, names: &str) {
        match &self.options.on_change {
            _ if self.ending => {}
            OnChange::Signal(signal) => {
                tracing::info!(changed = names, ?signal, "secrets changed: sending a signal");
                self.program.signal(*signal);
            }
            OnChange::Execute(_) if self.hook.is_some() => {
                tracing::info!(
                    changed = names,
                    "secrets changed: the command still runs, and will once more"
                );
                self.hook_again = true;
            }
            OnChange::Execute(command) => {
                tracing::info!(changed = names, command, "secrets changed: running a command");
                self.execute();
            }
            // What is starting, or will, finds them changed.
            OnChange::Restart if self.restarting.is_some() || self.put_off.is_some() => {}
            OnChange::Restart => {
                tracing::info!(changed = names, "secrets changed: restarting the program");
                self.restart();
            }
        }
    }

    fn restart(&mut self) {
        let now = Instant::now();
        match self.restarts.begin(now) {
            Ok(()) => {
                self.program.signal(Signal::TERM);
                // One that is stopped takes it only when it goes on.
                self.program.signal(Signal::CONT);
                self.restarting = Some(now + self.options.stop_timeout);
            }
            Err(from) => {
                let wait = (from - now).as_secs_f64().ceil();
                tracing::error!(
                    "too many restarts (--restart-limit {}): the program goes on with older secrets for {wait} s",
                    self.options.restart_limit
                );
                self.put_off = Some(from);
            }
        }
    }

    fn execute(&mut self) {
        let OnChange::Execute(command) = &self.options.on_change else { return };
        self.hook_again = false;
        match Hook::start(command, self.program.id()) {
            Ok(hook) => self.hook = Some((hook, Instant::now() + HOOK_LIMIT)),
            Err(error) => tracing::error!(%error, command, "the command of --on-change cannot be started"),
        }
    }

    fn forward(&mut self, signal: Signal) {
        self.ending |= matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT);
        if !terminal_sent_it(signal) {
            self.program.signal(signal);
        }
        // As if it had not been caught, so that a shell sees its job stop.
        if signal == Signal::TSTP {
            let _ = kill_process(rustix::process::getpid(), Signal::STOP);
        }
    }

    /// Learns which children have ended; the exit code, if that is the end.
    fn reap(&mut self) -> Result<Option<u8>, RunError> {
        if let Some((hook, _)) = &mut self.hook
            && let Some(status) = hook.try_wait()
        {
            self.hook = None;
            if !status.success() {
                tracing::error!(%status, "the command of --on-change failed");
            }
            if self.hook_again && !self.ending {
                self.execute();
            }
        }
        let ended = self.program.try_wait();
        if let Some(status) = ended {
            if self.ending || self.restarting.take().is_none() {
                if let Some((hook, _)) = &self.hook {
                    hook.signal(Signal::TERM);
                }
                return Ok(Some(exit_code(status)));
            }
            self.program = Program::start(&self.options.command).map_err(RunError::Start)?;
        }
        let hook = self.hook.as_ref().map(|(hook, _)| hook.id());
        orphans::reap(&[Some(self.program.id()), hook].into_iter().flatten().collect::<Vec<_>>());
        Ok(None)
    }
}
