//! What one host must know. Its maps travel as lists whose entries hold their keys; a key that comes twice is
//! refused, because then the two sides would not hold the same.

use crate::pb;
use shoal_common::{
    Generation, Invalid, LogIndex, Mtu, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
    assignment::{
        Assignment, AssignmentDelta, ContainerAssignment, EndpointAssignment, IngressAssignment, IngressHost,
        LinkAssignment, MapDelta, NetworkAssignment, NetworkKind, NodeAssignment, ServiceAssignment, TaskAssignment,
    },
    container::PublishedPort,
};
use std::{collections::BTreeMap, fmt::Debug, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    container::ports,
    field::{
        A_SOCKET_ADDRESS, AN_IPV4_ADDRESS, AN_IPV6_ADDRESS, Inside, address, enumerated, id, message, millis,
        not_empty, parsed, port, read, read_unless_empty, required, text,
    },
    network::{bridge_options, mtu},
    run::{exposed, run_spec},
};

impl TryFrom<pb::NodeAssignment> for NodeAssignment {
    type Error = Invalid;

    fn try_from(n: pb::NodeAssignment) -> Result<Self, Invalid> {
        Ok(Self {
            id: id("id", n.id, NodeId)?,
            role: enumerated::<pb::Role, _>("role", n.role)?,
            data_path_port: port("data_path_port", n.data_path_port)?,
            managers: managers(&n.managers)?,
        })
    }
}

/// Where each manager listens.
pub fn managers(on_wire: &BTreeMap<u64, String>) -> Result<BTreeMap<NodeId, SocketAddr>, Invalid> {
    on_wire
        .iter()
        .map(|(k, addr)| {
            let field = format!("managers.{k}");
            Ok((id(&*field, *k, NodeId)?, read(&*field, addr, A_SOCKET_ADDRESS)?))
        })
        .collect()
}

impl From<NodeAssignment> for pb::NodeAssignment {
    fn from(n: NodeAssignment) -> Self {
        Self {
            id: n.id.0,
            role: pb::Role::from(n.role).into(),
            data_path_port: n.data_path_port.into(),
            managers: n.managers.into_iter().map(|(k, addr)| (k.0, addr.to_string())).collect(),
        }
    }
}

fn network(n: pb::NetworkAssignment) -> Result<(NetworkId, NetworkAssignment), Invalid> {
    let value = NetworkAssignment {
        name: parsed("name", &n.name)?,
        kind: kind(&n)?,
        subnets: n
            .subnets
            .into_iter()
            .enumerate()
            .map(|(i, s)| s.try_into().inside(format!("subnets[{i}]")))
            .collect::<Result<_, _>>()?,
        internal: n.internal,
        mtu: mtu("mtu", n.mtu)?,
        underlay: mtu("underlay_mtu", n.underlay_mtu)?,
    };
    Ok((id("id", n.id, NetworkId)?, value))
}

/// Of a network on one node: what is of the driver alone.
fn kind(n: &pb::NetworkAssignment) -> Result<NetworkKind, Invalid> {
    match (n.vni, &n.bridge, n.macvlan_parent.as_str()) {
        (0, Some(bridge), "") => {
            let node = parsed("bridge.node", &bridge.node)?;
            Ok(NetworkKind::Bridge(bridge_options(bridge.clone(), node).inside("bridge")?))
        }
        (0, None, parent) if !parent.is_empty() => Ok(NetworkKind::Macvlan {
            parent: parsed("macvlan_parent", parent)?,
            mode: parsed("macvlan_mode", &n.macvlan_mode)?,
        }),
        (vni, None, "") => Ok(NetworkKind::Overlay { vni: vni.try_into()? }),
        _ => Err(Invalid::new("vni", n.vni, "exactly one of vni, bridge and macvlan_parent")),
    }
}

fn network_entry((key, n): (NetworkId, NetworkAssignment)) -> pb::NetworkAssignment {
    let of = match n.kind {
        NetworkKind::Overlay { vni } => pb::NetworkAssignment { vni: vni.get(), ..Default::default() },
        NetworkKind::Bridge(options) => pb::NetworkAssignment { bridge: Some(options.into()), ..Default::default() },
        NetworkKind::Macvlan { parent, mode } => pb::NetworkAssignment {
            macvlan_parent: parent.into(),
            macvlan_mode: mode.to_string(),
            ..Default::default()
        },
    };
    pb::NetworkAssignment {
        id: key.0,
        name: n.name.into(),
        subnets: n.subnets.into_iter().map(Into::into).collect(),
        internal: n.internal,
        mtu: n.mtu.map_or(0, Mtu::get),
        underlay_mtu: n.underlay.map_or(0, Mtu::get),
        ..of
    }
}

fn endpoint(e: pb::EndpointAssignment) -> Result<((NetworkId, TaskId), Arc<EndpointAssignment>), Invalid> {
    let value = EndpointAssignment {
        endpoint: message("endpoint", e.endpoint)?,
        node: id("node", e.node, NodeId)?,
        vtep: address("vtep", &e.vtep)?,
        service: (e.service != 0).then_some(ServiceId(e.service)),
        task_name: not_empty("task_name", e.task_name, "a task's name such as web.1")?,
        aliases: e.aliases,
        serving: e.serving,
    };
    Ok(((value.endpoint.network, id("task", e.task, TaskId)?), Arc::new(value)))
}

/// The network is the endpoint's own: what keys the entry and what the endpoint says cannot differ.
fn endpoint_entry(((_, task), e): ((NetworkId, TaskId), Arc<EndpointAssignment>)) -> pb::EndpointAssignment {
    let e = Arc::unwrap_or_clone(e);
    pb::EndpointAssignment {
        task: task.0,
        endpoint: Some(e.endpoint.into()),
        node: e.node.0,
        vtep: e.vtep.to_string(),
        service: e.service.map_or(0, |s| s.0),
        task_name: e.task_name,
        aliases: e.aliases,
        serving: e.serving,
    }
}

fn service(s: pb::ServiceAssignment) -> Result<((NetworkId, ServiceId), ServiceAssignment), Invalid> {
    let value = ServiceAssignment {
        name: parsed("name", &s.name)?,
        aliases: s
            .aliases
            .iter()
            .enumerate()
            .map(|(i, a)| parsed(format!("aliases[{i}]"), a))
            .collect::<Result<_, _>>()?,
        mode: parsed("mode", &s.mode)?,
        vip4: read_unless_empty("vip4", &s.vip4, AN_IPV4_ADDRESS)?,
        vip6: read_unless_empty("vip6", &s.vip6, AN_IPV6_ADDRESS)?,
        ports: ports("ports", s.ports)?,
    };
    Ok(((id("network", s.network, NetworkId)?, id("service", s.service, ServiceId)?), value))
}

fn service_entry(((network, service), s): ((NetworkId, ServiceId), ServiceAssignment)) -> pb::ServiceAssignment {
    pb::ServiceAssignment {
        network: network.0,
        service: service.0,
        name: s.name.into(),
        aliases: s.aliases.into_iter().map(Into::into).collect(),
        mode: s.mode.to_string(),
        vip4: text(s.vip4),
        vip6: text(s.vip6),
        ports: s.ports.into_iter().map(Into::into).collect(),
    }
}

fn task(t: pb::TaskAssignment) -> Result<(TaskId, Arc<TaskAssignment>), Invalid> {
    let value = TaskAssignment {
        service: id("service", t.service, ServiceId)?,
        service_name: parsed("service_name", &t.service_name)?,
        slot: message("slot", t.slot)?,
        name: not_empty("name", t.name, "a task's name such as web.1")?,
        container: message("container", t.container)?,
        resources: t.resources.unwrap_or_default().try_into().inside("resources")?,
        endpoints: t
            .endpoints
            .into_iter()
            .enumerate()
            .map(|(i, e)| e.try_into().inside(format!("endpoints[{i}]")))
            .collect::<Result<_, _>>()?,
        desired: enumerated::<pb::DesiredState, _>("desired", t.desired)?,
        known: enumerated::<pb::TaskState, _>("known", t.known)?,
        spec_version: LogIndex(t.spec_version),
        ports: published("ports", t.ports)?,
    };
    Ok((id("id", t.id, TaskId)?, Arc::new(value)))
}

fn task_entry((key, t): (TaskId, Arc<TaskAssignment>)) -> pb::TaskAssignment {
    let t = Arc::unwrap_or_clone(t);
    pb::TaskAssignment {
        id: key.0,
        service: t.service.0,
        service_name: t.service_name.into(),
        slot: Some(t.slot.into()),
        name: t.name,
        container: Some(t.container.into()),
        resources: Some(t.resources.into()),
        endpoints: t.endpoints.into_iter().map(Into::into).collect(),
        desired: pb::DesiredState::from(t.desired).into(),
        known: pb::TaskState::from(t.known).into(),
        spec_version: t.spec_version.0,
        ports: t.ports.into_iter().map(Into::into).collect(),
    }
}

fn ingress(a: pb::IngressAssignment) -> Result<(ServiceId, Arc<IngressAssignment>), Invalid> {
    let ports = a.ports.into_iter().enumerate();
    let value = IngressAssignment {
        ports: ports.map(|(i, p)| p.try_into().inside(format!("ports[{i}]"))).collect::<Result<_, _>>()?,
        hosts: map("hosts", a.hosts, |h| {
            let host = IngressHost {
                v4: read_unless_empty("v4", &h.v4, AN_IPV4_ADDRESS)?,
                v6: read_unless_empty("v6", &h.v6, AN_IPV6_ADDRESS)?,
                tasks: h.tasks,
            };
            Ok((id("node", h.node, NodeId)?, host))
        })?,
    };
    Ok((id("service", a.service, ServiceId)?, Arc::new(value)))
}

fn ingress_entry((key, a): (ServiceId, Arc<IngressAssignment>)) -> pb::IngressAssignment {
    let a = Arc::unwrap_or_clone(a);
    let host = |(node, h): (NodeId, IngressHost)| pb::IngressHost {
        node: node.0,
        v4: text(h.v4),
        v6: text(h.v6),
        tasks: h.tasks,
    };
    pb::IngressAssignment {
        service: key.0,
        ports: a.ports.into_iter().map(Into::into).collect(),
        hosts: a.hosts.into_iter().map(host).collect(),
    }
}

fn container(c: pb::ContainerAssignment) -> Result<(TaskId, Arc<ContainerAssignment>), Invalid> {
    let endpoints = c.endpoints.into_iter().enumerate();
    let gateways = c.gateways.iter().enumerate();
    let value = ContainerAssignment {
        spec: run_spec(required("spec", c.spec)?, |network| parsed("network", network)).inside("spec")?,
        created: Timestamp(c.created_ms),
        endpoints: endpoints
            .map(|(i, e)| e.try_into().inside(format!("endpoints[{i}]")))
            .collect::<Result<_, Invalid>>()?,
        ports: published("ports", c.ports)?,
        links: c
            .links
            .into_iter()
            .enumerate()
            .map(|(i, l)| link(l).inside(format!("links[{i}]")))
            .collect::<Result<_, _>>()?,
        gateways: gateways.map(|(i, ip)| address(format!("gateways[{i}]"), ip)).collect::<Result<_, _>>()?,
        stop_grace: Duration::from_millis(c.stop_grace_ms),
        wanted: parsed("wanted", &c.wanted)?,
        start: c.start,
        known: message("known", c.known)?,
    };
    Ok((id("id", c.id, TaskId)?, Arc::new(value)))
}

fn published(field: &str, ports: Vec<pb::PortSpec>) -> Result<Vec<PublishedPort>, Invalid> {
    ports.into_iter().enumerate().map(|(i, p)| p.try_into().inside(format!("{field}[{i}]"))).collect()
}

fn link(l: pb::LinkAssignment) -> Result<LinkAssignment, Invalid> {
    Ok(LinkAssignment {
        alias: parsed("alias", &l.alias)?,
        name: parsed("name", &l.name)?,
        hostname: l.hostname,
        v4: read_unless_empty("v4", &l.v4, AN_IPV4_ADDRESS)?,
        v6: read_unless_empty("v6", &l.v6, AN_IPV6_ADDRESS)?,
        env: l.env,
        exposed: exposed(&l.exposed)?,
        image: l.image,
    })
}

fn container_entry((key, c): (TaskId, Arc<ContainerAssignment>)) -> pb::ContainerAssignment {
    let c = Arc::unwrap_or_clone(c);
    let link = |l: LinkAssignment| pb::LinkAssignment {
        alias: l.alias.into(),
        name: l.name.into(),
        hostname: l.hostname,
        v4: text(l.v4),
        v6: text(l.v6),
        env: l.env,
        exposed: l.exposed.iter().map(ToString::to_string).collect(),
        image: l.image,
    };
    pb::ContainerAssignment {
        id: key.0,
        spec: Some(c.spec.into()),
        created_ms: c.created.0,
        endpoints: c.endpoints.into_iter().map(Into::into).collect(),
        ports: c.ports.into_iter().map(Into::into).collect(),
        links: c.links.into_iter().map(link).collect(),
        gateways: c.gateways.iter().map(ToString::to_string).collect(),
        stop_grace_ms: millis(c.stop_grace),
        wanted: c.wanted.to_string(),
        start: c.start,
        known: Some(c.known.into()),
    }
}

/// A list of entries as the map that it was.
fn map<M, K: Ord + Debug, V>(
    field: &str,
    entries: Vec<M>,
    read: impl Fn(M) -> Result<(K, V), Invalid>,
) -> Result<BTreeMap<K, V>, Invalid> {
    let mut out = BTreeMap::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let (key, value) = read(entry).inside(format!("{field}[{i}]"))?;
        if out.contains_key(&key) {
            return Err(Invalid::new(format!("{field}[{i}]"), format!("{key:?}"), "each key once"));
        }
        out.insert(key, value);
    }
    Ok(out)
}

/// Keys of entries that are gone.
fn gone<M, K>(field: &str, keys: Vec<M>, read: impl Fn(M) -> Result<K, Invalid>) -> Result<Vec<K>, Invalid> {
    keys.into_iter().enumerate().map(|(i, k)| read(k).inside(format!("{field}[{i}]"))).collect()
}

fn endpoint_key(k: pb::EndpointKey) -> Result<(NetworkId, TaskId), Invalid> {
    Ok((id("network", k.network, NetworkId)?, id("task", k.task, TaskId)?))
}

fn service_key(k: pb::ServiceKey) -> Result<(NetworkId, ServiceId), Invalid> {
    Ok((id("network", k.network, NetworkId)?, id("service", k.service, ServiceId)?))
}

fn node(n: Option<pb::NodeAssignment>) -> Result<Option<NodeAssignment>, Invalid> {
    n.map(|n| n.try_into().inside("node")).transpose()
}

impl TryFrom<pb::Assignment> for Assignment {
    type Error = Invalid;

    fn try_from(a: pb::Assignment) -> Result<Self, Invalid> {
        Ok(Self {
            generation: Generation(a.generation),
            node: node(a.node)?,
            networks: map("networks", a.networks, network)?,
            endpoints: map("endpoints", a.endpoints, endpoint)?,
            services: map("services", a.services, service)?,
            tasks: map("tasks", a.tasks, task)?,
            containers: map("containers", a.containers, container)?,
            ingress: map("ingress", a.ingress, ingress)?,
        })
    }
}

impl From<Assignment> for pb::Assignment {
    fn from(a: Assignment) -> Self {
        Self {
            generation: a.generation.0,
            node: a.node.map(Into::into),
            networks: a.networks.into_iter().map(network_entry).collect(),
            endpoints: a.endpoints.into_iter().map(endpoint_entry).collect(),
            services: a.services.into_iter().map(service_entry).collect(),
            tasks: a.tasks.into_iter().map(task_entry).collect(),
            containers: a.containers.into_iter().map(container_entry).collect(),
            ingress: a.ingress.into_iter().map(ingress_entry).collect(),
        }
    }
}

impl TryFrom<pb::AssignmentDelta> for AssignmentDelta {
    type Error = Invalid;

    fn try_from(d: pb::AssignmentDelta) -> Result<Self, Invalid> {
        Ok(Self {
            from: Generation(d.from),
            to: Generation(d.to),
            node: node(d.node)?,
            networks: MapDelta {
                upsert: map("networks", d.networks, network)?,
                remove: gone("networks_gone", d.networks_gone, |n| id("id", n, NetworkId))?,
            },
            endpoints: MapDelta {
                upsert: map("endpoints", d.endpoints, endpoint)?,
                remove: gone("endpoints_gone", d.endpoints_gone, endpoint_key)?,
            },
            services: MapDelta {
                upsert: map("services", d.services, service)?,
                remove: gone("services_gone", d.services_gone, service_key)?,
            },
            tasks: MapDelta {
                upsert: map("tasks", d.tasks, task)?,
                remove: gone("tasks_gone", d.tasks_gone, |t| id("id", t, TaskId))?,
            },
            containers: MapDelta {
                upsert: map("containers", d.containers, container)?,
                remove: gone("containers_gone", d.containers_gone, |t| id("id", t, TaskId))?,
            },
            ingress: MapDelta {
                upsert: map("ingress", d.ingress, ingress)?,
                remove: gone("ingress_gone", d.ingress_gone, |s| id("id", s, ServiceId))?,
            },
        })
    }
}

impl From<AssignmentDelta> for pb::AssignmentDelta {
    fn from(d: AssignmentDelta) -> Self {
        Self {
            from: d.from.0,
            to: d.to.0,
            node: d.node.map(Into::into),
            networks: d.networks.upsert.into_iter().map(network_entry).collect(),
            networks_gone: d.networks.remove.into_iter().map(|n| n.0).collect(),
            endpoints: d.endpoints.upsert.into_iter().map(endpoint_entry).collect(),
            endpoints_gone: d
                .endpoints
                .remove
                .into_iter()
                .map(|(n, t)| pb::EndpointKey { network: n.0, task: t.0 })
                .collect(),
            services: d.services.upsert.into_iter().map(service_entry).collect(),
            services_gone: d
                .services
                .remove
                .into_iter()
                .map(|(n, s)| pb::ServiceKey { network: n.0, service: s.0 })
                .collect(),
            tasks: d.tasks.upsert.into_iter().map(task_entry).collect(),
            tasks_gone: d.tasks.remove.into_iter().map(|t| t.0).collect(),
            containers: d.containers.upsert.into_iter().map(container_entry).collect(),
            containers_gone: d.containers.remove.into_iter().map(|t| t.0).collect(),
            ingress: d.ingress.upsert.into_iter().map(ingress_entry).collect(),
            ingress_gone: d.ingress.remove.into_iter().map(|s| s.0).collect(),
        }
    }
}
