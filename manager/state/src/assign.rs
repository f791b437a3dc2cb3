//! What one node must know: a projection of the state, with no memory of its own. It costs what it returns.

use shoal_common::{
    Name, NetworkId, NodeId, ServiceId, TaskId,
    assignment::{
        Assignment, EndpointAssignment, NetworkAssignment, NodeAssignment, ServiceAssignment, TaskAssignment,
    },
};
use std::collections::{BTreeMap, BTreeSet};

use crate::state::{Network, Node, Service, State, Task};

/// `None` for a node that is not, or no longer, of the cluster.
pub fn assignment(state: &State, node: NodeId) -> Option<Assignment> {
    let cluster = state.cluster.as_ref()?;
    let of = state.nodes.get(&node)?;
    let tasks: BTreeMap<TaskId, TaskAssignment> = state
        .tasks_of_node(node)
        .filter(|t| !t.status.state.is_terminal())
        .map(|t| (t.id, task_assignment(t)))
        .collect();
    let on: BTreeSet<NetworkId> = tasks.values().flat_map(|t| t.endpoints.iter().map(|e| e.network)).collect();
    let networks = || on.iter().filter_map(|id| state.networks.get(id));
    Some(Assignment {
        generation: state.applied.into(),
        node: Some(NodeAssignment {
            id: of.id,
            role: of.role,
            data_path_port: cluster.settings.data_path_port,
            managers: state.managers().map(|m| (m.id, m.description.control_addr)).collect(),
        }),
        networks: networks().map(|n| (n.id, network_assignment(n))).collect(),
        endpoints: networks().flat_map(|n| endpoints(state, n.id)).collect(),
        services: networks().flat_map(|n| services(state, n.id)).collect(),
        tasks,
    })
}

fn network_assignment(network: &Network) -> NetworkAssignment {
    NetworkAssignment {
        name: network.name().clone(),
        vni: network.vni,
        subnets: network.subnets().cloned().collect(),
        internal: network.spec.internal,
        mtu: network.spec.mtu,
    }
}

fn endpoints(state: &State, network: NetworkId) -> impl Iterator<Item = ((NetworkId, TaskId), EndpointAssignment)> {
    state.tasks_of_network(network).filter_map(move |task| {
        let on: &Node = state.nodes.get(&task.node?)?;
        let endpoint = task.endpoints.iter().find(|e| e.network == network)?;
        let assignment = EndpointAssignment {
            endpoint: endpoint.clone(),
            node: on.id,
            vtep: on.description.vtep,
            service: task.service,
            slot: task.slot,
            task_name: task.name(),
            aliases: hostname_alias(task).into_iter().collect(),
            serving: task.is_serving(),
        };
        Some(((network, task.id), assignment))
    })
}

/// Names compare without case, and a hostname that is no label is no name.
fn hostname_alias(task: &Task) -> Option<String> {
    let hostname = task.container.hostname.as_ref()?.to_ascii_lowercase();
    hostname.parse::<Name>().ok().map(|name| name.to_string())
}

fn services(state: &State, network: NetworkId) -> impl Iterator<Item = ((NetworkId, ServiceId), ServiceAssignment)> {
    state.services_of_network(network).map(move |service: &Service| {
        let vip = service.vips.get(&network).copied().unwrap_or_default();
        let attachment = service.spec.networks.iter().find(|a| a.network == network);
        let assignment = ServiceAssignment {
            name: service.spec.name.clone(),
            aliases: attachment.map(|a| a.aliases.clone()).unwrap_or_default(),
            mode: service.spec.endpoint_mode,
            vip4: vip.v4,
            vip6: vip.v6,
            ports: service.spec.container.ports.clone(),
        };
        ((network, service.id), assignment)
    })
}

fn task_assignment(task: &Task) -> TaskAssignment {
    TaskAssignment {
        service: task.service,
        service_name: task.service_name.clone(),
        slot: task.slot,
        name: task.name(),
        container: task.container.clone(),
        resources: task.resources,
        endpoints: task.endpoints.clone(),
        desired: task.desired,
        known: task.status.state,
        spec_version: task.spec_version,
    }
}
