//! Following: lines as they arrive, also of tasks that come to be meanwhile.

use futures::{
    StreamExt, stream,
    stream::{BoxStream, SelectAll},
};
use shoal_common::TaskId;
use shoal_proto::pb::ServiceLogsReply;
use shoal_state::State;
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch;

use super::{MAX_TASKS, ask::Hosts, subject::Subject};

struct Follow {
    subject: Subject,
    hosts: Hosts,
    states: watch::Receiver<Arc<State>>,
    /// Tasks that were asked for.
    seen: BTreeSet<TaskId>,
    lines: SelectAll<BoxStream<'static, ServiceLogsReply>>,
}

/// Ends when everything has been said and nothing more can come.
pub(super) fn follow(
    subject: Subject,
    hosts: Hosts,
    mut states: watch::Receiver<Arc<State>>,
) -> BoxStream<'static, ServiceLogsReply> {
    // The state of now counts as a change.
    states.mark_changed();
    let follow = Follow { subject, hosts, states, seen: BTreeSet::new(), lines: SelectAll::new() };
    stream::unfold(follow, |mut follow| async move { Some((follow.next().await?, follow)) }).boxed()
}

impl Follow {
    async fn next(&mut self) -> Option<ServiceLogsReply> {
        loop {
            let may_grow = self.subject.may_grow(&self.states.borrow());
            if self.lines.is_empty() && !may_grow && !self.states.has_changed().unwrap_or(false) {
                return None;
            }
            tokio::select! {
                line = self.lines.next(), if !self.lines.is_empty() => {
                    if line.is_some() {
                        return line;
                    }
                }
                changed = self.states.changed() => {
                    if changed.is_err() {
                        // This host is no manager any more, so nothing new comes to be known.
                        return self.lines.next().await;
                    }
                    self.look();
                }
            }
        }
    }

    /// Asks for the tasks that are new.
    fn look(&mut self) {
        let state = self.states.borrow_and_update().clone();
        for source in self.subject.sources(&state) {
            if self.lines.len() < MAX_TASKS && self.seen.insert(source.task) {
                self.lines.push(self.hosts.lines(source));
            }
        }
        // Of a task that comes later all is new.
        self.hosts.without_tail();
    }
}
