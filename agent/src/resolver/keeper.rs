//! Keeps a resolver of this build there: starts one where there is none, and replaces one of another build, one that
//! has ended and one that has stopped answering.

use shoal_rt::Backoff;
use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    process::Process,
    wire::{self, Answer, Ask, BUILD, Line},
};

/// From starting the process until it answers.
const START_LIMIT: Duration = Duration::from_secs(5);
const START_PAUSE: Duration = Duration::from_millis(5);
/// Between the end of one resolver and the start of the next: it may end at once, each time.
const RESTART: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A process that lived for this long is replaced without a pause.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Between two pings.
const PING_EVERY: Duration = Duration::from_secs(1);
/// A process that has not answered for this long is shown as silent: whoever waits for it says so.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A process that has not answered for this long is killed and replaced. Longer than a busy host delays it: its end
/// breaks the connections that it passes on.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a process of another build is given to end by itself.
const QUIT_LIMIT: Duration = Duration::from_secs(1);
/// What the kernel is given to end a killed process.
const KILL_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start the resolver of this host")]
    Start(#[source] io::Error),
    #[error("the resolver of this host ended at its start: {0}; the daemon's log says why")]
    Ended(ExitStatus),
    #[error("the resolver of this host does not answer {} s after its start", START_LIMIT.as_secs())]
    Late,
    #[error("cannot tell which process is the resolver of this host")]
    Who(#[source] io::Error),
    #[error("the resolver of this host ({0}) cannot be ended")]
    Kill(Process, #[source] io::Error),
    #[error("the resolver of this host ({0}) was killed and has not ended: it hangs in the kernel")]
    Stays(Process),
}

/// How the resolver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Of this many processes' successor.
    Up(u64),
    /// And why.
    Down(String),
}

#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) program: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) resolv_conf: PathBuf,
    pub(super) state: watch::Sender<State>,
    /// Counts the processes that this daemon has seen end: what each had been told must be said again.
    pub(super) ended: watch::Sender<u64>,
}

/// Why a process is watched no longer.
enum End {
    Gone,
    Silent,
}

impl Keeper {
    /// Never ends by itself.
    pub(super) async fn run(&self) {
        let mut backoff = Backoff::new(RESTART.0, RESTART.1);
        loop {
            match self.come_up().await {
                Ok((line, process)) => {
                    let begun = Instant::now();
                    self.watch(&line, process).await;
                    self.ended.send_modify(|n| *n += 1);
                    if begun.elapsed() > STABLE_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => self.down(crate::chain(&error)),
            }
            sleep(backoff.delay()).await;
        }
    }

    /// Says once why there are no names.
    fn down(&self, why: String) {
        let down = State::Down(why);
        self.state.send_if_modified(|before| {
            let news = *before != down;
            if let (true, State::Down(why)) = (news, &down) {
                tracing::error!("names are not answered on this host: {why}");
            }
            *before = down;
            news
        });
    }

    /// Returns when the process has ended, or has been killed.
    async fn watch(&self, line: &Line, process: Option<Process>) {
        let number = *self.ended.borrow();
        self.state.send_replace(State::Up(number));
        match self.ping(line, number, process.as_ref()).await {
            End::Gone => self.down("its process has ended, and another is started".to_owned()),
            End::Silent => {
                let who = who(process.as_ref());
                self.down(format!(
                    "the resolver ({who}) has not answered for {} s: it is replaced",
                    PATIENCE.as_secs()
                ));
                if let Some(process) = process
                    && let Err(error) = kill(process).await
                {
                    self.down(crate::chain(&error));
                }
            }
        }
    }

    async fn ping(&self, line: &Line, number: u64, process: Option<&Process>) -> End {
        loop {
            let answer = exchange(line, &Ask::Ping);
            tokio::pin!(answer);
            let answered = match timeout(SILENT_AFTER, &mut answer).await {
                Ok(answered) => answered,
                Err(_) => {
                    let who = who(process);
                    let why = format!("the resolver of this host ({who}) does not answer; in a moment it is replaced");
                    tracing::warn!("{why}");
                    self.state.send_replace(State::Down(why));
                    match timeout(PATIENCE - SILENT_AFTER, answer).await {
                        Ok(answered) => answered,
                        Err(_) => return End::Silent,
                    }
                }
            };
            if answered.is_err() {
                return End::Gone;
            }
            self.state.send_if_modified(|state| {
                let up = State::Up(number);
                let news = *state != up;
                *state = up;
                news
            });
            // It says nothing unasked: what can be read is its end.
            if timeout(PING_EVERY, line.ends()).await.is_ok() {
                return End::Gone;
            }
        }
    }

    /// A process of this build, started if there is none.
    async fn come_up(&self) -> Result<(Line, Option<Process>), Error> {
        let end = Instant::now() + START_LIMIT;
        let socket = super::socket(&self.run_dir);
        let mut started: Option<Child> = None;
        while Instant::now() < end {
            match Line::connect(&socket).await {
                Ok(line) => {
                    let process = Process::behind(&line).map_err(Error::Who)?;
                    if is_of_this_build(&line).await {
                        return Ok((line, process));
                    }
                    replace(&line, process).await?;
                }
                Err(_) => match started.as_mut().map(Child::try_wait) {
                    Some(Ok(None)) => {}
                    // It found another one, which is ending.
                    Some(Ok(Some(status))) if status.success() => started = None,
                    Some(Ok(Some(status))) => return Err(Error::Ended(status)),
                    None => started = Some(self.start().map_err(Error::Start)?),
                    Some(Err(error)) => return Err(Error::Start(error)),
                },
            }
            sleep(START_PAUSE).await;
        }
        Err(Error::Late)
    }

    /// In a process group of its own: what ends the daemon does not end it.
    fn start(&self) -> io::Result<Child> {
        // tokio reaps it when it ends before us.
        Command::new(&self.program)
            .arg0("shoal")
            .arg(super::VERB)
            .args([&self.run_dir, &self.resolv_conf])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
    }
}

async fn is_of_this_build(line: &Line) -> bool {
    match timeout(PATIENCE, exchange(line, &Ask::Hello)).await {
        Ok(Ok(Answer::Hello { version, .. })) if version == BUILD => true,
        Ok(Ok(Answer::Hello { version, .. })) => {
            tracing::info!(
                its = version,
                ours = BUILD,
                "the resolver of this host is of another build: it is replaced"
            );
            false
        }
        Ok(Ok(Answer::Done | Answer::Unsocketed | Answer::Held(_) | Answer::Failed(_))) => false,
        // It may just be ending.
        Ok(Err(error)) => {
            tracing::debug!(%error, "the resolver of this host cannot be understood");
            false
        }
        Err(_) => {
            tracing::warn!("the resolver of this host does not answer: it is replaced");
            false
        }
    }
}

/// Ends a process that is of no use.
async fn replace(line: &Line, process: Option<Process>) -> Result<(), Error> {
    // One that is stopped, or of a build that knows no such word, is killed.
    let _: Result<io::Result<Answer>, _> = timeout(QUIT_LIMIT, exchange(line, &Ask::Quit)).await;
    let Some(process) = process else { return Ok(()) };
    let (process, ended) = on_a_thread(process, |process| process.ends_within(QUIT_LIMIT)).await;
    match ended {
        Ok(true) => Ok(()),
        Ok(false) => kill(process).await,
        Err(error) => Err(Error::Kill(process, error)),
    }
}

async fn kill(process: Process) -> Result<(), Error> {
    let (process, ended) = on_a_thread(process, |process| process.kill(KILL_LIMIT)).await;
    match ended {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Stays(process)),
        Err(error) => Err(Error::Kill(process, error)),
    }
}

async fn on_a_thread<T: Send + 'static>(
    process: Process,
    f: impl FnOnce(&Process) -> io::Result<T> + Send + 'static,
) -> (Process, io::Result<T>) {
    let done = tokio::task::spawn_blocking(move || {
        let done = f(&process);
        (process, done)
    });
    match done.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody awaits this any longer.
            Err(_) => std::future::pending().await,
        },
    }
}

fn who(process: Option<&Process>) -> String {
    process.map_or("its process is not to be seen".to_owned(), Process::to_string)
}

/// No limit of its own.
pub(super) async fn exchange(line: &Line, ask: &Ask) -> io::Result<Answer> {
    line.send(&wire::encode(ask)?, &[]).await?;
    line.receive().await?.ok_or(io::ErrorKind::ConnectionReset)?.decode()
}

/// Ends the resolver of the host at `run_dir`, if there is one. Without an async runtime.
pub(super) fn quit(run_dir: &Path) -> io::Result<()> {
    use std::{io::Read as _, io::Write as _, os::unix::net::UnixStream};

    let mut line = match UnixStream::connect(super::socket(run_dir)) {
        Ok(line) => line,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(()),
        Err(e) => return Err(e),
    };
    let process = Process::behind(&line)?;
    line.set_read_timeout(Some(QUIT_LIMIT))?;
    line.write_all(&wire::encode(&Ask::Quit)?)?;
    // Its answer, then its end.
    let said = line.read_to_end(&mut Vec::new()).map(drop);
    match process {
        None => said,
        Some(process) if process.ends_within(QUIT_LIMIT)? || process.kill(KILL_LIMIT)? => Ok(()),
        Some(process) => Err(io::Error::other(Error::Stays(process))),
    }
}
