//! Who is heard from.

use shoal_common::Timestamp;
use shoal_control::{Liveness, liveness::TIMEOUT};
use shoal_state::Command;
use tokio::time::{Duration, Instant, sleep_until};

use super::{propose, retry};
use crate::{Heard, Manager};

pub(super) async fn run(manager: &Manager, heard: &Heard) {
    // A clock that never jumps.
    let origin = Instant::now();
    let now = || Timestamp(u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX));
    let mut liveness = Liveness::new(now(), TIMEOUT);
    let mut states = manager.consensus.state();
    let mut backoff = retry();
    let mut next = origin;
    loop {
        tokio::select! {
            // After a slow proposal: what was heard meanwhile counts before silence does.
            biased;
            nodes = heard.next() => {
                for node in &nodes {
                    liveness.heard(*node, now());
                }
                heard.delivered(&nodes);
            }
            // A node that is new is given its time from now on.
            changed = states.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
        }
        let state = states.borrow_and_update().clone();
        let verdicts = liveness.verdicts(&state, now());
        next = origin + Duration::from_millis(liveness.wake_at(now()).0);
        if verdicts.is_empty() {
            continue;
        }
        for (node, verdict) in &verdicts {
            tracing::info!(%node, %verdict, "a node's liveness changes");
        }
        if propose(manager, Command::SetLiveness { nodes: verdicts }).await {
            backoff.reset();
        } else {
            tokio::time::sleep(backoff.delay()).await;
        }
    }
}
