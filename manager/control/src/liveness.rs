//! Who is heard from. The leader's own clock decides, so this starts anew with every leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use imbl::ordmap::DiffItem;
use shoal_common::{NodeId, Timestamp, node};
use shoal_state::{Node, State, Table};

/// A node that is silent for so long is down. Agents speak several times within it.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Times are of one steady clock, in milliseconds from any origin; the wall clock, which can jump, is not meant.
///
/// Every node is given a whole timeout from the moment at which this leader first knows of it, so that a new leader
/// calls nobody down before it could hear from them. The same after a pause (a stopped process, a starved machine):
/// who did not listen for a whole timeout cannot say that others were silent.
///
/// A heartbeat, or a new state, costs no look at the nodes that have nothing to do with it.
#[derive(Debug, Clone)]
pub struct Liveness {
    contacts: BTreeMap<NodeId, Contact>,
    /// When each of those that are not silent will have been so for too long.
    deadlines: BTreeSet<(Timestamp, NodeId)>,
    /// Whose liveness may be another than the state says.
    open: BTreeSet<NodeId>,
    /// As the state had them last.
    nodes: Table<NodeId, Node>,
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
        Self {
            contacts: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            open: BTreeSet::new(),
            nodes: Table::default(),
            timeout,
            attentive_at: now,
        }
    }

    /// The node's agent spoke.
    pub fn heard(&mut self, node: NodeId, now: Timestamp) {
        self.attend(now);
        self.set(node, Contact { at: now, heard: true });
    }

    /// Nodes whose liveness is another than the state says: material for `Command::SetLiveness`.
    /// Call it at least every half timeout, see [`Liveness::wake_at`].
    pub fn verdicts(&mut self, state: &State, now: Timestamp) -> Vec<(NodeId, node::Liveness)> {
        self.attend(now);
        self.follow(&state.nodes, now);
        while let Some(&(at, node)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, node));
            self.open.insert(node);
        }
        let mut verdicts = Vec::new();
        for id in std::mem::take(&mut self.open) {
            let (Some(known), Some(contact)) = (state.nodes.get(&id), self.contacts.get(&id)) else { continue };
            if known.left {
                continue;
            }
            let verdict = match (now.since(contact.at) >= self.timeout, contact.heard) {
                (true, _) => node::Liveness::Down,
                (false, true) => node::Liveness::Ready,
                (false, false) => known.liveness,
            };
            if verdict != known.liveness {
                // Until the state says so.
                self.open.insert(id);
                verdicts.push((id, verdict));
            }
        }
        verdicts
    }

    /// When to ask for verdicts again: at the next silence that would last too long, and no later than half a timeout
    /// from now, because being asked is also how this knows that its own process is awake.
    pub fn wake_at(&self, now: Timestamp) -> Timestamp {
        let half = now + self.timeout / 2;
        let next = self.deadlines.range((now + Duration::from_millis(1), NodeId(0))..).next();
        next.map_or(half, |(at, _)| (*at).min(half))
    }

    /// Nodes come, go, and are said to be something else than before.
    fn follow(&mut self, nodes: &Table<NodeId, Node>, now: Timestamp) {
        let before = std::mem::replace(&mut self.nodes, nodes.clone());
        for row in before.diff(nodes) {
            match row {
                DiffItem::Remove(id, _) => self.forget(*id),
                DiffItem::Add(id, _) | DiffItem::Update { new: (id, _), .. } => {
                    if !self.contacts.contains_key(id) {
                        self.set(*id, Contact { at: now, heard: false });
                    }
                    self.open.insert(*id);
                }
            }
        }
        // Whoever was heard before it was a node: it may never be one.
        let strangers: Vec<NodeId> = self.open.iter().filter(|id| !nodes.contains_key(*id)).copied().collect();
        strangers.into_iter().for_each(|id| self.forget(id));
    }

    fn set(&mut self, node: NodeId, contact: Contact) {
        if let Some(before) = self.contacts.insert(node, contact) {
            self.deadlines.remove(&(before.at + self.timeout, node));
        }
        self.deadlines.insert((contact.at + self.timeout, node));
        self.open.insert(node);
    }

    fn forget(&mut self, node: NodeId) {
        if let Some(contact) = self.contacts.remove(&node) {
            self.deadlines.remove(&(contact.at + self.timeout, node));
        }
        self.open.remove(&node);
    }

    fn attend(&mut self, now: Timestamp) {
        if now.since(self.attentive_at) >= self.timeout {
            let all: Vec<NodeId> = self.contacts.keys().copied().collect();
            all.into_iter().for_each(|node| self.set(node, Contact { at: now, heard: false }));
        }
        self.attentive_at = self.attentive_at.max(now);
    }
}
