//! Who is heard from. The leader's own clock decides, so this starts anew with every leader.

use std::{collections::BTreeMap, time::Duration};

use shoal_common::{NodeId, Timestamp, node};
use shoal_state::State;

/// A node that is silent for so long is down. Agents speak several times within it.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Times are of one steady clock, in milliseconds from any origin; the wall clock, which can jump, is not meant.
///
/// Every node is given a whole timeout from the moment at which this leader first knows of it, so that a new leader
/// calls nobody down before it could hear from them. The same after a pause (a stopped process, a starved machine):
/// who did not listen for a whole timeout cannot say that others were silent.
#[derive(Debug, Clone)]
pub struct Liveness {
    contacts: BTreeMap<NodeId, Contact>,
    timeout: Duration,
    /// When this was last called.
    attentive_at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Contact {
    /// When it was heard, or when its time to be heard began.
    at: Timestamp,
    heard: bool,
}

impl Liveness {
    /// Leadership began at `now`.
    pub fn new(now: Timestamp, timeout: Duration) -> Self {
        Self { contacts: BTreeMap::new(), timeout, attentive_at: now }
    }

    /// The node's agent spoke.
    pub fn heard(&mut self, node: NodeId, now: Timestamp) {
        self.attend(now);
        self.contacts.insert(node, Contact { at: now, heard: true });
    }

    /// Nodes whose liveness is another than the state says: material for `Command::SetLiveness`.
    /// Call it at least every half timeout, see [`Liveness::wake_at`].
    pub fn verdicts(&mut self, state: &State, now: Timestamp) -> Vec<(NodeId, node::Liveness)> {
        self.attend(now);
        self.contacts.retain(|node, _| state.nodes.contains_key(node));
        let mut verdicts = Vec::new();
        for known in state.nodes.values().filter(|node| !node.left) {
            let contact = self.contacts.entry(known.id).or_insert(Contact { at: now, heard: false });
            let silent = now.since(contact.at) >= self.timeout;
            let verdict = match (silent, contact.heard) {
                (true, _) => node::Liveness::Down,
                (false, true) => node::Liveness::Ready,
                (false, false) => known.liveness,
            };
            if verdict != known.liveness {
                verdicts.push((known.id, verdict));
            }
        }
        verdicts
    }

    /// When to ask for verdicts again: at the next silence that would last too long, and no later than half a timeout
    /// from now, because being asked is also how this knows that its own process is awake.
    pub fn wake_at(&self, now: Timestamp) -> Timestamp {
        let half = now + self.timeout / 2;
        let next = self.contacts.values().map(|contact| contact.at + self.timeout).filter(|&at| at > now).min();
        next.map_or(half, |at| at.min(half))
    }

    fn attend(&mut self, now: Timestamp) {
        if now.since(self.attentive_at) >= self.timeout {
            for contact in self.contacts.values_mut() {
                *contact = Contact { at: now, heard: false };
            }
        }
        self.attentive_at = self.attentive_at.max(now);
    }
}
