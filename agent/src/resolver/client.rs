//! The daemon's side: it talks to the resolver that [`Keeper`](super::keeper) keeps there.
//!
//! Each kind of question has a line of its own, so that a large assignment on its way holds up neither a container that
//! is to be served nor a published port.

use shoal_common::{TaskId, assignment::Assignment};
use shoal_dns::{RESOLVER_ADDRESS, Scope};
use shoal_kernel::Kernel;
use shoal_plan::{Listener, Ns, names::RESOLVER_PORT};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

use super::{
    keeper::{Keeper, SILENT_AFTER, State},
    wire::{self, Answer, Ask, Line},
};

/// For the answer to anything but an assignment. A process that stands still is noticed by the keeper before.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// For an assignment, which takes a second or two where it is as large as it can be.
const TELL_LIMIT: Duration = Duration::from_secs(60);
/// Between two tries to tell an assignment.
const TELL_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Down(String),
    #[error("the resolver of this host does not answer")]
    Talk(#[source] io::Error),
    #[error("cannot open the network namespace of {task} for its resolver")]
    Namespace {
        task: TaskId,
        #[source]
        source: shoal_kernel::Error,
    },
    #[error("cannot open the sockets of {task}'s resolver")]
    Sockets {
        task: TaskId,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Refused(String),
}

/// Clones talk to the same process.
#[derive(Debug, Clone)]
pub(crate) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keeper: Keeper,
    kernel: Kernel,
    /// For the containers that it serves.
    serving: Talk,
    /// For the published ports.
    ports: Talk,
    /// For assignments.
    names: Talk,
    /// What every answer is to be made from.
    told: watch::Sender<Arc<Assignment>>,
}

/// A line that is opened when it is needed, and how many processes had ended then. One question at a time.
#[derive(Debug, Default)]
struct Talk(Mutex<Option<(u64, Line)>>);

impl Client {
    pub(crate) fn new(program: PathBuf, run_dir: PathBuf, resolv_conf: PathBuf, kernel: Kernel) -> Self {
        let state = watch::Sender::new(State::Down("the resolver of this host has not been started yet".to_owned()));
        Self(Arc::new(Inner {
            keeper: Keeper { program, run_dir, resolv_conf, state, ended: watch::Sender::default() },
            kernel,
            serving: Talk::default(),
            ports: Talk::default(),
            names: Talk::default(),
            told: watch::Sender::default(),
        }))
    }

    pub(crate) fn resolv_conf(&self) -> &Path {
        &self.0.keeper.resolv_conf
    }

    /// Rises when the process has ended: whom it served must be served again.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.0.keeper.ended.subscribe()
    }

    /// Why there are no names just now, if there are none.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.0.keeper.state.borrow() {
            State::Up(_) => None,
            State::Down(why) => Some(why.clone()),
        }
    }

    /// From now on every answer is to be made from this; [`Client::run`] sees to it.
    pub(crate) fn tell(&self, assignment: Arc<Assignment>) {
        self.0.told.send_replace(assignment);
    }

    /// Keeps the process alive and told. Never ends by itself.
    pub(crate) async fn run(&self) {
        tokio::join!(self.keep_telling(), self.0.keeper.run());
    }

    async fn keep_telling(&self) {
        let (mut told, mut ended) = (self.0.told.subscribe(), self.ended());
        loop {
            let changed = tokio::select! {
                changed = told.changed() => changed,
                changed = ended.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let assignment = told.borrow_and_update().clone();
            if assignment.node.is_none() {
                // Nobody told us anything: what the process knows from a daemon before this one is better.
                continue;
            }
            let mut warned = false;
            while let Err(error) = self.tell_now(&assignment).await {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(error = crate::chain(&error), "names are not up to date");
                }
                sleep(TELL_PAUSE).await;
                if told.has_changed().unwrap_or(true) {
                    break;
                }
            }
        }
    }

    async fn tell_now(&self, assignment: &Arc<Assignment>) -> Result<(), Error> {
        let ask = Ask::Tell(Arc::clone(assignment));
        // As large as it may be, it does not keep a worker of this runtime.
        let encoded = tokio::task::spawn_blocking(move || wire::encode(&ask)).await;
        let encoded = encoded.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(Error::Talk)?;
        done(self.call(&self.0.names, encoded, &[], TELL_LIMIT).await?)
    }

    /// Answers names in the task's network namespace when it returns.
    pub(crate) async fn serve(&self, task: TaskId, scope: Scope) -> Result<(), Error> {
        let netns = self.0.kernel.netns(Ns::Task(task)).map_err(|source| Error::Namespace { task, source })?;
        let sockets = |source| Error::Sockets { task, source };
        let has_servers = !scope.servers.is_empty();
        let ask = Ask::Serve { task, scope, netns: netns.identity().map_err(sockets)? };
        match self.ask(&self.0.serving, &ask, &[]).await? {
            Answer::Unsocketed => {}
            other @ (Answer::Done | Answer::Failed(_) | Answer::Hello { .. } | Answer::Held(_)) => return done(other),
        }
        let at = SocketAddr::new(RESOLVER_ADDRESS, RESOLVER_PORT);
        let (udp, tcp) = netns.sockets(at).await.map_err(sockets)?;
        let own = has_servers.then(|| netns.as_fd());
        let fds: Vec<BorrowedFd<'_>> = [udp.as_fd(), tcp.as_fd()].into_iter().chain(own).collect();
        done(self.ask(&self.0.serving, &ask, &fds).await?)
    }

    pub(crate) async fn stop(&self, task: TaskId) -> Result<(), Error> {
        done(self.ask(&self.0.serving, &Ask::Stop { task }, &[]).await?)
    }

    /// At these ports of the host it listens when this returns, and at no others, until its process has ended. Of those
    /// at which it cannot: why.
    pub(crate) async fn hold(
        &self,
        ports: impl IntoIterator<Item = (Listener, Vec<SocketAddr>)>,
    ) -> Result<BTreeMap<Listener, String>, Error> {
        match self.ask(&self.0.ports, &Ask::Hold(ports.into_iter().collect()), &[]).await? {
            Answer::Held(closed) => Ok(closed.into_iter().collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// Whom it serves, also from the time of an earlier daemon.
    pub(crate) async fn serving(&self) -> Result<BTreeSet<TaskId>, Error> {
        match self.ask(&self.0.serving, &Ask::Hello, &[]).await? {
            Answer::Hello { serving, .. } => Ok(serving),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, talk: &Talk, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<Answer, Error> {
        self.call(talk, wire::encode(ask).map_err(Error::Talk)?, fds, CALL_LIMIT).await
    }

    async fn call(&self, talk: &Talk, ask: Vec<u8>, fds: &[BorrowedFd<'_>], limit: Duration) -> Result<Answer, Error> {
        // Not while the line is held: those behind would wait for as long again, each.
        self.up().await?;
        let mut line = talk.0.lock().await;
        let number = match &*self.0.keeper.state.borrow() {
            State::Up(number) => *number,
            State::Down(why) => return Err(Error::Down(why.clone())),
        };
        let held = line.take().filter(|(of, _)| *of == number).map(|(_, line)| line);
        let answered = async {
            let open = match held {
                Some(open) => open,
                None => Line::connect(&super::socket(&self.0.keeper.run_dir)).await?,
            };
            open.send(&ask, fds).await?;
            let answer = open.receive().await?.ok_or(io::ErrorKind::ConnectionReset)?.decode()?;
            Ok::<_, io::Error>((open, answer))
        };
        let (open, answer) = tokio::select! {
            answered = timeout(limit, answered) => match answered {
                Ok(answered) => answered.map_err(Error::Talk)?,
                Err(_) => return Err(Error::Talk(io::ErrorKind::TimedOut.into())),
            },
            // A caller learns the reason at once, not after its limit.
            why = self.goes_down() => return Err(Error::Down(why)),
        };
        *line = Some((number, open));
        Ok(answer)
    }

    /// Waits a moment for the process to be there.
    async fn up(&self) -> Result<(), Error> {
        let mut state = self.0.keeper.state.subscribe();
        let is_up = timeout(SILENT_AFTER, state.wait_for(|state| matches!(state, State::Up(_)))).await.is_ok();
        match self.trouble() {
            Some(why) if !is_up => Err(Error::Down(why)),
            Some(_) | None => Ok(()),
        }
    }

    async fn goes_down(&self) -> String {
        let mut state = self.0.keeper.state.subscribe();
        loop {
            if let State::Down(why) = &*state.borrow_and_update() {
                return why.clone();
            }
            // The sender lives as long as this.
            let _ = state.changed().await;
        }
    }
}

fn done(answer: Answer) -> Result<(), Error> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Failed(why) => Err(Error::Refused(why)),
        other @ (Answer::Hello { .. } | Answer::Held(_) | Answer::Unsocketed) => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::Talk(io::Error::other(format!("it answers {answer:?}")))
}
