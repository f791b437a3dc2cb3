//! What the managers are to be told of this host's tasks: the latest of each, until they have it.

use shoal_common::{
    TaskId,
    assignment::Assignment,
    task::{Actor, TaskState},
};
use shoal_proto::convert::{Report, RunReport};
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

    /// Says why a task is still being prepared or started. A task that is further needs no excuse.
    pub(crate) fn explain(&self, task: TaskId, why: &str) {
        if self.merged().explain(task, why) {
            self.0.news.notify_one();
        }
    }

    /// Notes how a container is that was run by hand.
    pub(crate) fn tell_run(&self, report: RunReport) {
        if self.merged().tell_run(report) {
            self.0.news.notify_one();
        }
    }

    /// What there is to send, once there is something.
    pub(crate) async fn batch(&self) -> Batch {
        loop {
            let batch = self.merged().batch();
            if !batch.is_empty() {
                return batch;
            }
            self.0.news.notified().await;
        }
    }

    /// The managers have these.
    pub(crate) fn acknowledged(&self, batch: &Batch) {
        self.merged().acknowledged(batch);
    }

    /// Compares with what the managers have on record: what they lack is sent again, and what they have ended is
    /// forgotten.
    pub(crate) fn compare(&self, assignment: &Assignment) {
        if self.merged().compare(assignment) {
            self.0.news.notify_one();
        }
    }

    /// The latest of each container that was run by hand.
    pub(crate) fn runs(&self) -> BTreeMap<TaskId, RunReport> {
        self.merged().runs.clone()
    }

    fn merged(&self) -> MutexGuard<'_, Merged> {
        self.0.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports for one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) tasks: Vec<Report>,
    pub(crate) containers: Vec<RunReport>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.containers.is_empty()
    }
}

#[derive(Debug, Default)]
struct Merged {
    latest: BTreeMap<TaskId, Report>,
    unsent: BTreeSet<TaskId>,
    runs: BTreeMap<TaskId, RunReport>,
    unsent_runs: BTreeSet<TaskId>,
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

    /// Whether that was news.
    fn explain(&mut self, task: TaskId, why: &str) -> bool {
        let waits = |r: &&mut Report| matches!(r.state, TaskState::Preparing | TaskState::Starting);
        match self.latest.get_mut(&task).filter(waits) {
            Some(report) if report.message != why => {
                why.clone_into(&mut report.message);
                self.unsent.insert(task);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether that was news.
    fn tell_run(&mut self, report: RunReport) -> bool {
        if self.runs.get(&report.container) == Some(&report) {
            return false;
        }
        self.unsent_runs.insert(report.container);
        self.runs.insert(report.container, report);
        true
    }

    fn batch(&self) -> Batch {
        let tasks = self.unsent.iter().filter_map(|task| self.latest.get(task)).take(BATCH).cloned();
        let containers = self.unsent_runs.iter().filter_map(|id| self.runs.get(id)).take(BATCH).cloned();
        Batch { tasks: tasks.collect(), containers: containers.collect() }
    }

    fn acknowledged(&mut self, batch: &Batch) {
        for report in &batch.tasks {
            if self.latest.get(&report.task) == Some(report) {
                self.unsent.remove(&report.task);
            }
        }
        for report in &batch.containers {
            if self.runs.get(&report.container) == Some(report) {
                self.unsent_runs.remove(&report.container);
            }
        }
    }

    fn compare(&mut self, assignment: &Assignment) -> bool {
        self.latest.retain(|task, _| assignment.tasks.contains_key(task));
        // What is said of a state that the managers have on record already is not lost either.
        let unsent = std::mem::take(&mut self.unsent);
        let lacking = |report: &&Report| {
            let known = assignment.tasks.get(&report.task).map(|task| task.known);
            known.is_some_and(|known| {
                moves_on(known, report.state) || (known == report.state && unsent.contains(&report.task))
            })
        };
        self.unsent = self.latest.values().filter(lacking).map(|r| r.task).collect();
        self.runs.retain(|id, _| assignment.containers.contains_key(id));
        let lacking = |report: &&RunReport| {
            let known = assignment.containers.get(&report.container).map(|c| &c.known);
            known.is_some_and(|known| {
                let same = (known.start, known.phase, known.exit_code, known.restarts, known.health);
                same != (report.start, report.phase, report.exit_code, report.restarts, report.health)
            })
        };
        self.unsent_runs = self.runs.values().filter(lacking).map(|r| r.container).collect();
        !self.batch().is_empty()
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
        assert_eq!(merged.batch().tasks, [report(1, TaskState::Running), report(2, TaskState::Preparing)]);
    }

    #[test]
    fn why_a_task_waits_is_sent_until_the_managers_have_it() {
        let mut merged = Merged::default();
        assert!(!merged.explain(TaskId(1), "nothing is known of it"));
        merged.tell(report(1, TaskState::Preparing));
        merged.acknowledged(&merged.batch());
        assert!(merged.explain(TaskId(1), "pulling") && !merged.explain(TaskId(1), "pulling"));
        let mut assignment = fixture::assignment(1, &[1, 2]);
        Arc::make_mut(assignment.tasks.get_mut(&TaskId(1)).unwrap()).known = TaskState::Preparing;
        merged.compare(&assignment);
        let said = Report { message: "pulling".to_owned(), ..report(1, TaskState::Preparing) };
        assert_eq!(merged.batch().tasks, [said]);
        merged.acknowledged(&merged.batch());
        merged.compare(&assignment);
        assert!(merged.batch().is_empty());
        // One that runs waits for nothing.
        merged.tell(report(1, TaskState::Running));
        assert!(!merged.explain(TaskId(1), "pulling"));
        assert_eq!(merged.batch().tasks, [report(1, TaskState::Running)]);
    }

    #[test]
    fn an_end_is_final() {
        let mut merged = Merged::default();
        assert!(merged.tell(report(1, TaskState::Failed)));
        assert!(!merged.tell(report(1, TaskState::Shutdown)) && !merged.tell(report(1, TaskState::Running)));
        assert_eq!(merged.batch().tasks, [report(1, TaskState::Failed)]);
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
        assert_eq!(merged.batch().tasks, [report(1, TaskState::Running)]);
        merged.acknowledged(&Batch { tasks: vec![report(1, TaskState::Running)], containers: vec![] });
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
        Arc::make_mut(assignment.tasks.get_mut(&TaskId(1)).unwrap()).known = TaskState::Running;
        assert!(merged.compare(&assignment));
        assert_eq!(merged.batch().tasks, [report(2, TaskState::Running)]);
        assert!(!merged.latest.contains_key(&TaskId(3)));
    }
}
