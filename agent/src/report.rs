//! What the managers are to be told of this host's tasks: the latest of each, until they have it.

use shoal_common::{
    TaskId,
    assignment::Assignment,
    task::{Actor, TaskState},
};
use shoal_proto::convert::Report;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Reports in one message. More follow at once in the next.
const BATCH: usize = 256;

/// Handle on the reports of one agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reports(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    merged: Mutex<Merged>,
    news: Notify,
}

impl Reports {
    /// Notes how a task is. What was noted before of it is not worth sending any more.
    pub(crate) fn tell(&self, report: Report) {
        if self.merged().tell(report) {
            self.0.news.notify_one();
        }
    }

    /// What there is to send, once there is something.
    pub(crate) async fn batch(&self) -> Vec<Report> {
        loop {
            let batch = self.merged().batch();
            if !batch.is_empty() {
                return batch;
            }
            self.0.news.notified().await;
        }
    }

    /// The managers have these.
    pub(crate) fn acknowledged(&self, batch: &[Report]) {
        self.merged().acknowledged(batch);
    }

    /// Compares with what the managers have on record: what they lack is sent again, and what they have ended is
    /// forgotten.
    pub(crate) fn compare(&self, assignment: &Assignment) {
        if self.merged().compare(assignment) {
            self.0.news.notify_one();
        }
    }

    fn merged(&self) -> MutexGuard<'_, Merged> {
        self.0.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Merged {
    latest: BTreeMap<TaskId, Report>,
    unsent: BTreeSet<TaskId>,
}

impl Merged {
    /// Whether that was news. A task never goes back, so an older word that comes late is dropped.
    fn tell(&mut self, report: Report) -> bool {
        let before = self.latest.get(&report.task).map(|r| r.state);
        if before.is_some_and(|before| !moves_on(before, report.state)) {
            return false;
        }
        self.unsent.insert(report.task);
        self.latest.insert(report.task, report);
        true
    }

    fn batch(&self) -> Vec<Report> {
        self.unsent.iter().filter_map(|task| self.latest.get(task)).take(BATCH).cloned().collect()
    }

    fn acknowledged(&mut self, batch: &[Report]) {
        for report in batch {
            if self.latest.get(&report.task) == Some(report) {
                self.unsent.remove(&report.task);
            }
        }
    }

    fn compare(&mut self, assignment: &Assignment) -> bool {
        self.latest.retain(|task, _| assignment.tasks.contains_key(task));
        let lacking = |report: &&Report| {
            assignment.tasks.get(&report.task).is_some_and(|task| moves_on(task.known, report.state))
        };
        self.unsent = self.latest.values().filter(lacking).map(|r| r.task).collect();
        !self.unsent.is_empty()
    }
}

fn moves_on(from: TaskState, to: TaskState) -> bool {
    from.may_become(to, Actor::Agent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn report(task: u64, state: TaskState) -> Report {
        Report { task: TaskId(task), state, message: String::new(), exit_code: None }
    }

    #[test]
    fn only_the_latest_of_each_task_is_sent() {
        let mut merged = Merged::default();
        for (task, state) in [(1, TaskState::Preparing), (2, TaskState::Preparing), (1, TaskState::Running)] {
            assert!(merged.tell(report(task, state)));
        }
        assert!(!merged.tell(report(1, TaskState::Running)) && !merged.tell(report(1, TaskState::Starting)));
        assert_eq!(merged.batch(), [report(1, TaskState::Running), report(2, TaskState::Preparing)]);
    }

    #[test]
    fn an_end_is_final() {
        let mut merged = Merged::default();
        assert!(merged.tell(report(1, TaskState::Failed)));
        assert!(!merged.tell(report(1, TaskState::Shutdown)) && !merged.tell(report(1, TaskState::Running)));
        assert_eq!(merged.batch(), [report(1, TaskState::Failed)]);
    }

    #[test]
    fn a_report_is_kept_until_it_is_acknowledged_and_one_that_changed_meanwhile_too() {
        let mut merged = Merged::default();
        merged.tell(report(1, TaskState::Starting));
        merged.tell(report(2, TaskState::Starting));
        let sent = merged.batch();
        assert_eq!(merged.batch(), sent);
        merged.tell(report(1, TaskState::Running));
        merged.acknowledged(&sent);
        assert_eq!(merged.batch(), [report(1, TaskState::Running)]);
        merged.acknowledged(&[report(1, TaskState::Running)]);
        assert!(merged.batch().is_empty());
    }

    #[test]
    fn what_the_managers_lack_is_sent_again_and_what_they_ended_is_forgotten() {
        let mut merged = Merged::default();
        for (task, state) in [(1, TaskState::Running), (2, TaskState::Running), (3, TaskState::Failed)] {
            merged.tell(report(task, state));
        }
        let sent = merged.batch();
        merged.acknowledged(&sent);
        let mut assignment = fixture::assignment(1, &[1, 2]);
        assignment.tasks.get_mut(&TaskId(1)).unwrap().known = TaskState::Running;
        assert!(merged.compare(&assignment));
        assert_eq!(merged.batch(), [report(2, TaskState::Running)]);
        assert!(!merged.latest.contains_key(&TaskId(3)));
    }
}
