//! Ports of hosts: what is taken, by whom, and what a newcomer gets.

use shoal_common::{
    Invalid, NodeId,
    container::{PortSpec, PublishedPort},
    service::{IngressPort, Publish, PublishMode, ServiceSpec},
};

use crate::{
    reply::Rejection,
    state::{Container, Service, State, Task},
};

/// Ports that are taken, and by whom.
type Taken = Vec<(PublishedPort, String)>;

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
        };
        let taken = if task.publish.is_empty() { Vec::new() } else { self.taken_on(node, |_| false) };
        hand_out(task.publish.iter().map(spec).collect(), taken, &format!("task {}", task.name()))
            .ok_or(Rejection::PortsExhausted { node })?
    }

    /// Those that a service gets on every host. One that nobody named stays as it is over an update.
    pub(super) fn ingress_ports(&self, service: &Service) -> Result<Vec<IngressPort>, Rejection> {
        let mut taken = self.taken_anywhere(service);
        let (named, free): (Vec<&Publish>, Vec<&Publish>) =
            service.spec.published(PublishMode::Ingress).partition(|p| p.published.is_some());
        let mut ports = Vec::new();
        for publish in named.into_iter().chain(free) {
            let at = |port| IngressPort { port, target: publish.target, protocol: publish.protocol };
            let holder = |port: IngressPort| holder(&taken, &port.on_a_host());
            let port = match publish.published {
                Some(port) => match holder(at(port)) {
                    Some(holder) => {
                        let port = format!("{port}/{}", publish.protocol);
                        return Err(Rejection::PortTaken { port, holder: holder.to_owned() });
                    }
                    None => at(port),
                },
                None => {
                    let before = service.ingress.iter().map(|p| p.port).filter(|port| Publish::FREE.contains(port));
                    let kept = before.map(at).filter(|port| service.ingress.contains(port));
                    let mut candidates = kept.chain(Publish::FREE.map(at));
                    candidates.find(|port| holder(*port).is_none()).ok_or(Rejection::IngressExhausted)?
                }
            };
            taken.push((port.on_a_host(), format!("service {}", service.spec.name)));
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

fn holder<'a>(taken: &'a Taken, port: &PublishedPort) -> Option<&'a str> {
    taken.iter().find(|(other, _)| other.clashes(port)).map(|(_, holder)| holder.as_str())
}

/// The named ones first, so that none of the others takes one of them. `None`: no port is free.
fn hand_out(wanted: Vec<PortSpec>, mut taken: Taken, who: &str) -> Option<Result<Vec<PublishedPort>, Rejection>> {
    let mut ports = Vec::new();
    let (named, free): (Vec<PortSpec>, Vec<PortSpec>) = wanted.into_iter().partition(|p| p.host_port.is_some());
    for spec in named.into_iter().chain(free) {
        let at = |host_port| PublishedPort {
            host_ip: spec.host_ip,
            host_port,
            container_port: spec.container_port,
            protocol: spec.protocol,
        };
        let port = match spec.host_port.map(at) {
            Some(port) => match holder(&taken, &port) {
                Some(holder) => {
                    let port = format!("{}/{}", port.host_port, spec.protocol);
                    return Some(Err(Rejection::PortTaken { port, holder: holder.to_owned() }));
                }
                None => port,
            },
            None => PortSpec::EPHEMERAL.map(at).find(|port| holder(&taken, port).is_none())?,
        };
        taken.push((port, who.to_owned()));
        ports.push(port);
    }
    Some(Ok(ports))
}
