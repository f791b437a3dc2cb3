//! The Raft group, brought in line with the nodes whose role is manager.

use shoal_common::{NodeId, node::Liveness};
use shoal_state::State;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tokio::time::{Duration, sleep};

use super::retry;
use crate::Manager;

/// A learner that catches up is looked at again after this.
const STEP: Duration = Duration::from_millis(100);

pub(super) async fn run(manager: Manager) {
    let mut states = manager.consensus.state();
    let mut leadership = manager.consensus.leadership();
    let mut backoff = retry();
    loop {
        let present: BTreeSet<NodeId> = {
            let now = leadership.borrow_and_update();
            now.voters.union(&now.learners).copied().collect()
        };
        let wanted = wanted(&states.borrow_and_update(), &present);
        match manager.consensus.align_membership(&wanted).await {
            Ok(true) => {
                backoff.reset();
                tokio::select! {
                    changed = states.changed() => if changed.is_err() { return },
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            }
            Ok(false) => {
                backoff.reset();
                sleep(STEP).await;
            }
            Err(error) => {
                tracing::info!(%error, "the managers' membership is not as wanted yet");
                sleep(backoff.delay()).await;
            }
        }
    }
}

/// A manager that was never heard from is not taken in yet: it could not catch up, and its vote would be missing.
fn wanted(state: &State, present: &BTreeSet<NodeId>) -> BTreeMap<NodeId, SocketAddr> {
    state
        .managers()
        .filter(|m| present.contains(&m.id) || m.liveness == Liveness::Ready)
        .map(|m| (m.id, m.description.control_addr))
        .collect()
}
