//! What one node may report: of its own, so many rows at a time, so often, and one message at a time.

use shoal_common::NodeId;
use shoal_proto::{
    convert::{Report, RunReport},
    pb,
};
use shoal_rt::{Buckets, Rate};
use shoal_state::{ContainerReport, State, TaskReport};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tonic::Status;

/// Rows in one message, of tasks and containers together. An agent sends 256 of each at most.
const ROWS: usize = 512;
/// Messages of one node: a burst, as when a host starts, and then ten in a second. A row is the latest of its task, so
/// what waits grows no more than the tasks of a host.
const PACE: Rate = Rate { at_once: 50, period: Duration::from_millis(100) };

#[derive(Debug, Default)]
pub(super) struct Intake {
    busy: Arc<Mutex<BTreeSet<NodeId>>>,
    pace: Pace,
}

#[derive(Debug)]
struct Pace(Mutex<Buckets<NodeId>>);

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Buckets::new(PACE)))
    }
}

/// A node's message is being taken in.
#[derive(Debug)]
pub(super) struct Turn {
    node: NodeId,
    busy: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.busy).remove(&self.node);
    }
}

/// The rows of a message that the managers are to know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) tasks: Vec<TaskReport>,
    pub(super) containers: Vec<ContainerReport>,
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.containers.is_empty()
    }
}

impl Intake {
    /// Waits until this node may report again. One message at a time: what a host has to say fits in it.
    pub(super) async fn begin(&self, node: NodeId) -> Result<Turn, Status> {
        if !lock(&self.busy).insert(node) {
            let told = format!("a report of {node} is being written already: send the next one after its answer");
            return Err(Status::resource_exhausted(told));
        }
        let turn = Turn { node, busy: Arc::clone(&self.busy) };
        let wait = lock(&self.pace.0).take(node);
        tokio::time::sleep(wait).await;
        Ok(turn)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A row that cannot be read, or is not of this node, is left out; the others count. A host whose manager was exchanged
/// for one that is behind must not lose a whole message by one row.
pub(super) fn rows(state: &State, node: NodeId, asked: pb::ReportStatusRequest) -> Result<Rows, Status> {
    let count = asked.reports.len() + asked.containers.len();
    if count > ROWS {
        return Err(Status::invalid_argument(format!(
            "reports: {count} rows in one message: at most {ROWS} are taken"
        )));
    }
    let left_out = |kind: &str, nth: usize, why: &dyn std::fmt::Display| {
        tracing::warn!(%node, row = nth, "a row of a report on {kind} is left out: {why}");
    };
    let mut rows = Rows::default();
    for (n, on_wire) in asked.containers.into_iter().enumerate() {
        let report = match RunReport::try_from(on_wire) {
            Ok(report) => report,
            Err(invalid) => {
                left_out("containers", n, &invalid);
                continue;
            }
        };
        match state.containers.get(&report.container).map(|c| c.node) {
            Some(owner) if owner == node => rows.containers.push(ContainerReport {
                node,
                container: report.container,
                start: report.start,
                phase: report.phase,
                message: report.message,
                exit_code: report.exit_code,
                restarts: report.restarts,
                health: report.health,
                unstarted: report.unstarted,
            }),
            Some(_) => left_out("containers", n, &format_args!("{} is on another node", report.container)),
            // It was forgotten meanwhile. If this manager is behind, the agent finds it missing and reports it again.
            None => {}
        }
    }
    for (n, on_wire) in asked.reports.into_iter().enumerate() {
        let report = match Report::try_from(on_wire) {
            Ok(report) => report,
            Err(invalid) => {
                left_out("tasks", n, &invalid);
                continue;
            }
        };
        match state.tasks.get(&report.task).map(|t| t.node) {
            Some(Some(owner)) if owner == node => rows.tasks.push(TaskReport {
                node,
                task: report.task,
                state: report.state,
                message: report.message,
                exit_code: report.exit_code,
            }),
            Some(_) => left_out("tasks", n, &format_args!("{} is not a task of this node", report.task)),
            None => {}
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_node_reports_one_message_at_a_time_and_not_too_often() {
        let intake = Intake::default();
        let (one, two) = (NodeId(1), NodeId(2));
        let turn = intake.begin(one).await.unwrap();
        assert_eq!(intake.begin(one).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert!(intake.begin(two).await.is_ok());
        drop(turn);
        let begun = Instant::now();
        for _ in 0..PACE.at_once - 1 + 20 {
            intake.begin(one).await.unwrap();
        }
        assert_eq!(begun.elapsed(), PACE.period * 20);
    }

    #[test]
    fn a_message_has_a_limited_number_of_rows() {
        let asked = |rows| pb::ReportStatusRequest { reports: vec![Default::default(); rows], containers: vec![] };
        // None of these can be read, and that refuses nothing.
        assert_eq!(rows(&State::default(), NodeId(1), asked(ROWS)).unwrap(), Rows::default());
        let refused = rows(&State::default(), NodeId(1), asked(ROWS + 1)).unwrap_err();
        assert_eq!(refused.message(), "reports: 513 rows in one message: at most 512 are taken");
    }
}
