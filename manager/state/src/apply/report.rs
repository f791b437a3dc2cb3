//! What agents observed of their tasks.

use shoal_common::task::{Actor, DesiredState, TaskState};

use super::Entry;
use crate::{
    command::TaskReport,
    reply::{Outcome, Reply},
    state::State,
};

impl State {
    pub(super) fn report_status(&mut self, entry: Entry, reports: &[TaskReport]) -> Outcome {
        let mut made = 0;
        for report in reports {
            made += usize::from(self.note(entry, report));
        }
        Ok(Reply::Made(made))
    }

    /// A move must be in the table; within one state only the message may change (an image's progress).
    fn note(&mut self, entry: Entry, report: &TaskReport) -> bool {
        let Some(task) = self.tasks.get(&report.task).filter(|t| t.node == Some(report.node)) else { return false };
        let status = &task.status;
        let moves = status.state.may_become(report.state, Actor::Agent);
        let news = status.state == report.state
            && !status.state.is_terminal()
            && !report.message.is_empty()
            && status.message != report.message;
        if !moves && !news {
            return false;
        }
        self.change_task(report.task, |task| {
            // Why it was told to end says more than nothing, and more than how it then did.
            let explained = task.status.state == TaskState::Unhealthy;
            if !explained && (!report.message.is_empty() || task.desired == DesiredState::Running) {
                task.status.message.clone_from(&report.message);
            }
            if moves {
                task.status.state = report.state;
                task.status.since = entry.at;
                task.status.exit_code = report.exit_code;
            }
            if moves && report.state == TaskState::Running {
                task.started = task.started.or(Some(entry.at));
            }
        })
    }
}
