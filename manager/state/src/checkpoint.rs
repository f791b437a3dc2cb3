//! Whether the managers still hold the same state.
//!
//! `apply` is deterministic, so equal logs give equal states; a defect, or memory that flips a bit, makes them differ,
//! and then two leaders give out the same address twice. So each manager digests its state at every multiple of
//! [`EVERY`] entries, and says the digest in the log. One that differs from the majority stops.
//!
//! Taking the state is a clone of shared trees; the digest is made elsewhere, off `apply`.

use serde::{Deserialize, Serialize};
use shoal_common::{LogIndex, NodeId};
use std::{collections::BTreeMap, sync::Arc};

use crate::{
    reply::{Outcome, Reply},
    state::State,
};

/// Entries of the log between two digests. At 1,000 entries per second a digest of a large state (about a second)
/// is not finished before the next is due; that one is left out then.
pub const EVERY: u64 = 1_000;

/// What a manager says its state is after the entries up to `index`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub index: LogIndex,
    /// SHA-256, hex.
    pub digest: String,
}

/// The state after the entries up to the last multiple of [`EVERY`], once this process has passed one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Boundary(Option<(LogIndex, Arc<State>)>);

/// It is derived from the log like the rest, but only while a process runs; so it makes no two states differ.
impl PartialEq for Boundary {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What a manager's own digest says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough managers have said theirs.
    Open,
    Agrees,
    /// Most managers agree on another state.
    Differs,
    /// All have said theirs, and no majority agrees: which of them is right cannot be known.
    Split,
}

impl State {
    /// The state at the last multiple of [`EVERY`], and which that was.
    pub fn boundary(&self) -> Option<(LogIndex, Arc<State>)> {
        self.boundary.0.clone()
    }

    /// Before the entry `next` is applied.
    pub(crate) fn keep_boundary(&mut self, next: LogIndex) {
        let last = (next.0 - 1) / EVERY * EVERY;
        if self.applied.0 <= last && last > 0 {
            let then = State { boundary: Boundary::default(), ..self.clone() };
            self.boundary = Boundary(Some((LogIndex(last), Arc::new(then))));
        }
    }

    pub(crate) fn checkpoint(&mut self, node: NodeId, checkpoint: &Checkpoint) -> Outcome {
        let is_news = self.checkpoints.get(&node).is_none_or(|c| c.index < checkpoint.index);
        if is_news && self.is_manager(node) {
            self.checkpoints.insert(node, checkpoint.clone());
        }
        Ok(Reply::Done)
    }

    pub fn verdict(&self, own: &Checkpoint) -> Verdict {
        let managers = self.managers().count();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, said) in self.checkpoints.iter().filter(|(node, c)| c.index == own.index && self.is_manager(**node)) {
            *votes.entry(&said.digest).or_default() += 1;
        }
        match votes.iter().find(|(_, votes)| **votes * 2 > managers) {
            Some((digest, _)) if **digest == own.digest => Verdict::Agrees,
            Some(_) => Verdict::Differs,
            None if votes.values().sum::<usize>() < managers => Verdict::Open,
            None => Verdict::Split,
        }
    }
}
