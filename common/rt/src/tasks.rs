//! Long-lived tasks: each has a name, an owner, and a rule for what its end means.
//!
//! A bare `tokio::spawn` keeps a panic in a `JoinHandle` that nobody reads. The daemon then goes on without one of its
//! loops, and systemd sees a process that is alive. So loops run by [`Tasks::forever`]: if one ends before it was
//! asked to, the process ends, systemd restarts it, and the containers run on.

use futures::FutureExt as _;
use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Why this process cannot go on. The first report counts; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Fatal(watch::Sender<Option<String>>);

impl Fatal {
    pub fn report(&self, why: impl Into<String>) {
        let why = why.into();
        tracing::error!(why, "this process cannot go on");
        self.0.send_if_modified(|first| {
            let news = first.is_none();
            first.get_or_insert(why);
            news
        });
    }

    /// Resolves once something was reported.
    pub async fn reported(&self) -> String {
        let mut first = self.0.subscribe();
        match first.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // Not while `self` holds the sender.
            Err(_) => std::future::pending().await,
        }
    }
}

/// What a task may return: nothing, or why it failed.
pub trait Outcome {
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|e| e.to_string())
    }
}

/// The owner of some tasks. Clones are the same owner.
#[derive(Debug, Clone)]
pub struct Tasks {
    fatal: Fatal,
    running: Arc<Running>,
    /// Those that this owner is a part of.
    wholes: Vec<Arc<Running>>,
    shutdown: CancellationToken,
    /// Ends what did not end when it was asked to.
    abort: CancellationToken,
}

#[derive(Debug, Default)]
struct Running {
    tracker: TaskTracker,
    names: Mutex<BTreeMap<u64, &'static str>>,
    started: AtomicU64,
}

/// One task in the lists of its owners.
struct Listed(Vec<(Arc<Running>, u64, TaskTrackerToken)>);

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// The process ends, unless the task was asked to end.
    Forever,
    /// A failure is logged.
    Once,
}

impl Tasks {
    pub fn new(fatal: Fatal) -> Self {
        Self {
            fatal,
            running: Arc::default(),
            wholes: Vec::new(),
            shutdown: CancellationToken::new(),
            abort: CancellationToken::new(),
        }
    }

    /// Tasks that can be ended before the others of this owner. They end with it, too.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            fatal: self.fatal.clone(),
            running: Arc::default(),
            wholes: self.wholes.iter().chain([&self.running]).cloned().collect(),
            shutdown: self.shutdown.child_token(),
            abort: self.abort.child_token(),
        }
    }

    /// Cancelled when these tasks are to end.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    pub fn fatal(&self) -> &Fatal {
        &self.fatal
    }

    /// Runs a loop. Its end before `shutdown`, and a panic at any time, ends the process.
    pub fn forever<T: Outcome>(&self, name: &'static str, task: impl Future<Output = T> + Send + 'static) {
        self.run(name, Policy::Forever, task);
    }

    /// Runs something that ends by itself. A failure or a panic is logged.
    pub fn once<T: Outcome>(&self, name: &'static str, task: impl Future<Output = T> + Send + 'static) {
        self.run(name, Policy::Once, task);
    }

    /// Asks these tasks to end, and does not wait.
    pub fn ask_to_end(&self) {
        self.shutdown.cancel();
    }

    /// Asks all tasks of this owner to end, waits, and drops those that take longer than `limit`. Returns their names.
    pub async fn end(&self, limit: Duration) -> Vec<&'static str> {
        self.shutdown.cancel();
        self.running.tracker.close();
        if tokio::time::timeout(limit, self.running.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let late = self.running.names().values().copied().collect();
        self.abort.cancel();
        late
    }

    fn run<T: Outcome>(&self, name: &'static str, policy: Policy, task: impl Future<Output = T> + Send + 'static) {
        let listed = Listed::add(self.wholes.iter().chain([&self.running]), name);
        let (fatal, shutdown, abort) = (self.fatal.clone(), self.shutdown.clone(), self.abort.clone());
        tokio::spawn(async move {
            let _listed = listed;
            let ended = tokio::select! {
                ended = caught(task) => ended,
                () = abort.cancelled() => return,
            };
            let (failure, panicked) = match ended {
                Ok(outcome) => (outcome.failure(), false),
                Err(panic) => (Some(panic.to_string()), true),
            };
            match (policy, failure) {
                (Policy::Forever, Some(why)) if panicked || !shutdown.is_cancelled() => {
                    fatal.report(format!("the task \"{name}\" has ended: {why}"));
                }
                (Policy::Forever, None) if !shutdown.is_cancelled() => {
                    fatal.report(format!("the task \"{name}\" has ended by itself"));
                }
                (Policy::Forever | Policy::Once, Some(why)) => tracing::error!(task = name, why, "a task failed"),
                (Policy::Forever | Policy::Once, None) => {}
            }
        });
    }
}

impl Running {
    fn names(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn add<'a>(owners: impl Iterator<Item = &'a Arc<Running>>, name: &'static str) -> Self {
        let enter = |running: &Arc<Running>| {
            let nth = running.started.fetch_add(1, Ordering::Relaxed);
            running.names().insert(nth, name);
            (Arc::clone(running), nth, running.tracker.token())
        };
        Self(owners.map(enter).collect())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        for (running, nth, _) in &self.0 {
            running.names().remove(nth);
        }
    }
}

/// For what belongs to one client or one connection, and ends with it: a panic is logged with the task's name. A loop
/// that the process cannot do without belongs to [`Tasks`].
pub fn detached(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(panic) = caught(task).await {
            tracing::error!(task = name, %panic, "a task failed");
        }
    })
}

/// A panic, as an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it panicked: {0}")]
pub struct Panicked(String);

impl Panicked {
    /// Of what `catch_unwind` or a `JoinError` holds.
    pub fn of(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Self(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned()))
    }
}

/// Runs `work`, and returns its panic as an error. The panic hook has logged where it happened.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| Panicked::of(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn reported(fatal: &Fatal) -> String {
        tokio::time::timeout(LIMIT, fatal.reported()).await.unwrap()
    }

    fn nothing_is_reported(fatal: &Fatal) {
        assert_eq!(fatal.reported().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_loop_that_panics_ends_the_process_and_is_named() {
        let tasks = Tasks::new(Fatal::default());
        tasks.forever("one that runs on", std::future::pending::<()>());
        tasks.forever("orchestrator", async {
            if LIMIT.as_secs() > 0 {
                panic!("no slot {}", 7);
            }
        });
        assert_eq!(reported(tasks.fatal()).await, "the task \"orchestrator\" has ended: it panicked: no slot 7");
    }

    #[tokio::test]
    async fn a_loop_that_ends_unasked_ends_the_process() {
        let tasks = Tasks::new(Fatal::default());
        tasks.forever("server", async { Err("the address is in use") });
        assert_eq!(reported(tasks.fatal()).await, "the task \"server\" has ended: the address is in use");
        let tasks = Tasks::new(Fatal::default());
        tasks.forever("session", async {});
        assert_eq!(reported(tasks.fatal()).await, "the task \"session\" has ended by itself");
    }

    #[tokio::test]
    async fn a_loop_that_was_asked_to_end_may_end() {
        let tasks = Tasks::new(Fatal::default());
        let (part, other) = (tasks.part(), tasks.shutdown());
        let leading = part.shutdown();
        part.forever("leader", async move { leading.cancelled().await });
        tasks.forever("agent", async move { other.cancelled().await });
        assert_eq!(part.end(LIMIT).await, Vec::<&str>::new());
        // Its sibling runs on.
        assert!(!tasks.shutdown().is_cancelled());
        assert_eq!(tasks.end(LIMIT).await, Vec::<&str>::new());
        nothing_is_reported(tasks.fatal());
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_no_reason_to_end_the_process() {
        let tasks = Tasks::new(Fatal::default());
        tasks.once("one answer", async {});
        tasks.once("one that fails", async { Err("it failed") });
        tasks.once("one that panics", async { assert_eq!(LIMIT.as_secs(), 0, "a defect") });
        assert_eq!(tasks.end(LIMIT).await, Vec::<&str>::new());
        nothing_is_reported(tasks.fatal());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_end_is_named_and_dropped() {
        let tasks = Tasks::new(Fatal::default());
        let dropped = Arc::new(());
        let held = Arc::clone(&dropped);
        tasks.forever("stuck", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        assert_eq!(tasks.end(LIMIT).await, ["stuck"]);
        while Arc::strong_count(&dropped) > 1 {
            tokio::task::yield_now().await;
        }
        nothing_is_reported(tasks.fatal());
    }

    #[tokio::test]
    async fn the_first_failure_is_the_one_that_counts() {
        let fatal = Fatal::default();
        fatal.report("first");
        fatal.report("second");
        assert_eq!(reported(&fatal).await, "first");
    }
}
