//! The invariants as a function: everything that is kept twice agrees, and nothing is held twice.

use shoal_common::{Name, NetworkId, NodeId, ServiceId, TaskId, network::Driver, task::Slot};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
};

use crate::{
    ipam::{places::wants_vips, subnets::overlap},
    state::{Network, State, Task},
    visible::Visible,
};

/// What must never be, in sentences; empty in every state that `apply` can reach.
pub fn violations(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    if state.cluster.is_some() && state.managers().next().is_none() {
        found.push("no node is a manager".to_owned());
    }
    ids(state, &mut found);
    names(state, &mut found);
    networks(state, &mut found);
    addresses(state, &mut found);
    tasks(state, &mut found);
    ports(state, &mut found);
    indexes(state, &mut found);
    found
}

fn ids(state: &State, found: &mut Vec<String>) {
    let rows = state.nodes.iter().map(|(k, v)| (k.0, v.id.0));
    let rows = rows.chain(state.networks.iter().map(|(k, v)| (k.0, v.id.0)));
    let rows = rows.chain(state.services.iter().map(|(k, v)| (k.0, v.id.0)));
    let rows = rows.chain(state.tasks.iter().map(|(k, v)| (k.0, v.id.0)));
    let rows = rows.chain(state.containers.iter().map(|(k, v)| (k.0, v.id.0)));
    let mut seen = BTreeSet::new();
    for (key, id) in rows {
        if key != id || id > state.last_id || !seen.insert(id) {
            found.push(format!("id {id} under key {key} is amiss; the last one given out is {}", state.last_id));
        }
    }
}

fn names(state: &State, found: &mut Vec<String>) {
    let services: BTreeSet<&Name> = state.services.values().map(|s| &s.spec.name).collect();
    if services.len() != state.services.len() {
        found.push("two services bear one name".to_owned());
    }
    let meet = |a: &Network, b: &Network| match (a.spec.driver.node(), b.spec.driver.node()) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    };
    for network in state.networks.values() {
        let twin = |n: &&Network| n.id > network.id && n.name() == network.name() && meet(n, network);
        if let Some(twin) = state.networks.values().find(twin) {
            found.push(format!("{} and {} bear one name", network.id, twin.id));
        }
    }
    let containers: BTreeSet<(NodeId, &Name)> = state.containers.values().map(|c| (c.node, &c.spec.name)).collect();
    if containers.len() != state.containers.len() {
        found.push("two containers of one node bear one name".to_owned());
    }
    let keys: Vec<&str> =
        state.nodes.values().map(|n| n.public_key_sha256.as_str()).filter(|k| !k.is_empty()).collect();
    if keys.iter().collect::<BTreeSet<_>>().len() != keys.len() {
        found.push("two nodes have one public key".to_owned());
    }
}

fn networks(state: &State, found: &mut Vec<String>) {
    let overlays = state.networks.values().filter(|n| matches!(n.spec.driver, Driver::Overlay)).count();
    let vnis: BTreeSet<_> = state.networks.values().filter_map(|n| n.vni).collect();
    if vnis.len() != overlays {
        found.push("two overlays share a VNI, or one has none".to_owned());
    }
    for network in state.networks.values() {
        let v4 = network.subnets().filter(|s| s.net.addr().is_ipv4()).count();
        let v6 = network.subnets().count() - v4;
        if v4 != 1 || v6 > 1 {
            found.push(format!("{} has {v4} IPv4 and {v6} IPv6 subnets", network.id));
        }
        // Ids ascend, so the later one is the one that had to say that it means it.
        let on = network.spec.driver.node();
        let meets = |n: &Network| n.spec.driver.node().is_none_or(|node| on.is_none_or(|on| on == node));
        for later in state.networks.values().filter(|n| n.id > network.id && !n.spec.allow_overlap && meets(n)) {
            let clash = network.subnets().any(|a| later.subnets().any(|b| overlap(a.net, b.net)));
            if clash {
                found.push(format!("{} overlaps {} and does not say that it is meant", later.id, network.id));
            }
        }
    }
}

fn addresses(state: &State, found: &mut Vec<String>) {
    let mut held: BTreeMap<NetworkId, BTreeSet<IpAddr>> = BTreeMap::new();
    let endpoints = state
        .tasks
        .values()
        .flat_map(|t| t.endpoints.iter().flat_map(move |e| e.addresses().map(move |ip| (e.network, ip))));
    let vips = state.services.values().flat_map(|s| {
        s.vips.iter().flat_map(|(n, vip)| {
            vip.v4.map(IpAddr::V4).into_iter().chain(vip.v6.map(IpAddr::V6)).map(move |ip| (*n, ip))
        })
    });
    let by_hand = state
        .containers
        .values()
        .flat_map(|c| c.endpoints.iter().flat_map(move |e| e.addresses().map(move |ip| (e.network, ip))));
    for (network, ip) in endpoints.chain(by_hand).chain(vips) {
        if !held.entry(network).or_default().insert(ip) {
            found.push(format!("{ip} is held twice on {network}"));
        }
        let known = state.networks.get(&network).is_some_and(|n| n.pools.iter().any(|p| p.is_used(ip)));
        if !known {
            found.push(format!("{ip} is held on {network}, which does not know of it"));
        }
    }
    for network in state.networks.values() {
        let used: u64 = network.pools.iter().map(|p| p.used()).sum();
        let held = held.get(&network.id).map_or(0, BTreeSet::len);
        if used != held as u64 {
            found.push(format!("{used} addresses of {} are in use, but {held} are held", network.id));
        }
        let broken = network.pools.iter().filter_map(|p| p.violation());
        found.extend(broken.map(|what| format!("{}: {what}", network.id)));
    }
    for service in state.services.values() {
        let has: BTreeSet<NetworkId> = service.vips.keys().copied().collect();
        let wants = service.spec.networks.iter().map(|a| a.network).filter(|_| wants_vips(&service.spec)).collect();
        if has != wants {
            found.push(format!("{} has VIPs on {has:?} and wants them on {wants:?}", service.id));
        }
    }
}

fn tasks(state: &State, found: &mut Vec<String>) {
    for task in state.tasks.values() {
        let on: Vec<NetworkId> = task.endpoints.iter().map(|e| e.network).collect();
        let wants: Vec<NetworkId> = task.networks.iter().map(|a| a.network).collect();
        let holds = task.node.is_some() && !task.status.state.is_terminal();
        if on != if holds { wants } else { Vec::new() } {
            found.push(format!("{} is {} and has endpoints on {on:?}", task.id, task.status.state));
        }
        if holds && !task.node.is_some_and(|n| state.nodes.contains_key(&n)) {
            found.push(format!("{} is {} on a node that is gone", task.id, task.status.state));
        }
        if task.is_live() && !state.services.contains_key(&task.service) {
            found.push(format!("{} is wanted, but its service is gone", task.id));
        }
    }
    for container in state.containers.values() {
        let on = container.endpoints.iter().map(|e| e.network);
        if !on.eq(container.spec.attachments().iter().map(|a| a.network)) {
            found.push(format!("{} is not on the networks that it has joined", container.id));
        }
        if !state.nodes.contains_key(&container.node) {
            found.push(format!("{} is on a node that is gone", container.id));
        }
        let links: BTreeSet<u8> = container.endpoints.iter().map(|e| e.link).collect();
        if links.len() != container.endpoints.len() {
            found.push(format!("{} has two links of one name", container.id));
        }
    }
    let live = state.tasks.values().filter(|t| t.is_live()).count();
    if live != state.slots.len() {
        found.push(format!("{live} tasks are live, but {} slots are held", state.slots.len()));
    }
}

/// On no host one port has two owners.
fn ports(state: &State, found: &mut Vec<String>) {
    for node in state.nodes.keys() {
        let containers = state.containers_of_node(*node).flat_map(|c| c.ports.iter().map(|p| (c.id.to_string(), *p)));
        let tasks = state.tasks_of_node(*node).flat_map(|t| t.ports.iter().map(|p| (t.id.to_string(), *p)));
        let services = state.services.values();
        let services = services.flat_map(|s| s.ingress.iter().map(|p| (s.id.to_string(), p.on_a_host())));
        let all: Vec<_> = containers.chain(tasks).chain(services).collect();
        for (n, (holder, port)) in all.iter().enumerate() {
            let others = all.iter().skip(n + 1).filter(|(_, other)| other.clashes(port));
            found.extend(others.map(|(other, _)| format!("port {port} of {node} is that of {holder} and of {other}")));
        }
    }
}

fn indexes(state: &State, found: &mut Vec<String>) {
    let tasks = || state.tasks.values();
    let by_node: BTreeSet<(NodeId, TaskId)> = tasks().filter_map(|t| Some((t.node?, t.id))).collect();
    agree("tasks by node", &by_node, state.tasks_by_node.iter(), found);
    let by_service: BTreeSet<(ServiceId, TaskId)> = tasks().map(|t| (t.service, t.id)).collect();
    agree("tasks by service", &by_service, state.tasks_by_service.iter(), found);
    let containers = || state.containers.values();
    let by_hand: BTreeSet<(NodeId, TaskId)> = containers().map(|c| (c.node, c.id)).collect();
    agree("containers by node", &by_hand, state.containers_by_node.iter(), found);
    let by_network = tasks().flat_map(|t| t.endpoints.iter().map(|e| (e.network, t.id)));
    let by_network =
        by_network.chain(containers().flat_map(|c| c.endpoints.iter().map(|e| (e.network, c.id)))).collect();
    agree("tasks by network", &by_network, state.tasks_by_network.iter(), found);
    let services = state.services.values().flat_map(|s| s.spec.networks.iter().map(|a| (a.network, s.id))).collect();
    agree("services by network", &services, state.services_by_network.iter(), found);
    let live = |t: &&std::sync::Arc<Task>| t.is_live();
    let publishing: BTreeSet<ServiceId> =
        state.services.values().filter(|s| !s.ingress.is_empty()).map(|s| s.id).collect();
    agree("services that publish", &publishing, state.publishing.iter(), found);
    let slots: BTreeSet<((ServiceId, Slot), TaskId)> =
        tasks().filter(live).map(|t| ((t.service, t.slot), t.id)).collect();
    let held: Vec<_> = state.slots.iter().map(|(slot, task)| (*slot, *task)).collect();
    agree("slots", &slots, held.iter(), found);

    let mut places: BTreeMap<(NetworkId, String), u64> = BTreeMap::new();
    for container in containers() {
        for endpoint in &container.endpoints {
            *places.entry((endpoint.network, format!("container {}", container.spec.name))).or_default() += 1;
        }
    }
    for task in tasks() {
        for endpoint in &task.endpoints {
            *places.entry((endpoint.network, format!("service {}", task.service_name))).or_default() += 1;
        }
    }
    for service in state.services.values() {
        for network in service.vips.keys() {
            *places.entry((*network, format!("service {}", service.spec.name))).or_default() += 1;
        }
    }
    let held: Vec<_> = state.holders.iter().map(|(who, places)| (who.clone(), *places)).collect();
    agree("holders", &places.into_iter().collect(), held.iter(), found);

    let answers: BTreeSet<_> = state.answers.keys().copied().collect();
    agree("answers", &answers, state.answer_order.iter(), found);

    if *state.visible() != Visible::of(state) {
        found.push("what hosts are told is not what the state says".to_owned());
    }
}

fn agree<'a, T: Ord + Debug + 'a>(
    what: &str,
    rows: &BTreeSet<T>,
    index: impl Iterator<Item = &'a T>,
    found: &mut Vec<String>,
) {
    let index: BTreeSet<&T> = index.collect();
    let rows: BTreeSet<&T> = rows.iter().collect();
    if let Some(odd) = rows.symmetric_difference(&index).next() {
        found.push(format!("the index of {what} and the rows disagree on {odd:?}"));
    }
}
