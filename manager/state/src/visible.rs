//! Rows that many hosts share: made once, and derived from the rest of the state.
//!
//! Each entry of the log updates the rows that it changed, and learns by that which networks it touches. No snapshot holds
//! these rows: a state that was read from one makes them when they are first needed.

use shoal_common::{
    Mtu, NetworkId, NodeId, ServiceId, TaskId,
    assignment::{EndpointAssignment, IngressAssignment},
};
use std::sync::{Arc, OnceLock};

use crate::{
    assign,
    state::State,
    table::{Index, Table},
};

/// Whoever is on one network.
pub(crate) type Endpoints = Table<TaskId, Arc<EndpointAssignment>>;

#[derive(Debug, Clone, Default, PartialEq)]
struct OnNetwork {
    endpoints: Endpoints,
    /// How many of them each host has.
    hosts: Table<NodeId, u32>,
    /// The least of the underlays of these hosts.
    underlay: Option<Mtu>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Visible {
    networks: Table<NetworkId, OnNetwork>,
    ingress: Table<ServiceId, Arc<IngressAssignment>>,
    /// Networks that are on one host only, whether somebody is on them or not.
    local: Index<(NodeId, NetworkId)>,
}

/// Not made yet, of a state that was read; the same for all clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Made(Arc<OnceLock<Visible>>);

/// It follows from the rest.
impl PartialEq for Made {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl From<Visible> for Made {
    fn from(visible: Visible) -> Self {
        Self(Arc::new(visible.into()))
    }
}

impl State {
    pub(crate) fn visible(&self) -> &Visible {
        self.visible.0.get_or_init(|| Visible::of(self))
    }
}

impl Visible {
    /// All of it, from nothing.
    pub(crate) fn of(state: &State) -> Self {
        let mut visible = Self::default();
        for (network, id) in &state.tasks_by_network {
            visible.look_at_endpoint(state, *network, *id);
        }
        for service in &state.publishing {
            visible.look_at_ingress(state, *service);
        }
        for network in state.networks.values() {
            if let Some(node) = network.spec.driver.node() {
                visible.local.insert((node, network.id));
            }
        }
        visible
    }

    pub(crate) fn endpoints(&self, network: NetworkId) -> Endpoints {
        self.networks.get(&network).map(|on| on.endpoints.clone()).unwrap_or_default()
    }

    /// `None`: there is nobody on it.
    pub(crate) fn underlay(&self, network: NetworkId) -> Option<Mtu> {
        self.networks.get(&network)?.underlay
    }

    pub(crate) fn ingress(&self) -> impl Iterator<Item = (&ServiceId, &Arc<IngressAssignment>)> {
        self.ingress.iter()
    }

    pub(crate) fn networks_of(&self, node: NodeId) -> impl Iterator<Item = NetworkId> {
        self.local.range((node, NetworkId(0))..=(node, NetworkId(u64::MAX))).map(|(_, network)| *network)
    }

    /// Whether hosts see another endpoint than before, or see one that they did not.
    pub(crate) fn look_at_endpoint(&mut self, state: &State, network: NetworkId, id: TaskId) -> bool {
        let now = assign::endpoint(state, network, id).map(Arc::new);
        let mut on = self.networks.get(&network).cloned().unwrap_or_default();
        let before = match &now {
            Some(row) => on.endpoints.insert(id, Arc::clone(row)),
            None => on.endpoints.remove(&id),
        };
        if before == now {
            return false;
        }
        let [before, now] = [before, now].map(|row| row.map(|row| row.node));
        if before != now {
            on.count(before, now);
            on.underlay = match (before, now) {
                (None, Some(node)) => on.underlay.into_iter().chain(underlay(state, node)).min(),
                (Some(_), _) | (None, None) => on.least(state),
            };
        }
        self.put(network, on);
        true
    }

    /// Whether packets on the network have to be of another size, after a host's underlay changed.
    pub(crate) fn look_at_underlay(&mut self, state: &State, network: NetworkId) -> bool {
        let Some(on) = self.networks.get(&network) else { return false };
        let now = on.least(state);
        if now == on.underlay {
            return false;
        }
        let on = OnNetwork { underlay: now, ..on.clone() };
        self.put(network, on);
        true
    }

    fn put(&mut self, network: NetworkId, on: OnNetwork) {
        match on.endpoints.is_empty() {
            true => drop(self.networks.remove(&network)),
            false => drop(self.networks.insert(network, on)),
        }
    }

    /// Whether hosts see the ports of this service lead elsewhere.
    pub(crate) fn look_at_ingress(&mut self, state: &State, service: ServiceId) -> bool {
        let publishing = state.services.get(&service).filter(|s| state.publishing.contains(&s.id));
        let now = publishing.map(|service| assign::ingress(state, service));
        if self.ingress.get(&service).map(Arc::as_ref) == now.as_ref() {
            return false;
        }
        match now {
            Some(row) => drop(self.ingress.insert(service, Arc::new(row))),
            None => drop(self.ingress.remove(&service)),
        }
        true
    }

    pub(crate) fn look_at_network(&mut self, state: &State, network: NetworkId, on: Option<NodeId>) {
        let Some(node) = on else { return };
        match state.networks.contains_key(&network) {
            true => drop(self.local.insert((node, network))),
            false => drop(self.local.remove(&(node, network))),
        }
    }
}

impl OnNetwork {
    fn count(&mut self, before: Option<NodeId>, now: Option<NodeId>) {
        if let Some(node) = before {
            match self.hosts.get(&node).copied().unwrap_or_default() {
                0 | 1 => drop(self.hosts.remove(&node)),
                more => drop(self.hosts.insert(node, more - 1)),
            }
        }
        if let Some(node) = now {
            *self.hosts.entry(node).or_default() += 1;
        }
    }

    fn least(&self, state: &State) -> Option<Mtu> {
        self.hosts.keys().filter_map(|id| underlay(state, *id)).min()
    }
}

fn underlay(state: &State, node: NodeId) -> Option<Mtu> {
    state.nodes.get(&node).map(|node| node.description.underlay_mtu)
}
