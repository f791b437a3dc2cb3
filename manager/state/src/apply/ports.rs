//! Ports of hosts: what is taken, by whom, and what a newcomer gets.

use shoal_common::{
    Invalid, NodeId,
    container::{PortSpec, PublishedPort},
    service::{IngressPort, Protocol, Publish, PublishMode, ServiceSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    reply::Rejection,
    state::{Container, Service, State, Task},
};

/// Ports that are taken, and by whom.
#[derive(Debug, Default)]
struct Taken(BTreeMap<(Protocol, u16), Vec<(PublishedPort, String)>>);

impl FromIterator<(PublishedPort, String)> for Taken {
    fn from_iter<I: IntoIterator<Item = (PublishedPort, String)>>(ports: I) -> Self {
        let mut taken = Self::default();
        ports.into_iter().for_each(|(port, holder)| taken.add(port, holder));
        taken
    }
}

impl Taken {
    fn add(&mut self, port: PublishedPort, holder: String) {
        self.0.entry((port.protocol, port.host_port)).or_default().push((port, holder));
    }

    fn holder(&self, port: &PublishedPort) -> Option<&str> {
        let same = self.0.get(&(port.protocol, port.host_port)).into_iter().flatten();
        same.into_iter().find(|(other, _)| other.clashes(port)).map(|(_, holder)| holder.as_str())
    }
}

impl State {
    /// The services that every host publishes ports for.
    pub fn publishing(&self) -> impl Iterator<Item = &Service> {
        self.publishing.iter().filter_map(|id| self.services.get(id))
    }

    /// The ports of its host that a container gets while it is to run.
    pub(super) fn container_ports(&self, container: &Container) -> Result<Vec<PublishedPort>, Rejection> {
        let who = format!("container {}", container.spec.name);
        let binding = self.default_binding(container);
        let wanted = container.spec.ports.iter();
        let wanted = wanted.map(|spec| PortSpec { host_ip: spec.host_ip.or(binding), ..*spec }).collect();
        let taken = self.taken_on(container.node, |c| c.id == container.id);
        hand_out(wanted, taken, &who).ok_or(Rejection::PortsExhausted { node: container.node })?
    }

    /// Those that a task gets on a node.
    pub(super) fn task_ports(&self, task: &Task, node: NodeId) -> Result<Vec<PublishedPort>, Rejection> {
        let spec = |publish: &Publish| PortSpec {
            host_ip: None,
            host_port: publish.published,
            container_port: publish.target,
            protocol: publish.protocol,
            host_port_last: None,
        };
        let taken = if task.publish.is_empty() { Taken::default() } else { self.taken_on(node, |_| false) };
        hand_out(task.publish.iter().map(spec).collect(), taken, &format!("task {}", task.name()))
            .ok_or(Rejection::PortsExhausted { node })?
    }

    /// Those that a service gets on every host. One that nobody named stays as it is over an update.
    pub(super) fn ingress_ports(&self, service: &Service) -> Result<Vec<IngressPort>, Rejection> {
        if service.spec.published(PublishMode::Ingress).next().is_none() {
            return Ok(Vec::new());
        }
        let mut taken = self.taken_anywhere(service);
        let who = format!("service {}", service.spec.name);
        let (named, free): (Vec<&Publish>, Vec<&Publish>) =
            service.spec.published(PublishMode::Ingress).partition(|p| p.published.is_some());
        let mut ports = Vec::new();
        for publish in named.into_iter().chain(free) {
            let at = |port| IngressPort { port, target: publish.target, protocol: publish.protocol };
            let holder = |port: IngressPort| taken.holder(&port.on_a_host());
            let port = match publish.published {
                Some(port) => match holder(at(port)) {
                    Some(holder) => return Err(clash(format!("{port}/{}", publish.protocol), holder, &who)),
                    None => at(port),
                },
                None => {
                    let before = service.ingress.iter().map(|p| p.port).filter(|port| Publish::FREE.contains(port));
                    let kept = before.map(at).filter(|port| service.ingress.contains(port));
                    let mut candidates = kept.chain(Publish::FREE.map(at));
                    candidates.find(|port| holder(*port).is_none()).ok_or(Rejection::IngressExhausted)?
                }
            };
            taken.add(port.on_a_host(), who.clone());
            ports.push(port);
        }
        Ok(ports)
    }

    /// Ports lead to tasks by a network that has a way out. (One without any network is on its host's default bridge.)
    pub(super) fn check_publish(&self, spec: &ServiceSpec) -> Result<(), Rejection> {
        let has_way_out = |network| self.network(network).is_ok_and(|network| !network.spec.internal);
        let Some(publish) = spec.publish.first() else { return Ok(()) };
        if spec.networks.is_empty() || spec.networks.iter().any(|a| has_way_out(a.network)) {
            return Ok(());
        }
        let expected = "no published port: every network of the service is --internal";
        Err(Invalid::new("publish", publish.target, expected).into())
    }

    fn taken_on(&self, node: NodeId, except: impl Fn(&Container) -> bool) -> Taken {
        let containers = self.containers_of_node(node).filter(|c| !except(c)).flat_map(ports_of_container);
        let tasks = self.tasks_of_node(node).flat_map(|t| t.ports.iter().map(|p| (*p, format!("task {}", t.name()))));
        containers.chain(tasks).chain(self.publishing().flat_map(ports_of_service)).collect()
    }

    /// What a port of the cluster would be in the way of.
    fn taken_anywhere(&self, service: &Service) -> Taken {
        let others = self.publishing().filter(|other| other.id != service.id).flat_map(ports_of_service);
        let containers = self.containers.values().flat_map(|c| ports_of_container(c));
        let services = self.services.values().filter(|other| other.id != service.id).map(|other| &other.spec);
        let on_hosts = services.chain([&service.spec]).flat_map(|spec| {
            let named = spec.published(PublishMode::Host).filter_map(|p| {
                let port = IngressPort { port: p.published?, target: p.target, protocol: p.protocol };
                Some(port.on_a_host())
            });
            named.map(|port| (port, format!("service {}", spec.name)))
        });
        let tasks = self.tasks.values().flat_map(|t| t.ports.iter().map(|p| (*p, format!("task {}", t.name()))));
        others.chain(containers).chain(on_hosts).chain(tasks).collect()
    }
}

fn ports_of_container(container: &Container) -> impl Iterator<Item = (PublishedPort, String)> {
    container.ports.iter().map(|port| (*port, format!("container {}", container.spec.name)))
}

fn ports_of_service(service: &Service) -> impl Iterator<Item = (PublishedPort, String)> {
    service.ingress.iter().map(|port| (port.on_a_host(), format!("service {}", service.spec.name)))
}

/// `holder` has the port that `who` asks for.
fn clash(port: String, holder: &str, who: &str) -> Rejection {
    if holder == who {
        return Invalid::new("publish", port, "each port of the host once: this one is given twice").into();
    }
    Rejection::PortTaken { port, holder: holder.to_owned() }
}

/// The least free to choose first, so that none of the others takes what one of them needs. `None`: no port is free.
fn hand_out(mut wanted: Vec<PortSpec>, mut taken: Taken, who: &str) -> Option<Result<Vec<PublishedPort>, Rejection>> {
    let mut ports = Vec::new();
    // From where on it is worth while to look for a free one: those before were taken, and so they are still.
    let mut free_from: BTreeMap<(Option<IpAddr>, Protocol, u16, u16), u16> = BTreeMap::new();
    wanted.sort_by_key(|spec| spec.host_ports().len());
    for spec in wanted {
        let at = |host_port| PublishedPort {
            host_ip: spec.host_ip,
            host_port,
            container_port: spec.container_port,
            protocol: spec.protocol,
        };
        let (first, last) = spec.host_ports().into_inner();
        let from = free_from.entry((spec.host_ip, spec.protocol, first, last)).or_insert(first);
        let Some(port) = (*from..=last).map(at).find(|port| taken.holder(port).is_none()) else {
            let holders: BTreeSet<&str> = (first..=last).filter_map(|port| taken.holder(&at(port))).collect();
            let holders = Vec::from_iter(holders).join(", ");
            let port = if first == last { first.to_string() } else { format!("{first}-{last}") };
            return spec.host_port.map(|_| Err(clash(format!("{port}/{}", spec.protocol), &holders, who)));
        };
        *from = port.host_port;
        taken.add(port, who.to_owned());
        ports.push(port);
    }
    Some(Ok(ports))
}
