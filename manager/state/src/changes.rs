//! Whom a change concerns: at which entry of the log a node's assignment may have changed last.
//!
//! It is found by comparing the state before with the state after, which costs what changed: so there is no case that
//! somebody could have forgotten, and thousands of hosts are asked about nothing but their own.

use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};
use shoal_common::{LogIndex, NetworkId, NodeId, TaskId, node::Role};
use std::{collections::BTreeSet, sync::Arc};

use crate::{
    state::{Container, Node, State, Task},
    table::Table,
};

/// At which entry each was touched last. What is missing was never.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    /// What every node is told: where managers are.
    all: LogIndex,
    nodes: Table<NodeId, LogIndex>,
    networks: Table<NetworkId, LogIndex>,
}

#[derive(Debug, Default)]
struct Touched {
    all: bool,
    nodes: BTreeSet<NodeId>,
    networks: BTreeSet<NetworkId>,
}

impl State {
    /// Never later than the node's assignment changed, if these are the networks in it.
    pub fn changed_at(&self, node: NodeId, networks: impl Iterator<Item = NetworkId>) -> LogIndex {
        let of_node = self.changes.nodes.get(&node).copied();
        let of_networks = networks.filter_map(|id| self.changes.networks.get(&id).copied());
        of_networks.chain(of_node).fold(self.changes.all, LogIndex::max)
    }

    pub(crate) fn note_changes(&mut self, before: &State, at: LogIndex) {
        let touched = self.touched(before);
        if touched.all {
            self.changes.all = at;
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

    fn touched(&self, before: &State) -> Touched {
        let mut touched = Touched::default();
        for row in before.tasks.diff(&self.tasks) {
            for task in both(&row) {
                touched.task(task);
            }
            touched.all |= self.moves_ingress(before, &row);
        }
        for row in before.containers.diff(&self.containers) {
            for container in both(&row) {
                touched.container(container);
            }
        }
        for row in before.services.diff(&self.services) {
            for service in both(&row) {
                touched.networks.extend(service.spec.networks.iter().map(|a| a.network));
            }
            let ports = sides(&row).map(|service| service.map_or(&[][..], |s| &s.ingress[..]));
            touched.all |= ports[0] != ports[1];
        }
        for row in before.networks.diff(&self.networks) {
            for network in both(&row) {
                touched.networks.insert(network.id);
                touched.nodes.extend(network.spec.driver.node());
            }
        }
        for row in before.nodes.diff(&self.nodes) {
            self.node(&row, &mut touched);
        }
        if before.cluster != self.cluster || before.level != self.level {
            touched.all = true;
        }
        touched
    }

    /// Whether every host must hear of it, because a port of the cluster leads elsewhere.
    fn moves_ingress(&self, before: &State, row: &DiffItem<'_, '_, TaskId, Arc<Task>>) -> bool {
        let publishes =
            |task: &Arc<Task>| self.publishing.contains(&task.service) || before.publishing.contains(&task.service);
        let place = |task: Option<&Arc<Task>>| task.filter(|task| publishes(task)).and_then(|t| t.ingress_place());
        let [old, new] = sides(row).map(place);
        old != new
    }

    fn node(&self, row: &DiffItem<'_, '_, NodeId, Node>, touched: &mut Touched) {
        let is_manager = |node: &&Node| node.role == Role::Manager;
        let [old, new] = sides(row);
        let addresses = |node: Option<&Node>| node.map(|n| n.description.addresses.clone()).unwrap_or_default();
        touched.all |= !self.publishing.is_empty() && addresses(old) != addresses(new);
        let manager = |node: Option<&Node>| node.filter(is_manager).map(|n| n.description.control_addr);
        touched.all |= manager(old) != manager(new);
        touched.nodes.extend(both(row).map(|n| n.id));
        // Others send to what is on it, and no more at once than it takes.
        let reached = |node: Option<&Node>| node.map(|n| (n.description.vtep, n.description.underlay_mtu));
        if reached(old) != reached(new) {
            let id = both(row).map(|n| n.id).next();
            let tasks = id.into_iter().flat_map(|id| self.tasks_of_node(id)).flat_map(|t| &t.endpoints);
            let containers = id.into_iter().flat_map(|id| self.containers_of_node(id)).flat_map(|c| &c.endpoints);
            touched.networks.extend(tasks.chain(containers).map(|e| e.network));
        }
    }
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
fn both<'a, V>(row: &DiffItem<'a, 'a, impl Ord, V>) -> impl Iterator<Item = &'a V> {
    sides(row).into_iter().flatten()
}

impl Touched {
    fn task(&mut self, task: &Task) {
        self.nodes.extend(task.node);
        self.networks.extend(task.endpoints.iter().map(|e| e.network));
    }

    fn container(&mut self, container: &Container) {
        self.nodes.insert(container.node);
        self.networks.extend(container.endpoints.iter().map(|e| e.network));
    }
}
