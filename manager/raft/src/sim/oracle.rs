//! What must hold, checked as it happens. One run of the simulation is one thread, so this is a thread's own.
//!
//! - O1, O3: what was acknowledged is in the log for good, and every read shows all that was acknowledged before it
//!   began. The log is the order, so this is linearizability of the whole, and so of each key.
//! - O2: no address is held twice at any index, and a freed one comes again only when no other has rested longer.
//! - No entry is logged, and no level is reached, that a manager does not know.
//! - O5: one index has one entry and one state, on every member, for ever.
//! - Raft: one leader per term; what a member has promised to others (a vote, entries) is durable before they hear it.

use openraft::EntryPayload;
use sha2::{Digest as _, Sha256};
use shoal_common::{Level, LogIndex, NetworkId, NodeId};
use shoal_state::{Node, Outcome, State, digest, violations};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    codec,
    types::{Answer, Entry, LogId},
};

/// What the members agreed on for one index.
#[derive(Debug, Clone)]
struct Agreed {
    id: LogId,
    entry: Fingerprint,
    answer: Answer,
    digest: String,
}

/// Of an entry: what must be equal everywhere, and the level that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    sum: [u8; 32],
    level: Level,
}

#[derive(Debug, Default)]
struct Oracle {
    /// What runs on each host.
    known: BTreeMap<NodeId, Level>,
    agreed: BTreeMap<u64, Agreed>,
    state: Arc<State>,
    voters: Vec<BTreeSet<u64>>,
    /// Of the ids that were ever given out.
    highest_id: u64,
    /// When each address was freed, as the index.
    freed: BTreeMap<(NetworkId, IpAddr), u64>,
    /// Everything that was acknowledged or read is at or before this index.
    floor: u64,
    leaders: BTreeMap<u64, NodeId>,
    /// The logs that a member has said to hold, by index.
    promised: BTreeMap<NodeId, BTreeMap<u64, LogId>>,
    /// Somebody was taken out of the group, and begins with nothing.
    has_let_go: bool,
    wrong: Option<String>,
    trace: Trace,
}

/// Everything that happened, as a digest, and as text where it is asked for.
#[derive(Debug, Default)]
struct Trace {
    sum: Sha256,
    events: u64,
    shown: bool,
    lines: Vec<String>,
}

thread_local! {
    static ORACLE: RefCell<Oracle> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut Oracle) -> T) -> T {
    ORACLE.with_borrow_mut(f)
}

pub(super) fn begin(shown: bool) {
    with(|oracle| *oracle = Oracle { trace: Trace { shown, ..Trace::default() }, ..Oracle::default() });
}

/// Notes what happens.
pub(super) fn note(event: &str) {
    let now = openraft_rt_sim::SimInstant::try_now().map_or(0, |now| now.elapsed_since_start().as_micros());
    with(|oracle| {
        let trace = &mut oracle.trace;
        trace.events += 1;
        trace.sum.update(now.to_be_bytes());
        trace.sum.update(event.as_bytes());
        if trace.shown {
            trace.lines.push(format!("{:>6}.{:06} s  {event}", now / 1_000_000, now % 1_000_000));
        }
    });
}

/// Adds to the events what is no part of the run itself.
pub(super) fn describe(line: String) {
    with(|oracle| {
        if oracle.trace.shown {
            oracle.trace.lines.push(line);
        }
    });
}

/// Something does not hold. The first counts.
pub(super) fn wrong(what: String) {
    note(&format!("WRONG {what}"));
    with(|oracle| oracle.wrong = oracle.wrong.take().or(Some(what)));
}

pub(super) fn is_wrong() -> Option<String> {
    with(|oracle| oracle.wrong.clone())
}

pub(super) fn digest_of_run() -> String {
    with(|oracle| format!("{:x} of {} events", oracle.trace.sum.clone().finalize(), oracle.trace.events))
}

pub(super) fn events() -> Vec<String> {
    with(|oracle| std::mem::take(&mut oracle.trace.lines))
}

pub(crate) fn fingerprint(entry: &Entry) -> Fingerprint {
    let level = match &entry.payload {
        EntryPayload::Membership(membership) => {
            let configs = membership.get_joint_config().clone();
            with(|oracle| {
                if !oracle.agreed.contains_key(&entry.log_id.index) {
                    oracle.voters = configs;
                }
            });
            Level(0)
        }
        EntryPayload::Blank => Level(0),
        EntryPayload::Normal(logged) => logged.0.command.level(),
    };
    Fingerprint { sum: Sha256::digest(codec::encode(entry).unwrap_or_default()).into(), level }
}

/// A member has applied an entry.
pub(crate) fn applied(id: LogId, entry: Fingerprint, answer: &Answer, state: &Arc<State>) {
    let now = Agreed { id, entry, answer: answer.clone(), digest: digest(state) };
    let found = with(|oracle| oracle.apply(now, state));
    if let Some((what, wrongs)) = found {
        note(&what);
        for each in wrongs {
            wrong(each);
        }
    }
}

/// A member has taken a state instead of the entries that led to it.
pub(crate) fn installed(id: Option<LogId>, state: &State) {
    let Some(id) = id else { return };
    let same = with(|oracle| oracle.agreed.get(&id.index).is_some_and(|a| a.id == id && a.digest == digest(state)));
    if !same {
        wrong(format!("a snapshot up to {id} holds another state than was applied there"));
    }
}

impl Oracle {
    /// What to note, and what is wrong, if this is the first member to apply this index.
    fn apply(&mut self, now: Agreed, state: &Arc<State>) -> Option<(String, Vec<String>)> {
        let index = now.id.index;
        if let Some(before) = self.agreed.get(&index) {
            let same = before.id == now.id && before.entry == now.entry && before.digest == now.digest;
            let wrong = format!(
                "entry {index} is {} on one member and {} on another (or their states differ)",
                before.id, now.id
            );
            return (!same).then(|| ("two entries for one index".to_owned(), vec![wrong]));
        }
        let mut wrongs = Vec::new();
        if self.agreed.last_key_value().is_some_and(|(last, _)| last + 1 != index) {
            wrongs.push(format!("entry {index} is applied, and nobody has applied the one before"));
        }
        wrongs.extend(violations(state).into_iter().map(|v| format!("at entry {index}: {v}")));
        wrongs.extend(self.addresses(index, state));
        wrongs.extend(self.levels(&now, state));
        for id in ids(state).difference(&ids(&self.state)) {
            if *id <= self.highest_id {
                wrongs.push(format!("at entry {index}: the id {id} is given out a second time"));
            }
        }
        self.highest_id = self.highest_id.max(ids(state).last().copied().unwrap_or(0));
        let what = format!("agreed {} {}", now.id, now.digest);
        self.agreed.insert(index, now);
        self.state = Arc::clone(state);
        Some((what, wrongs))
    }

    /// Every manager can read the entry, and knows the level that there is now.
    fn levels(&self, now: &Agreed, state: &State) -> Option<String> {
        let needs = now.entry.level.max(state.level);
        // One that is just becoming a manager has said what it knows.
        let knows = |node: &Node| self.known.get(&node.id).copied().unwrap_or(node.description.level);
        let behind = state.managers().find(|manager| knows(manager) < needs)?;
        Some(format!("entry {} needs level {needs}, and {} knows {}", now.id.index, behind.id, knows(behind)))
    }

    /// A freed address comes again only if no other has rested longer, or was never used.
    fn addresses(&mut self, index: u64, state: &State) -> Vec<String> {
        let (before, now) = (held(&self.state), held(state));
        self.freed.retain(|(network, _), _| state.networks.contains_key(network));
        for gone in before.difference(&now) {
            self.freed.insert(*gone, index);
        }
        let again: Vec<_> =
            now.difference(&before).filter_map(|taken| Some((*taken, self.freed.remove(taken)?))).collect();
        let did_not_rest = |((network, ip), since): &((NetworkId, IpAddr), u64)| {
            let pool = state.networks.get(network)?.pools.iter().find(|p| p.subnet().net.contains(ip))?;
            let here = |(n, other): &&(NetworkId, IpAddr)| n == network && pool.subnet().net.contains(other);
            let longer = self.freed.iter().any(|(address, at)| here(&address) && at < since);
            let touched = now.iter().filter(here).count() + self.freed.keys().filter(here).count();
            let fresh = (touched as u128) < pool.total();
            (longer || fresh)
                .then(|| format!("at entry {index}: {ip} on {network} was freed at {since}, and did not rest"))
        };
        again.iter().filter_map(did_not_rest).collect()
    }

    fn committed(&self, id: &LogId) -> bool {
        self.agreed.get(&id.index).is_some_and(|a| a.id == *id)
    }
}

fn ids(state: &State) -> BTreeSet<u64> {
    let nodes = state.nodes.keys().map(|id| id.0);
    let networks = state.networks.keys().map(|id| id.0);
    let services = state.services.keys().map(|id| id.0);
    let tasks = state.tasks.keys().map(|id| id.0);
    let containers = state.containers.keys().map(|id| id.0);
    nodes.chain(networks).chain(services).chain(tasks).chain(containers).collect()
}

/// Every address that somebody has.
fn held(state: &State) -> BTreeSet<(NetworkId, IpAddr)> {
    let tasks = state.tasks.values().flat_map(|t| t.endpoints.iter());
    let containers = state.containers.values().flat_map(|c| c.endpoints.iter());
    let mut held: BTreeSet<(NetworkId, IpAddr)> =
        tasks.chain(containers).flat_map(|e| e.addresses().map(move |ip| (e.network, ip))).collect();
    for service in state.services.values() {
        for (network, vip) in &service.vips {
            held.extend(vip.v4.map(|ip| (*network, IpAddr::V4(ip))));
            held.extend(vip.v6.map(|ip| (*network, IpAddr::V6(ip))));
        }
    }
    held
}

/// Everything that was acknowledged so far is at or before it.
pub(super) fn floor() -> u64 {
    with(|oracle| oracle.floor)
}

/// A client heard that its change is at this index.
pub(super) fn acknowledged(floor: u64, index: LogIndex, outcome: &Outcome) {
    let LogIndex(index) = index;
    let found = with(|oracle| {
        oracle.floor = oracle.floor.max(index);
        if index <= floor {
            return Some(format!("a change that was begun after entry {floor} is entry {index}"));
        }
        match oracle.agreed.get(&index) {
            None => Some(format!("entry {index} is acknowledged, and nobody has applied it")),
            Some(agreed) if agreed.answer.0.as_ref() != Some(outcome) => {
                Some(format!("entry {index} is acknowledged with another answer than apply gave"))
            }
            Some(_) => None,
        }
    });
    note(&format!("acknowledged {index}"));
    if let Some(what) = found {
        wrong(what);
    }
}

/// A client has read this, and began when `floor` was the last that was acknowledged.
pub(super) fn read(floor: u64, state: &State) {
    let LogIndex(at) = state.applied;
    let found = with(|oracle| {
        oracle.floor = oracle.floor.max(at);
        if at < floor {
            return Some(format!("a read shows entry {at}, and {floor} was acknowledged before it began"));
        }
        let agreed = oracle.agreed.get(&at)?;
        (agreed.digest != digest(state)).then(|| format!("a read at entry {at} shows another state than was applied"))
    });
    note(&format!("read {at}"));
    if let Some(what) = found {
        wrong(what);
    }
}

/// A version with this level runs on a host from now on.
pub(super) fn knows(node: NodeId, level: Level) {
    note(&format!("{node} knows level {level}"));
    with(|oracle| oracle.known.insert(node, level));
}

pub(super) fn level_of(node: NodeId) -> Level {
    with(|oracle| oracle.known.get(&node).copied().unwrap_or_default())
}

pub(super) fn leads(term: u64, node: NodeId) {
    let other = with(|oracle| *oracle.leaders.entry(term).or_insert(node));
    if other != node {
        wrong(format!("{other} and {node} both lead in term {term}"));
    }
}

/// A member has told another that it holds the log up to here.
pub(super) fn promised(node: NodeId, id: LogId) {
    with(|oracle| {
        let of = oracle.promised.entry(node).or_default();
        of.retain(|index, _| *index < id.index);
        of.insert(id.index, id);
        let kept = of.len().saturating_sub(64);
        let old: Vec<u64> = of.keys().take(kept).copied().collect();
        for index in old {
            of.remove(&index);
        }
    });
}

/// Its host has been taken out of the group, and begins with nothing.
pub(super) fn released(node: NodeId) {
    with(|oracle| {
        oracle.promised.remove(&node);
        oracle.has_let_go = true;
    });
}

pub(super) fn has_let_go() -> bool {
    with(|oracle| oracle.has_let_go)
}

/// The last committed entry that this member has told others to hold.
pub(super) fn owes(node: NodeId) -> Option<LogId> {
    with(|oracle| oracle.promised.get(&node)?.values().rev().find(|id| oracle.committed(id)).copied())
}

/// What is committed at this index.
pub(super) fn agreed(index: u64) -> Option<LogId> {
    with(|oracle| oracle.agreed.get(&index).map(|a| a.id))
}

pub(super) fn state() -> Arc<State> {
    with(|oracle| Arc::clone(&oracle.state))
}

pub(super) fn voters() -> Vec<BTreeSet<u64>> {
    with(|oracle| oracle.voters.clone())
}
