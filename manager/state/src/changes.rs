//! The entry of the log at which each node's assignment changed last.
//!
//! After each entry, the rows that changed are projected from the state before and from the state after. Only where the
//! two projections differ is a node touched. So no case can be forgotten, and a stream of any other node does nothing.

use imbl::ordmap::DiffItem;
use serde::{Deserializer, de::IgnoredAny};
use shoal_common::{LogIndex, NetworkId, NodeId, ServiceId, Subnet, TaskId, node::Role};
use std::{collections::BTreeSet, sync::Arc};

use crate::{
    assign::{container_assignment, ingress_host, on_network, task_assignment},
    state::{Container, Network, Node, Service, State, Task},
    table::Table,
    visible::Visible,
};

/// At which entry each was touched last. What is missing was never.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// The last change that touched every node, such as a manager's new address. `None` in a state that was read from a
    /// snapshot: earlier changes are not known.
    all: Option<LogIndex>,
    nodes: Table<NodeId, LogIndex>,
    networks: Table<NetworkId, LogIndex>,
}

/// Managers that started from different snapshots agree all the same.
impl PartialEq for Changes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Changes {
    /// Earlier versions had them in their snapshots.
    pub(crate) fn unknown<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::Deserialize::deserialize(from).map(|IgnoredAny| Self::default())
    }
}

/// The nodes that one entry touches: all, some, or those on some networks.
#[derive(Debug, Default)]
struct Touched {
    all: bool,
    nodes: BTreeSet<NodeId>,
    networks: BTreeSet<NetworkId>,
}

/// Rows of [`Visible`] that have to be made again before their nodes are known.
#[derive(Debug, Default)]
struct Stale {
    endpoints: BTreeSet<(NetworkId, TaskId)>,
    underlays: BTreeSet<NetworkId>,
    ingress: BTreeSet<ServiceId>,
}

impl State {
    /// When the node's assignment changed last, if these are the networks in it; later, if that is not known.
    pub fn changed_at(&self, node: NodeId, networks: impl Iterator<Item = NetworkId>) -> LogIndex {
        let Some(all) = self.changes.all else { return self.applied };
        let of_node = self.changes.nodes.get(&node).copied();
        let of_networks = networks.filter_map(|id| self.changes.networks.get(&id).copied());
        of_networks.chain(of_node).fold(all, LogIndex::max)
    }

    pub(crate) fn note_changes(&mut self, before: &State, at: LogIndex) {
        let mut visible = before.visible().clone();
        let touched = self.touched(before, &mut visible);
        self.visible = visible.into();
        if touched.all || self.changes.all.is_none() {
            self.changes.all = Some(at);
        }
        for node in touched.nodes {
            match self.nodes.contains_key(&node) {
                true => drop(self.changes.nodes.insert(node, at)),
                false => drop(self.changes.nodes.remove(&node)),
            }
        }
        for network in touched.networks {
            match self.networks.contains_key(&network) {
                true => drop(self.changes.networks.insert(network, at)),
                false => drop(self.changes.networks.remove(&network)),
            }
        }
    }

    fn touched(&self, before: &State, visible: &mut Visible) -> Touched {
        let (mut touched, mut stale) = (Touched::default(), Stale::default());
        for row in before.tasks.diff(&self.tasks) {
            self.task(before, sides(&row), &mut touched, &mut stale);
        }
        for row in before.containers.diff(&self.containers) {
            let [old, new] = sides(&row);
            let shown = |state, container: Option<&Arc<Container>>| container.map(|c| container_assignment(state, c));
            if shown(before, old) != shown(self, new) {
                touched.nodes.extend(both([old, new]).map(|c| c.node));
            }
            stale.endpoints.extend(both([old, new]).flat_map(|c| c.endpoints.iter().map(|e| (e.network, c.id))));
        }
        for row in before.services.diff(&self.services) {
            service(sides(&row), &mut touched, &mut stale);
        }
        for row in before.networks.diff(&self.networks) {
            let [old, new] = sides(&row);
            if old.map(shown) != new.map(shown) {
                for network in both([old, new]) {
                    let on = network.spec.driver.node();
                    visible.look_at_network(self, network.id, on);
                    touched.networks.insert(network.id);
                    touched.nodes.extend(on);
                }
            }
        }
        for row in before.nodes.diff(&self.nodes) {
            self.node(before, sides(&row), &mut touched, &mut stale);
        }
        for (network, id) in stale.endpoints {
            if visible.look_at_endpoint(self, network, id) {
                touched.networks.insert(network);
            }
        }
        for network in stale.underlays {
            if visible.look_at_underlay(self, network) {
                touched.networks.insert(network);
            }
        }
        for service in stale.ingress {
            touched.all |= visible.look_at_ingress(self, service);
        }
        let port = |state: &State| state.cluster.as_ref().map(|cluster| cluster.settings.data_path_port);
        touched.all |= port(before) != port(self);
        touched
    }

    fn task(&self, before: &State, sides: [Option<&Arc<Task>>; 2], touched: &mut Touched, stale: &mut Stale) {
        let shown = |task: Option<&Arc<Task>>| {
            task.filter(|t| t.node.is_some() && !t.status.state.is_terminal())
                .map(|task| (task.node, task_assignment(task)))
        };
        let [old, new] = sides;
        if shown(old) != shown(new) {
            touched.nodes.extend(both(sides).filter_map(|task| task.node));
        }
        stale.endpoints.extend(both(sides).flat_map(|task| task.endpoints.iter().map(|e| (e.network, task.id))));
        let place = |task: Option<&Arc<Task>>| task.and_then(|task| task.ingress_place());
        if place(old) != place(new) {
            let publishes = |id: &ServiceId| self.publishing.contains(id) || before.publishing.contains(id);
            stale.ingress.extend(both(sides).map(|task| task.service).filter(publishes));
        }
    }

    fn node(&self, before: &State, sides: [Option<&Node>; 2], touched: &mut Touched, stale: &mut Stale) {
        let [old, new] = sides;
        let Some(id) = both(sides).map(|node| node.id).next() else { return };
        let manager =
            |node: Option<&Node>| node.filter(|n| n.role == Role::Manager).map(|n| n.description.control_addr);
        touched.all |= manager(old) != manager(new);
        if old.map(|n| n.role) != new.map(|n| n.role) {
            touched.nodes.insert(id);
        }
        // Others send to what is on it.
        let tasks = || self.tasks_of_node(id).chain(before.tasks_of_node(id));
        let on_it = || {
            let containers = self.containers_of_node(id).chain(before.containers_of_node(id));
            let of_tasks = tasks().flat_map(|t| t.endpoints.iter().map(|e| (e.network, t.id)));
            of_tasks.chain(containers.flat_map(|c| c.endpoints.iter().map(|e| (e.network, c.id))))
        };
        let vtep = |node: Option<&Node>| node.map(|n| n.description.vtep);
        if vtep(old) != vtep(new) {
            stale.endpoints.extend(on_it());
        }
        // And no more at once than it takes.
        let mtu = |node: Option<&Node>| node.map(|n| n.description.underlay_mtu);
        if mtu(old) != mtu(new) {
            stale.underlays.extend(on_it().map(|(network, _)| network));
        }
        if old.map(ingress_host) != new.map(ingress_host) {
            stale.ingress.extend(tasks().map(|task| task.service));
        }
    }
}

fn service(sides: [Option<&Service>; 2], touched: &mut Touched, stale: &mut Stale) {
    let networks = both(sides).flat_map(|service| service.spec.networks.iter().map(|a| a.network));
    for network in networks.collect::<BTreeSet<_>>() {
        let is_on = |service: &&Service| service.spec.networks.iter().any(|a| a.network == network);
        let [old, new] = sides.map(|service| service.filter(is_on).map(|service| on_network(service, network)));
        if old != new {
            touched.networks.insert(network);
        }
    }
    let [old, new] = sides.map(|service| service.map_or(&[][..], |s| &s.ingress[..]));
    if old != new {
        stale.ingress.extend(both(sides).map(|service| service.id));
    }
}

/// The part of a network that is in assignments. The addresses that are in use are not.
fn shown(network: &Network) -> impl PartialEq {
    let subnets: Vec<Subnet> = network.subnets().cloned().collect();
    (network.spec.clone(), network.vni, subnets)
}

/// What a row was, and what it is.
fn sides<'a, V>(row: &DiffItem<'a, 'a, impl Ord, V>) -> [Option<&'a V>; 2] {
    match row {
        DiffItem::Add(_, new) => [None, Some(*new)],
        DiffItem::Remove(_, old) => [Some(*old), None],
        DiffItem::Update { old: (_, old), new: (_, new) } => [Some(*old), Some(*new)],
    }
}

/// Both that there are.
fn both<V>(sides: [Option<&V>; 2]) -> impl Iterator<Item = &V> {
    sides.into_iter().flatten()
}
