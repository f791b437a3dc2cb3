//! Status reports of many agents, folded into few entries of the log.

use shoal_rt::{Tasks, clock};
use shoal_state::{Command, Proposal};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::intake::Rows;
use crate::{Manager, Seat, refused};

/// Reports that come within this time share an entry.
const WINDOW: Duration = Duration::from_millis(10);
/// Agents whose reports wait for the next entry.
const WAITING: usize = 1024;
/// No more reports join an entry that has this much. One message more is 700 KiB at most, and an entry 1 MiB.
const ENTRY_BYTES: usize = 256 << 10;
/// Of a row, beside its message.
const ROW_BYTES: usize = 256;

type Done = oneshot::Sender<Result<(), Status>>;

#[derive(Debug, Clone)]
pub(super) struct Reports(mpsc::Sender<(Rows, Done)>);

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
    pub(super) async fn submit(&self, rows: Rows) -> Result<(), Status> {
        let (done, outcome) = oneshot::channel();
        let gone = || Status::unavailable("this manager is ending");
        self.0.send((rows, done)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

async fn fold(seat: Seat, mut queue: mpsc::Receiver<(Rows, Done)>) {
    while let Some((mut rows, done)) = queue.recv().await {
        let mut waiting = vec![done];
        tokio::time::sleep(WINDOW).await;
        while bytes(&rows) < ENTRY_BYTES
            && let Ok((more, done)) = queue.try_recv()
        {
            rows.tasks.extend(more.tasks);
            rows.containers.extend(more.containers);
            waiting.push(done);
        }
        let outcome = write(&seat, rows).await;
        for done in waiting {
            // An agent that hung up asks again.
            let _ = done.send(outcome.clone());
        }
    }
}

/// About as much as they take in the log.
fn bytes(rows: &Rows) -> usize {
    let tasks = rows.tasks.iter().map(|r| r.message.len() + ROW_BYTES);
    let containers = rows.containers.iter().map(|r| r.message.len() + ROW_BYTES);
    tasks.chain(containers).sum()
}

async fn write(seat: &Seat, rows: Rows) -> Result<(), Status> {
    let manager = seat.manager()?;
    if !rows.containers.is_empty() {
        propose(&manager, Command::ReportContainers { reports: rows.containers }).await?;
    }
    if !rows.tasks.is_empty() {
        propose(&manager, Command::ReportStatus { reports: rows.tasks }).await?;
    }
    Ok(())
}

async fn propose(manager: &Manager, command: Command) -> Result<(), Status> {
    let proposal = Proposal { at: clock::now(), request: None, command };
    let (_, outcome) = manager.consensus.propose(proposal).await.map_err(refused)?;
    outcome.map(drop).map_err(refused)
}
