//! What the leader does: hear who lives, decide what tasks there should be, keep the group of managers as wanted.
//!
//! Each loop looks at the state and proposes what is missing. All end when leadership does, and start from nothing on
//! the next leader.

mod liveness;
mod membership;
mod orchestrate;
mod relay;

use shoal_rt::{Backoff, clock};
use shoal_state::{Command, Proposal};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::{Heard, Manager};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LIMIT: Duration = Duration::from_secs(2);

/// Until `shutdown`: leads while this member does, and otherwise tells the leader who was heard.
pub async fn run(manager: Manager, heard: Heard, shutdown: CancellationToken) {
    let mut leadership = manager.consensus.leadership();
    loop {
        let (leads, term) = {
            let now = leadership.borrow_and_update();
            (now.is_self, now.term)
        };
        if leads {
            tracing::info!(term, "this manager leads");
        }
        let work = async {
            if leads {
                tokio::join!(liveness::run(&manager, &heard), orchestrate::run(&manager), membership::run(&manager),);
            } else {
                relay::run(&manager, &heard).await;
            }
        };
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
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = work => return,
            goes_on = turned => if !goes_on { return },
        }
    }
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
