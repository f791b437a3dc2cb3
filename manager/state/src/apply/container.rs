//! Containers that users run by hand. Their hosts start them again by themselves; here is what is wanted of them, which
//! addresses they hold from when they are made until they are gone, and which ports while they are to run.

use shoal_common::{
    Invalid, MacAddr, Name, NetworkId, NodeId, TaskId,
    container::{Attachment, ContainerLink, Networking, Phase, RunSpec, RunStatus, Wanted},
    network::Driver,
    node::Liveness,
    service::HostAddress,
    task::Endpoint,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Entry, not_found};
use crate::{
    command::ContainerReport,
    ipam::subnets::overlap,
    reply::{Outcome, Rejection, Reply},
    state::{Container, State},
};

impl State {
    pub(super) fn create_container(&mut self, entry: Entry, node: NodeId, spec: &RunSpec) -> Outcome {
        if !self.nodes.contains_key(&node) {
            return Err(not_found("node", node));
        }
        self.refuse_down(node)?;
        self.refuse_container_name(node, &spec.name)?;
        let mut spec = spec.clone();
        if let Networking::Own(attachments) = &mut spec.networking
            && attachments.is_empty()
        {
            let default = self
                .default_bridge(node)
                .ok_or_else(|| Invalid::new("network", "", "the name of a network: this host has no default bridge"))?;
            attachments.push(Attachment::to(default));
        }
        let has_stack = matches!(spec.networking, Networking::Own(_));
        if let Some(port) = spec.ports.first().filter(|_| !has_stack) {
            let expected = "no published ports on the networks host and none";
            return Err(Invalid::new("publish", port.container_port, expected).into());
        }
        for link in &spec.links {
            self.linked(node, link)?;
        }
        let is_gateway = |(_, at): &&(String, HostAddress)| *at == HostAddress::Gateway;
        if let Some((name, at)) = spec.container.extra_hosts.iter().find(is_gateway)
            && self.default_bridge(node).is_none()
        {
            let expected =
                format!("an address for {name}: this host has no default bridge, whose address that would be");
            return Err(Invalid::new("add-host", at, expected).into());
        }
        let status = RunStatus {
            phase: Phase::Created,
            start: 0,
            since: entry.at,
            message: String::new(),
            exit_code: None,
            restarts: 0,
            health: None,
            unstarted: false,
        };
        let mut container = Container {
            id: TaskId(self.next_id()),
            node,
            spec,
            wanted: Wanted::Created,
            start: 0,
            stop_grace: None,
            status,
            endpoints: Vec::new(),
            ports: Vec::new(),
            created: entry.at,
        };
        for attachment in container.spec.attachments().to_vec() {
            self.join(&mut container, &attachment)?;
        }
        let id = container.id;
        self.containers_by_node.insert((node, id));
        self.containers.insert(id, Arc::new(container));
        Ok(Reply::Container(id, 0))
    }

    /// `again`: also if it runs.
    pub(super) fn start_container(&mut self, id: TaskId, again: bool) -> Outcome {
        let mut container = self.living_container(id)?;
        self.refuse_down(container.node)?;
        let runs = container.wanted == Wanted::Running;
        if runs && !again {
            return Ok(Reply::Container(id, container.start));
        }
        if !runs {
            container.ports = self.container_ports(&container)?;
        }
        container.wanted = Wanted::Running;
        container.stop_grace = None;
        container.start += 1;
        let start = container.start;
        self.containers.insert(id, Arc::new(container));
        Ok(Reply::Container(id, start))
    }

    /// Nothing happens to one that does not run.
    pub(super) fn stop_container(&mut self, id: TaskId, grace: Option<Duration>) -> Outcome {
        let mut container = self.living_container(id)?;
        let start = container.start;
        if container.wanted == Wanted::Running {
            self.refuse_down(container.node)?;
            container.wanted = Wanted::Stopped;
            container.stop_grace = grace;
            self.containers.insert(id, Arc::new(container));
        }
        Ok(Reply::Container(id, start))
    }

    /// Its host ends and forgets it, and says so; of a host that is not there nothing is waited for.
    pub(super) fn remove_container(&mut self, id: TaskId, force: bool, volumes: bool) -> Outcome {
        let mut container = self.living_container(id)?;
        if !volumes && !container.spec.auto_remove {
            container.spec.container.mounts.iter_mut().for_each(|m| m.source.name_it());
        }
        let runs =
            container.wanted == Wanted::Running || matches!(container.status.phase, Phase::Running | Phase::Restarting);
        if runs && !force {
            return Err(Rejection::ContainerRuns { container: container.spec.name });
        }
        let start = container.start;
        if self.nodes.get(&container.node).is_some_and(|n| n.liveness == Liveness::Ready) {
            container.wanted = Wanted::Removed;
            if force {
                container.stop_grace = Some(Duration::ZERO);
            }
            self.containers.insert(id, Arc::new(container));
        } else {
            self.forget_container(id);
        }
        Ok(Reply::Container(id, start))
    }

    pub(super) fn rename_container(&mut self, id: TaskId, name: &Name) -> Outcome {
        let mut container = self.living_container(id)?;
        if container.spec.name != *name {
            self.refuse_container_name(container.node, name)?;
            for endpoint in &container.endpoints {
                self.refuse_name_on(endpoint.network, name)?;
            }
            // Places are held by name.
            let holds = holder(&container.spec.name);
            for endpoint in &container.endpoints {
                self.rename_holder(endpoint.network, &holds, &holder(name));
            }
            let old = std::mem::replace(&mut container.spec.name, name.clone());
            self.rename_links(&container, &old);
        }
        let start = container.start;
        self.containers.insert(id, Arc::new(container));
        Ok(Reply::Container(id, start))
    }

    /// Whoever links to it goes on doing so.
    fn rename_links(&mut self, renamed: &Container, old: &Name) {
        let networks: BTreeSet<NetworkId> = renamed.endpoints.iter().map(|e| e.network).collect();
        let there = networks.iter().flat_map(|network| self.containers_of_network(*network));
        let others: BTreeSet<TaskId> = self.containers_of_node(renamed.node).chain(there).map(|c| c.id).collect();
        for other in others.into_iter().filter(|other| *other != renamed.id) {
            let Some(mut other) = self.containers.get(&other).map(|c| Container::clone(c)) else { continue };
            let mut links: Vec<&mut ContainerLink> = Vec::new();
            if other.node == renamed.node {
                links.extend(&mut other.spec.links);
            }
            if let Networking::Own(attachments) = &mut other.spec.networking {
                let shared = attachments.iter_mut().filter(|a| networks.contains(&a.network));
                links.extend(shared.flat_map(|a| &mut a.links));
            }
            let stale: Vec<_> = links.into_iter().filter(|link| link.container == *old).collect();
            if !stale.is_empty() {
                stale.into_iter().for_each(|link| link.container = renamed.spec.name.clone());
                self.containers.insert(other.id, Arc::new(other));
            }
        }
    }

    /// Who is down does and tells nothing.
    pub fn refuse_down(&self, node: NodeId) -> Result<(), Rejection> {
        match self.nodes.get(&node) {
            Some(node) if node.liveness == Liveness::Down => {
                Err(Rejection::NodeDown { node: node.description.hostname.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn connect_container(&mut self, id: TaskId, attachment: &Attachment) -> Outcome {
        let mut container = self.living_container(id)?;
        let stack = match &mut container.spec.networking {
            Networking::Own(attachments) => {
                attachments.push(attachment.clone());
                None
            }
            Networking::None => Some("its loopback alone (--network none)"),
            Networking::Host => Some("the network stack of its host (--network host)"),
        };
        if let Some(stack) = stack {
            return Err(Rejection::NeverConnected { container: container.spec.name, stack: stack.to_owned() });
        }
        self.join(&mut container, attachment)?;
        let start = container.start;
        self.containers.insert(id, Arc::new(container));
        Ok(Reply::Container(id, start))
    }

    pub(super) fn disconnect_container(&mut self, id: TaskId, network: NetworkId) -> Outcome {
        let mut container = self.living_container(id)?;
        let Some(at) = container.endpoints.iter().position(|e| e.network == network) else {
            let network = self.network(network)?.name().clone();
            return Err(Rejection::NotConnected { container: container.spec.name, network });
        };
        let endpoint = container.endpoints.remove(at);
        if let Networking::Own(attachments) = &mut container.spec.networking {
            attachments.retain(|a| a.network != network);
        }
        self.tasks_by_network.remove(&(network, id));
        self.release_place(network, &holder(&container.spec.name), endpoint.addresses());
        let start = container.start;
        self.containers.insert(id, Arc::new(container));
        Ok(Reply::Container(id, start))
    }

    pub(super) fn report_containers(&mut self, entry: Entry, reports: &[ContainerReport]) -> Outcome {
        let made = reports.iter().filter(|report| self.note_container(entry, report)).count();
        Ok(Reply::Made(made))
    }

    fn note_container(&mut self, entry: Entry, report: &ContainerReport) -> bool {
        let Some(row) = self.containers.get(&report.container).filter(|c| c.node == report.node) else { return false };
        let mut container = Container::clone(row);
        if report.phase == Phase::Removed {
            if container.wanted == Wanted::Removed {
                self.forget_container(container.id);
                return true;
            }
            return false;
        }
        if report.start < container.status.start {
            return false;
        }
        let heard = &container.status;
        // A proposal that a slow manager repeats comes after a later one: what has ended did not begin to run again
        // without a start or a restart.
        let has_ended =
            heard.phase == Phase::Exited && (heard.start, heard.restarts) == (report.start, report.restarts);
        if has_ended && !heard.unstarted && matches!(report.phase, Phase::Created | Phase::Running) {
            return false;
        }
        let goes_on = (report.phase, report.start, report.restarts) == (heard.phase, heard.start, heard.restarts);
        let status = RunStatus {
            phase: report.phase,
            start: report.start,
            since: if goes_on { heard.since } else { entry.at },
            message: report.message.clone(),
            exit_code: report.exit_code,
            restarts: report.restarts,
            health: report.health,
            unstarted: report.unstarted,
        };
        if report.phase == Phase::Exited {
            // It ended, and its host does not start it again.
            if container.wanted == Wanted::Running && report.start == container.start {
                container.wanted = Wanted::Stopped;
            }
            if container.wanted == Wanted::Stopped {
                container.ports.clear();
                if container.spec.auto_remove {
                    container.wanted = Wanted::Removed;
                }
            }
        }
        if container == **row && container.status == status {
            return false;
        }
        container.status = status;
        self.containers.insert(container.id, Arc::new(container));
        true
    }

    pub(super) fn forget_container(&mut self, id: TaskId) {
        let Some(container) = self.containers.remove(&id) else { return };
        self.containers_by_node.remove(&(container.node, id));
        for endpoint in &container.endpoints {
            self.tasks_by_network.remove(&(endpoint.network, id));
            self.release_place(endpoint.network, &holder(&container.spec.name), endpoint.addresses());
        }
    }

    /// One that is not being removed.
    fn living_container(&self, id: TaskId) -> Result<Container, Rejection> {
        let found = self.containers.get(&id).filter(|c| c.wanted != Wanted::Removed);
        found.map(|c| Container::clone(c)).ok_or_else(|| not_found("container", id))
    }

    pub(crate) fn default_bridge(&self, node: NodeId) -> Option<NetworkId> {
        let is = |driver: &Driver| matches!(driver, Driver::Bridge(b) if b.node == node && b.is_default);
        self.networks.values().find(|n| is(&n.spec.driver)).map(|n| n.id)
    }

    fn refuse_container_name(&self, node: NodeId, name: &Name) -> Result<(), Rejection> {
        match self.containers_of_node(node).find(|c| c.spec.name == *name) {
            Some(holder) => Err(Rejection::NameTaken {
                kind: "container".to_owned(),
                name: name.clone(),
                holder: holder.id.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// Containers find one another by name.
    fn refuse_name_on(&self, network: NetworkId, name: &Name) -> Result<(), Rejection> {
        match self.containers_of_network(network).find(|c| c.spec.name == *name) {
            Some(other) => Err(Rejection::NameTaken {
                kind: "container".to_owned(),
                name: name.clone(),
                holder: format!("{} of {} on network {}", other.id, other.node, self.network(network)?.name()),
            }),
            None => Ok(()),
        }
    }

    /// Takes a container's place in a network, or says why it cannot have it.
    fn join(&mut self, container: &mut Container, wish: &Attachment) -> Result<(), Rejection> {
        let network = self.network(wish.network)?;
        let name = network.name().clone();
        let elsewhere = network.spec.driver.node().is_some_and(|node| node != container.node);
        if elsewhere {
            return Err(Rejection::NetworkElsewhere { network: name, node: container.node });
        }
        if matches!(network.spec.driver, Driver::Overlay) && !network.spec.attachable {
            return Err(Rejection::NotAttachable { network: name });
        }
        self.refuse_without_parent(wish.network, container.node)?;
        if container.endpoints.iter().any(|e| e.network == wish.network) {
            return Err(Rejection::ConnectedAlready { container: container.spec.name.clone(), network: name });
        }
        for endpoint in &container.endpoints {
            let other = self.network(endpoint.network)?;
            let pairs = other.subnets().flat_map(|a| network.subnets().map(move |b| (a.net, b.net)));
            if let Some((a, b)) = pairs.into_iter().find(|(a, b)| overlap(*a, *b)) {
                return Err(Rejection::OverlapInService {
                    first: other.name().clone(),
                    second: name,
                    subnet: a.to_string(),
                    other: b.to_string(),
                });
            }
        }
        self.refuse_name_on(wish.network, &container.spec.name)?;
        if let Some(mac) = wish.mac {
            self.refuse_mac_on(wish.network, mac)?;
        }
        let holder = holder(&container.spec.name);
        let (v4, v6) = self.take_place(wish.network, &holder, wish.v4, wish.v6)?;
        let mac = wish.mac.or(v4.map(MacAddr::of_v4)).or(v6.map(MacAddr::of_v6));
        let Some(mac) = mac else { return Ok(()) };
        let taken: BTreeSet<u8> = container.endpoints.iter().map(|e| e.link).collect();
        let expected = "at most 255 networks for one container";
        let link =
            (0..=u8::MAX).find(|n| !taken.contains(n)).ok_or_else(|| Invalid::new("network", &name, expected))?;
        container.endpoints.push(Endpoint { network: wish.network, link, mac, v4, v6 });
        self.tasks_by_network.insert((wish.network, container.id));
        Ok(())
    }

    fn refuse_mac_on(&self, network: NetworkId, mac: MacAddr) -> Result<(), Rejection> {
        let containers = self.containers_of_network(network).map(|c| (c.spec.name.to_string(), &c.endpoints));
        let tasks = self.tasks_of_network(network).map(|t| (t.name(), &t.endpoints));
        let holder = containers.chain(tasks).find(|(_, all)| all.iter().any(|e| e.network == network && e.mac == mac));
        match holder {
            Some((holder, _)) => Err(Rejection::AddressTaken { address: mac.to_string(), holder }),
            None => Ok(()),
        }
    }

    /// Where ports go that name no address: the first of its bridges that says so.
    pub(super) fn default_binding(&self, container: &Container) -> Option<std::net::IpAddr> {
        container.endpoints.iter().find_map(|e| match &self.networks.get(&e.network)?.spec.driver {
            Driver::Bridge(bridge) => bridge.host_binding,
            Driver::Overlay | Driver::Macvlan(_) => None,
        })
    }

    pub(crate) fn linked(&self, node: NodeId, link: &ContainerLink) -> Result<&Container, Rejection> {
        let found = self.containers_of_node(node).find(|c| c.spec.name == link.container);
        found.ok_or_else(|| not_found("container", &link.container))
    }

    pub(crate) fn containers_of_network(&self, id: NetworkId) -> impl Iterator<Item = &Container> {
        self.tasks_by_network
            .range((id, TaskId(0))..=(id, TaskId(u64::MAX)))
            .filter_map(|(_, c)| self.containers.get(c).map(Arc::as_ref))
    }
}

/// As whom a container holds its places.
fn holder(name: &Name) -> String {
    format!("container {name}")
}
