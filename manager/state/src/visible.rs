//! What many hosts are told, made once for all of them: it follows from the rest of the state.
//!
//! Whatever changes the state brings it up to date, which costs what changed; so it also says which hosts have to hear
//! of a change at all. It is in no snapshot: who reads one makes it anew.

use shoal_common::{
    NetworkId, NodeId, ServiceId, TaskId,
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
pub(crate) struct Visible {
    endpoints: Table<NetworkId, Endpoints>,
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
        self.endpoints.get(&network).cloned().unwrap_or_default()
    }

    pub(crate) fn ingress(&self) -> impl Iterator<Item = (&ServiceId, &Arc<IngressAssignment>)> {
        self.ingress.iter()
    }

    pub(crate) fn networks_of(&self, node: NodeId) -> impl Iterator<Item = NetworkId> {
        self.local.range((node, NetworkId(0))..=(node, NetworkId(u64::MAX))).map(|(_, network)| *network)
    }

    /// Whether hosts see another endpoint than before, or see one that they did not.
    pub(crate) fn look_at_endpoint(&mut self, state: &State, network: NetworkId, id: TaskId) -> bool {
        let now = assign::endpoint(state, network, id);
        let before = self.endpoints.get(&network).and_then(|rows| rows.get(&id));
        if before.map(Arc::as_ref) == now.as_ref() {
            return false;
        }
        let mut rows = self.endpoints(network);
        match now {
            Some(row) => drop(rows.insert(id, Arc::new(row))),
            None => drop(rows.remove(&id)),
        }
        match rows.is_empty() {
            true => drop(self.endpoints.remove(&network)),
            false => drop(self.endpoints.insert(network, rows)),
        }
        true
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
