//! Status reports of many agents, folded into one entry of the log.

use shoal_rt::{Tasks, clock};
use shoal_state::{Command, Proposal, TaskReport};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::{Seat, refused};

/// Reports that come within this time share an entry.
const WINDOW: Duration = Duration::from_millis(10);
/// Agents whose reports wait for the next entry.
const WAITING: usize = 1024;
/// Reports in one entry.
const AT_ONCE: usize = 4096;

type Done = oneshot::Sender<Result<(), Status>>;

#[derive(Debug, Clone)]
pub(super) struct Reports(mpsc::Sender<(Vec<TaskReport>, Done)>);

impl Reports {
    pub(super) fn new(seat: Seat, tasks: &Tasks) -> Self {
        let (tx, rx) = mpsc::channel(WAITING);
        let shutdown = tasks.shutdown();
        tasks.forever("folding of reports", async move {
            shutdown.run_until_cancelled(fold(seat, rx)).await;
        });
        Self(tx)
    }

    /// Applied when it returns.
    pub(super) async fn submit(&self, reports: Vec<TaskReport>) -> Result<(), Status> {
        let (done, outcome) = oneshot::channel();
        let gone = || Status::unavailable("this manager is ending");
        self.0.send((reports, done)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

async fn fold(seat: Seat, mut queue: mpsc::Receiver<(Vec<TaskReport>, Done)>) {
    while let Some((mut reports, done)) = queue.recv().await {
        let mut waiting = vec![done];
        tokio::time::sleep(WINDOW).await;
        while reports.len() < AT_ONCE
            && let Ok((more, done)) = queue.try_recv()
        {
            reports.extend(more);
            waiting.push(done);
        }
        let outcome = propose(&seat, reports).await;
        for done in waiting {
            // An agent that hung up asks again.
            let _ = done.send(outcome.clone());
        }
    }
}

async fn propose(seat: &Seat, reports: Vec<TaskReport>) -> Result<(), Status> {
    let proposal = Proposal { at: clock::now(), request: None, command: Command::ReportStatus { reports } };
    let (_, outcome) = seat.manager()?.consensus.propose(proposal).await.map_err(refused)?;
    outcome.map(drop).map_err(refused)
}
