//! Which nodes' agents spoke: from the dispatcher to the leader's clock, on this host or another.

use shoal_common::NodeId;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Heartbeats that have not reached a leader for this long are refused, so that an agent finds another manager before the
/// node timeout (5 s): it speaks once a second and connects within 0.1 s. Longer than an election, which is no reason
/// for every agent of a healthy manager to leave it and ask another for its whole assignment.
const STUCK: Duration = Duration::from_secs(3);

/// Clones are the same. It holds a node once, however often it spoke.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    nodes: BTreeSet<NodeId>,
    since: Option<Instant>,
}

impl Heard {
    /// The agent of this node spoke. False if nobody takes the news.
    #[must_use]
    pub fn tell(&self, node: NodeId) -> bool {
        let mut waiting = self.waiting();
        waiting.nodes.insert(node);
        let since = *waiting.since.get_or_insert_with(Instant::now);
        drop(waiting);
        self.0.told.notify_one();
        since.elapsed() < STUCK
    }

    /// Waits for somebody to have spoken.
    pub async fn next(&self) -> BTreeSet<NodeId> {
        loop {
            let told = self.0.told.notified();
            let nodes = self.waiting().nodes.clone();
            if !nodes.is_empty() {
                return nodes;
            }
            told.await;
        }
    }

    /// The leader knows of these.
    pub fn delivered(&self, nodes: &BTreeSet<NodeId>) {
        let mut waiting = self.waiting();
        waiting.nodes.retain(|n| !nodes.contains(n));
        waiting.since = (!waiting.nodes.is_empty()).then(Instant::now);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_spoke_waits_until_delivered_and_the_stuck_are_told() {
        let heard = Heard::default();
        let (one, two) = (NodeId(1), NodeId(2));
        assert!(heard.tell(one) && heard.tell(one));
        assert_eq!(heard.next().await, [one].into());
        // Not delivered yet.
        assert_eq!(heard.next().await, [one].into());
        assert!(heard.tell(two));
        heard.delivered(&[one].into());
        assert_eq!(heard.next().await, [two].into());
        tokio::time::advance(STUCK).await;
        assert!(!heard.tell(one));
        heard.delivered(&[one, two].into());
        assert!(heard.tell(one));
    }
}
