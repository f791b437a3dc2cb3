//! Which tasks there should be, and where: proposes what [`shoal_control::decide`] decides until it has nothing left.

use shoal_control::decide;
use shoal_rt::clock;
use tokio::time::{Duration, sleep};

use super::{propose, retry};
use crate::Manager;

pub(super) async fn run(manager: Manager) {
    let mut states = manager.consensus.state();
    let mut backoff = retry();
    loop {
        let state = states.borrow_and_update().clone();
        // Off the async workers: with 100,000 tasks a decision takes hundreds of milliseconds.
        let decision = match tokio::task::spawn_blocking(move || decide(&state, clock::now())).await {
            Ok(decision) => decision,
            Err(error) => {
                // Not the end of this process: the next leader would decide on the same state, and no manager would be
                // left to take the command that mends it.
                tracing::error!(%error, "the orchestrator cannot decide what to do");
                sleep(backoff.delay()).await;
                continue;
            }
        };
        let nothing = decision.commands.is_empty();
        let mut done = true;
        for command in decision.commands {
            done &= propose(&manager, command).await;
        }
        if !done {
            sleep(backoff.delay()).await;
            continue;
        }
        backoff.reset();
        if !nothing {
            // What was applied is in the state that is read next.
            continue;
        }
        let wake = async {
            match decision.wake_at {
                Some(at) => sleep(Duration::from_millis(at.0.saturating_sub(clock::now().0) + 1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = wake => {}
        }
    }
}
