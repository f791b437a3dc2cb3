//! Following: lines as they arrive, also of tasks that come to be meanwhile, and of hosts that come back.

use futures::{
    StreamExt, stream,
    stream::{BoxStream, SelectAll},
};
use shoal_common::{TaskId, node::Liveness};
use shoal_proto::pb::ServiceLogsReply;
use shoal_state::State;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{MAX_FOLLOWED, ask::Hosts, subject::Subject};

/// A host that could not be asked, or was lost, is asked again after this, if it is ready then.
const RETRY: Duration = Duration::from_secs(1);

struct Follow {
    subject: Subject,
    hosts: Hosts,
    states: watch::Receiver<Arc<State>>,
    /// Tasks that were asked for.
    asked: BTreeSet<TaskId>,
    /// The time of the last line of each.
    heard: BTreeMap<TaskId, u64>,
    /// Tasks whose hosts could not be asked, or not to the end.
    lost: BTreeSet<TaskId>,
    retry_at: Instant,
    lines: SelectAll<BoxStream<'static, (TaskId, ServiceLogsReply)>>,
}

/// Ends when everything has been said and nothing more can come.
pub(super) fn follow(
    subject: Subject,
    hosts: Hosts,
    mut states: watch::Receiver<Arc<State>>,
) -> BoxStream<'static, ServiceLogsReply> {
    // The state of now counts as a change.
    states.mark_changed();
    let follow = Follow {
        subject,
        hosts,
        states,
        asked: BTreeSet::new(),
        heard: BTreeMap::new(),
        lost: BTreeSet::new(),
        retry_at: Instant::now(),
        lines: SelectAll::new(),
    };
    stream::unfold(follow, |mut follow| async move { Some((follow.next().await?, follow)) }).boxed()
}

impl Follow {
    async fn next(&mut self) -> Option<ServiceLogsReply> {
        loop {
            // An error means that this host is no manager any more, so nothing new comes to be known.
            let may_grow = match self.states.has_changed() {
                Ok(changed) => changed || self.subject.may_grow(&self.states.borrow()),
                Err(_) => false,
            };
            if self.lines.is_empty() && !may_grow {
                return None;
            }
            tokio::select! {
                line = self.lines.next(), if !self.lines.is_empty() => {
                    if let Some((task, line)) = line {
                        self.note(task, &line);
                        return Some(line);
                    }
                }
                Ok(()) = self.states.changed(), if may_grow => self.look(),
                () = sleep_until(self.retry_at), if may_grow && !self.lost.is_empty() => self.look_again(),
                else => {}
            }
        }
    }

    fn note(&mut self, task: TaskId, line: &ServiceLogsReply) {
        if line.gap.is_empty() {
            self.heard.insert(task, line.time_ms);
        } else {
            self.lost.insert(task);
            self.retry_at = Instant::now() + RETRY;
        }
    }

    /// Asks for the tasks that are new.
    fn look(&mut self) {
        let state = self.states.borrow_and_update().clone();
        for source in self.subject.sources(&state) {
            let task = source.task;
            if self.lines.len() < MAX_FOLLOWED && self.asked.insert(task) {
                let lines = self.hosts.lines(source, self.heard.get(&task).copied());
                self.lines.push(lines.map(move |line| (task, line)).boxed());
            }
        }
        // Of a task that comes later all is new.
        self.hosts.without_tail();
    }

    /// Asks for those that were lost, where the host is back.
    fn look_again(&mut self) {
        let state = self.states.borrow().clone();
        let is_back = |task: &TaskId| {
            let node = state.tasks.get(task).and_then(|t| t.node).and_then(|n| state.nodes.get(&n));
            node.is_some_and(|n| n.liveness == Liveness::Ready)
        };
        let back: BTreeSet<TaskId> = self.lost.iter().copied().filter(is_back).collect();
        self.lost.retain(|task| !back.contains(task));
        self.asked.retain(|task| !back.contains(task));
        self.retry_at = Instant::now() + RETRY;
        self.look();
    }
}
