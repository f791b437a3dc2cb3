//! What the leader does: hear who lives, decide what tasks there should be, keep the group of managers as wanted.
//!
//! Each loop looks at the state and proposes what is missing. All end when leadership does, and start from nothing on
//! the next leader.

mod liveness;
mod membership;
mod orchestrate;
mod relay;

use shoal_rt::{Backoff, Tasks, clock};
use shoal_state::{Command, Proposal};
use std::time::Duration;

use crate::{Heard, Manager};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LIMIT: Duration = Duration::from_secs(2);
/// How long duties may take to end when leadership changes. They end at their next await.
const DUTIES_END: Duration = Duration::from_secs(1);

/// Until `tasks` are to end: leads while this member does, and otherwise tells the leader who was heard.
///
/// Each loop is a task of its own: a decision that takes long, or a proposal that waits for a slow disk, delays no
/// heartbeat.
pub async fn run(manager: Manager, heard: Heard, tasks: Tasks) {
    let mut leadership = manager.consensus.leadership();
    let shutdown = tasks.shutdown();
    loop {
        let (leads, term) = {
            let now = leadership.borrow_and_update();
            (now.is_self, now.term)
        };
        let duties = tasks.part();
        if leads {
            tracing::info!(term, "this manager leads");
            begin(&duties, "leader: liveness", liveness::run(manager.clone(), heard.clone()));
            begin(&duties, "leader: orchestration", orchestrate::run(manager.clone()));
            begin(&duties, "leader: membership", membership::run(manager.clone()));
        } else {
            begin(&duties, "relay of heartbeats", relay::run(manager.clone(), heard.clone()));
        }
        let turned = async {
            while leadership.changed().await.is_ok() {
                let now = leadership.borrow();
                // Another term of its own: others may have led, and heard nodes, in between.
                if now.is_self != leads || (leads && now.term != term) {
                    return true;
                }
            }
            false
        };
        let goes_on = tokio::select! {
            () = shutdown.cancelled() => return,
            goes_on = turned => goes_on,
        };
        // Before the next begin: two that drain the heartbeats would lose some.
        let late = duties.end(DUTIES_END).await;
        if !late.is_empty() {
            tracing::warn!(?late, "duties of a manager did not end within {DUTIES_END:?}");
        }
        if !goes_on {
            return;
        }
    }
}

fn begin(duties: &Tasks, name: &'static str, duty: impl Future<Output = ()> + Send + 'static) {
    let shutdown = duties.shutdown();
    duties.forever(name, async move { shutdown.run_until_cancelled(duty).await.unwrap_or(()) });
}

fn retry() -> Backoff {
    Backoff::new(RETRY_FIRST, RETRY_LIMIT)
}

/// True if it was applied; why not is logged, and the caller looks again after a while. Not for another leader to
/// log: what this one decided, of whom it hears above all, is not what the next one would.
async fn propose(manager: &Manager, command: Command) -> bool {
    let proposal = Proposal { at: clock::now(), request: None, command };
    match manager.consensus.propose_leading(proposal).await {
        Ok((_, Ok(_))) => true,
        Ok((_, Err(rejection))) => {
            tracing::warn!(%rejection, "the leader's own proposal was refused");
            false
        }
        Err(error) => {
            tracing::info!(%error, "the leader's proposal did not come through");
            false
        }
    }
}
