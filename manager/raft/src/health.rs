//! What a leader sees of the other members: who does not answer as one, since when, and why.

use openraft::Instant as _;
use shoal_common::NodeId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{rt::Instant, types::LogId};

/// Worth telling: one message may be lost, and a member may start again.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<NodeId, Ill>>>);

#[derive(Debug)]
struct Ill {
    since: Instant,
    why: String,
    /// It has lost entries that it had acknowledged. It may answer nevertheless.
    lost: bool,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Ill>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answers(&self, node: NodeId) {
        self.lock().retain(|ill, how| *ill != node || how.lost);
    }

    pub(crate) fn fails(&self, node: NodeId, why: String) {
        let mut all = self.lock();
        let ill = all.entry(node).or_insert_with(|| Ill { since: Instant::now(), why: String::new(), lost: false });
        if !ill.lost {
            ill.why = why;
        }
    }

    /// It refuses what follows an entry that it had acknowledged: its log has become shorter. openraft sends it the same
    /// again and again, and to let it go back instead would count entries as held by a majority that are not.
    pub(crate) fn has_lost(&self, node: NodeId, acknowledged: LogId) {
        let why = format!(
            "E-LOG-BEHIND: its log does not hold entry {} any more, which it had acknowledged: demote it and promote it again",
            acknowledged.index
        );
        let before = self.lock().insert(node, Ill { since: Instant::now(), why: why.clone(), lost: true });
        if before.is_none_or(|before| !before.lost) {
            tracing::error!(%node, why, "a manager has lost what it had acknowledged");
        }
    }

    /// It holds all that it had.
    pub(crate) fn follows(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    pub(crate) fn faults(&self) -> BTreeMap<NodeId, String> {
        let told = |ill: &Ill| ill.lost || ill.since.elapsed() >= TOLD_AFTER;
        self.lock().iter().filter(|(_, ill)| told(ill)).map(|(node, ill)| (*node, ill.why.clone())).collect()
    }
}
