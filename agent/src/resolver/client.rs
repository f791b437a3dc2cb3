//! The daemon's side: it starts the resolver where there is none, and talks to it.

use shoal_common::{TaskId, assignment::Assignment};
use shoal_dns::Scope;
use shoal_plan::Listener;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};

use super::wire::{self, Answer, Ask, VERSION};

/// From starting the process until it listens.
const START_LIMIT: Duration = Duration::from_secs(5);
const START_PAUSE: Duration = Duration::from_millis(5);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Between the end of one resolver and the start of the next: it may end at once, each time.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start the resolver of this host")]
    Start(#[source] io::Error),
    #[error("the resolver of this host does not answer")]
    Talk(#[source] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Clones talk to the same process.
#[derive(Debug, Clone)]
pub(crate) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    run_dir: PathBuf,
    resolv_conf: PathBuf,
    /// One question at a time.
    line: Mutex<Option<UnixStream>>,
    /// What every answer is to be made from.
    told: watch::Sender<Arc<Assignment>>,
    /// Counts the processes that this daemon has seen end.
    ended: watch::Sender<u64>,
}

impl Client {
    pub(crate) fn new(program: PathBuf, run_dir: PathBuf, resolv_conf: PathBuf) -> Self {
        Self(Arc::new(Inner {
            program,
            run_dir,
            resolv_conf,
            line: Mutex::default(),
            told: watch::Sender::default(),
            ended: watch::Sender::default(),
        }))
    }

    pub(crate) fn resolv_conf(&self) -> &Path {
        &self.0.resolv_conf
    }

    /// Rises when the process has ended: whom it served must be served again.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.0.ended.subscribe()
    }

    /// From now on every answer is to be made from this; [`Client::keep_telling`] sees to it.
    pub(crate) fn tell(&self, assignment: Arc<Assignment>) {
        self.0.told.send_replace(assignment);
    }

    /// Keeps the process alive and told. Never ends by itself.
    pub(crate) async fn run(&self) {
        tokio::join!(self.keep_telling(), self.watch());
    }

    async fn keep_telling(&self) {
        let mut told = self.0.told.subscribe();
        // What it knows from a daemon before this one is better than nothing.
        while told.changed().await.is_ok() {
            let assignment = Assignment::clone(&told.borrow_and_update());
            if let Err(error) = self.done(&Ask::Tell(Box::new(assignment))).await {
                tracing::warn!(error = crate::chain(&error), "names are not up to date");
                sleep(RESTART_PAUSE).await;
                told.mark_changed();
            }
        }
    }

    /// A line on which nothing is said until the other end has gone.
    async fn watch(&self) {
        loop {
            match self.connect().await {
                Ok((mut line, _)) => {
                    let _: io::Result<Option<Answer>> = wire::read(&mut line).await;
                    *self.0.line.lock().await = None;
                    tracing::warn!("the resolver of this host has ended: starting another");
                    self.0.told.send_modify(|_| ());
                    self.0.ended.send_modify(|n| *n += 1);
                }
                Err(error) => tracing::error!(error = crate::chain(&error), "names are not answered on this host"),
            }
            sleep(RESTART_PAUSE).await;
        }
    }

    /// Listens in the task's network namespace when it returns.
    pub(crate) async fn serve(&self, task: TaskId, scope: Scope) -> Result<(), Error> {
        self.done(&Ask::Serve { task, scope }).await
    }

    pub(crate) async fn stop(&self, task: TaskId) -> Result<(), Error> {
        self.done(&Ask::Stop { task }).await
    }

    /// At these ports of the host it listens when this returns, and at no others, until its process has ended. Of those
    /// at which it cannot: why.
    pub(crate) async fn hold(
        &self,
        ports: impl IntoIterator<Item = (Listener, Vec<SocketAddr>)>,
    ) -> Result<BTreeMap<Listener, String>, Error> {
        match self.call(&Ask::Hold(ports.into_iter().collect())).await? {
            Answer::Held(closed) => Ok(closed.into_iter().collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// Whom it serves, also from the time of an earlier daemon.
    pub(crate) async fn serving(&self) -> Result<BTreeSet<TaskId>, Error> {
        match self.call(&Ask::Hello).await? {
            Answer::Hello { serving, .. } => Ok(serving),
            other => Err(unexpected(&other)),
        }
    }

    async fn done(&self, ask: &Ask) -> Result<(), Error> {
        match self.call(ask).await? {
            Answer::Done => Ok(()),
            Answer::Failed(why) => Err(Error::Refused(why)),
            other @ (Answer::Hello { .. } | Answer::Held(_)) => Err(unexpected(&other)),
        }
    }

    async fn call(&self, ask: &Ask) -> Result<Answer, Error> {
        let mut line = self.0.line.lock().await;
        let mut stream = match line.take() {
            Some(stream) => stream,
            None => {
                let mut stream = self.connect().await?.0;
                let told = Assignment::clone(&self.0.told.borrow());
                // It may be a new process; one that was told by an earlier daemon knows better than nothing.
                if told.node.is_some() {
                    exchange(&mut stream, &Ask::Tell(Box::new(told))).await?;
                }
                stream
            }
        };
        let answer = exchange(&mut stream, ask).await?;
        *line = Some(stream);
        Ok(answer)
    }

    /// To a process of this version, started if there is none.
    async fn connect(&self) -> Result<(UnixStream, BTreeSet<TaskId>), Error> {
        let end = Instant::now() + START_LIMIT;
        let socket = super::socket(&self.0.run_dir);
        let mut started: Option<Child> = None;
        loop {
            match UnixStream::connect(&socket).await {
                Ok(mut stream) => match exchange(&mut stream, &Ask::Hello).await {
                    Ok(Answer::Hello { version, serving }) if version == VERSION => return Ok((stream, serving)),
                    Ok(Answer::Hello { .. }) => {
                        exchange(&mut stream, &Ask::Quit).await?;
                    }
                    Ok(other) => return Err(unexpected(&other)),
                    // It was ending.
                    Err(error) if Instant::now() >= end => return Err(error),
                    Err(_) => {}
                },
                Err(error) if Instant::now() >= end => return Err(Error::Start(error)),
                // One that found another still ending has ended itself.
                Err(_) => match started.as_mut().map(Child::try_wait) {
                    Some(Ok(None)) => {}
                    Some(Ok(Some(_)) | Err(_)) | None => started = Some(self.start().map_err(Error::Start)?),
                },
            }
            sleep(START_PAUSE).await;
        }
    }

    /// In a process group of its own: what ends the daemon does not end it.
    fn start(&self) -> io::Result<Child> {
        // tokio reaps it when it ends before us.
        Command::new(&self.0.program)
            .arg0("shoal")
            .arg(super::VERB)
            .args([&self.0.run_dir, &self.0.resolv_conf])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
    }
}

async fn exchange(stream: &mut UnixStream, ask: &Ask) -> Result<Answer, Error> {
    let said = async {
        wire::write(stream, ask).await?;
        wire::read(stream).await?.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset))
    };
    match timeout(CALL_LIMIT, said).await {
        Ok(answer) => answer.map_err(Error::Talk),
        Err(_) => Err(Error::Talk(io::Error::from(io::ErrorKind::TimedOut))),
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::Talk(io::Error::other(format!("it answers {answer:?}")))
}

/// Without an async runtime.
pub(super) fn quit(run_dir: &Path) -> io::Result<()> {
    let mut line = match StdUnixStream::connect(super::socket(run_dir)) {
        Ok(line) => line,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(()),
        Err(e) => return Err(e),
    };
    line.set_read_timeout(Some(CALL_LIMIT))?;
    let bytes = rmp_serde::to_vec_named(&Ask::Quit).map_err(io::Error::other)?;
    line.write_all(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes())?;
    line.write_all(&bytes)?;
    // Its answer, then its end.
    line.read_to_end(&mut Vec::new()).map(drop)
}
