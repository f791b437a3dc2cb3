//! The one task that writes log and mark, in the order in which it was asked to.
//!
//! Group commit: all that waits is written, and one sync covers it. Who asks never waits for a disk but where Raft
//! demands it (a vote, a truncation); nobody waits for a purge, a new segment, or the mark of what was acknowledged.

use futures::channel::oneshot;
use openraft::{Instant as _, storage::IOFlushed};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

use super::{
    disk::Disk,
    mark::{Mark, MarkFile},
    segments::{Pending, Places, Segments},
};
use crate::{
    rt::{self, Instant},
    types::{LogId, TypeConfig, Vote},
};

/// Writes that wait. openraft has far fewer under way.
const WAITING_WRITES: usize = 4096;
/// Written before one sync: an entry never waits behind more than this, which a disk of 50 MB/s takes in 160 ms.
const GROUP_BYTES: usize = 8 << 20;
/// What was acknowledged is in the mark, durably, after this. Damage to a log that is younger, together with a power
/// cut, could be taken for a torn write; shorter would cost more syncs.
const MARK_DELAY: Duration = Duration::from_millis(100);

/// How often a disk that was full is tried again.
const SPACE_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) enum Op {
    Append {
        entries: Vec<Pending>,
        last: LogId,
    },
    /// Entries after this one are gone.
    Truncate(Option<LogId>),
    Vote(Vote),
    /// Entries up to this one are in a snapshot that is durable.
    Purge(LogId),
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(|e| e.payload.len()).sum(),
            Self::Truncate(_) | Self::Vote(_) | Self::Purge(_) => 0,
        }
    }
}

/// Who is told that it is durable.
pub(crate) enum Done {
    Raft(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<io::Result<()>>),
    Nobody,
}

impl Done {
    fn tell(self, done: &io::Result<()>) {
        // An io::Error does not clone.
        let done = match done {
            Ok(()) => Ok(()),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        match self {
            Self::Raft(callback) => callback.io_completed(done),
            // Who does not wait any more needs no answer.
            Self::Caller(caller) => drop(caller.send(done)),
            Self::Nobody => {}
        }
    }
}

struct Asked {
    op: Op,
    done: Done,
}

/// Asks for writes. Clones ask the same writer.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    queue: mpsc::Sender<Asked>,
    /// Told to the writer beside the queue: it is written with what is written next.
    committed: Arc<Mutex<Option<LogId>>>,
    short_of_space: Arc<AtomicBool>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.op.fmt(f)
    }
}

impl Writes {
    pub(crate) async fn ask(&self, op: Op, done: Done) -> io::Result<()> {
        self.queue.send(Asked { op, done }).await.map_err(|_| ended())
    }

    /// As [`Self::ask`], and durable when it returns.
    pub(crate) async fn wait(&self, op: Op) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        self.ask(op, Done::Caller(tx)).await?;
        rx.await.unwrap_or_else(|_| Err(ended()))
    }

    pub(crate) fn short_of_space(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.short_of_space)
    }

    /// Not durable at once: if it is lost, the member starts from an older one, and learns the newer from the leader.
    pub(crate) fn committed(&self, committed: Option<LogId>) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = committed;
    }
}

fn ended() -> io::Error {
    io::Error::other("the task that writes the log has ended")
}

/// What the task works on.
#[derive(Debug)]
pub(crate) struct Writer {
    mark: MarkFile,
    log: Segments,
    /// The segments before that of the mark are not needed.
    purge: bool,
    /// A new segment could not be prepared: the disk is full, in all likelihood. The one that is written to has room
    /// still, which is the reserve: enough to hand leadership over.
    short_of_space: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(mark: MarkFile, log: Segments) -> Self {
        Self { mark, log, purge: false, short_of_space: Arc::default() }
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark.mark
    }

    pub(crate) fn places(&self) -> Places {
        self.log.places()
    }

    /// Ends when the last of the [`Writes`] is dropped.
    pub(crate) fn start(self, disk: Disk) -> Writes {
        let (queue, asked) = mpsc::channel(WAITING_WRITES);
        let committed = Arc::default();
        let writes =
            Writes { queue, committed: Arc::clone(&committed), short_of_space: Arc::clone(&self.short_of_space) };
        // Owned by the queue: it ends with the log store, and whoever waits for it then is told so.
        rt::spawn(run(self, disk, asked, committed));
        writes
    }

    /// All of it is durable when it returns. After an error nothing may be written any more.
    pub(super) fn write(&mut self, ops: Vec<Op>, committed: Option<LogId>) -> io::Result<()> {
        let mut voted = false;
        for op in ops {
            let mark = &mut self.mark.mark;
            match op {
                Op::Append { entries, last } => {
                    self.log.append(&entries, mark.purged.map(|p| p.index + 1))?;
                    mark.acked = Some(last);
                }
                Op::Truncate(last) => {
                    self.log.truncate(last.map_or(0, |l| l.index + 1))?;
                    mark.acked = last;
                }
                Op::Vote(vote) => {
                    mark.vote = Some(vote);
                    voted = true;
                }
                Op::Purge(upto) => {
                    mark.purged = Some(upto);
                    mark.kept_from = self.log.needed_from(upto.index + 1);
                    self.purge = true;
                    self.log.forget_before(upto.index + 1);
                    if mark.acked.is_none_or(|acked| acked.index < upto.index) {
                        // The log goes on behind a snapshot that was installed: what comes next leaves a gap, which only
                        // the mark explains.
                        mark.acked = Some(upto);
                        self.log.sync()?;
                        self.mark.mark.acked_seq = self.log.synced();
                        self.mark.keep()?;
                    }
                }
            }
        }
        self.log.sync()?;
        // Never ahead of the log.
        let mark = &mut self.mark.mark;
        mark.acked_seq = self.log.synced();
        if committed.is_some_and(|c| mark.acked.is_some_and(|acked| c.index <= acked.index)) {
            mark.committed = committed;
        }
        if voted && !mutant!(VoteUnsynced) { self.mark.keep() } else { self.mark.write() }
    }

    /// What nobody waits for.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        self.mark.sync()?;
        if std::mem::take(&mut self.purge) {
            let kept_from = self.mark.mark.kept_from;
            self.log.purge(kept_from)?;
        }
        match self.log.prepare() {
            Ok(()) => self.short_of_space.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.short_of_space.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "no space can be taken for more of the log");
                }
            }
        }
        Ok(())
    }
}

async fn run(mut writer: Writer, disk: Disk, mut asked: mpsc::Receiver<Asked>, committed: Arc<Mutex<Option<LogId>>>) {
    let mut tidied = Instant::now();
    let mut tidy = true;
    let mut open = true;
    while open {
        let short = writer.short_of_space.load(Ordering::Relaxed);
        let first = if tidy || short {
            match rt::timeout(if tidy { MARK_DELAY } else { SPACE_PAUSE }, asked.recv()).await {
                Ok(first) => {
                    open = first.is_some();
                    first
                }
                Err(_) => None,
            }
        } else {
            let first = asked.recv().await;
            open = first.is_some();
            first
        };
        let mut ops = Vec::new();
        let mut waiting = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        while let Some(Asked { op, done }) = next {
            bytes += op.bytes();
            ops.push(op);
            waiting.push(done);
            next = if bytes < GROUP_BYTES { asked.try_recv().ok() } else { None };
        }
        let wrote = !ops.is_empty();
        if mutant!(CallbackBeforeSync) {
            waiting.drain(..).for_each(|who| who.tell(&Ok(())));
        }
        let known = *committed.lock().unwrap_or_else(PoisonError::into_inner);
        let (back, done) =
            work(&disk, writer, move |writer| if wrote { writer.write(ops, known) } else { Ok(()) }).await;
        for who in waiting {
            who.tell(&done);
        }
        tidy |= wrote;
        let due = (tidy || short) && (!wrote || Instant::now() >= tidied + MARK_DELAY);
        writer = match (back, done) {
            (Some(writer), Ok(())) if due => {
                tidied = Instant::now();
                tidy = false;
                match work(&disk, writer, Writer::tidy).await {
                    (Some(writer), Ok(())) => writer,
                    (_, Err(error)) => return refuse_all(asked, &error).await,
                    (None, Ok(())) => return,
                }
            }
            (Some(writer), Ok(())) => writer,
            (_, Err(error)) => return refuse_all(asked, &error).await,
            (None, Ok(())) => return,
        };
    }
}

/// With the writer, which comes back unless `f` has panicked.
async fn work(
    disk: &Disk,
    mut writer: Writer,
    f: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
) -> (Option<Writer>, io::Result<()>) {
    let done = disk.blocking(move || {
        let done = f(&mut writer);
        Ok((writer, done))
    });
    match done.await {
        Ok((writer, done)) => (Some(writer), done),
        Err(panicked) => (None, Err(panicked)),
    }
}

/// Nobody knows what the disk holds after a failed write: nothing is written after it.
async fn refuse_all(mut asked: mpsc::Receiver<Asked>, error: &io::Error) {
    tracing::error!(%error, "the log cannot be written: this manager ends");
    while let Some(Asked { done, .. }) = asked.recv().await {
        done.tell(&Err(io::Error::new(error.kind(), format!("the log could not be written before: {error}"))));
    }
}
