//! Networks.

use shoal_common::{
    Invalid, LinkName, NetworkId, NodeId, ServiceId,
    container::Wanted,
    name::Labels,
    network::{BridgeOptions, Driver, NetworkSpec},
    node::DefaultBridge,
    subnet::SubnetSpec,
};
use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, not_found};
use crate::{
    reply::{Outcome, Rejection, Reply},
    state::{Network, State},
};

/// What every host has.
const PREDEFINED: [&str; 3] = [BridgeOptions::DEFAULT_NAME, "host", "none"];
/// Users named in a refusal; the others are counted.
const USERS_NAMED: usize = 5;

impl State {
    pub(super) fn create_network(&mut self, entry: Entry, spec: &NetworkSpec) -> Outcome {
        let node = spec.driver.node();
        if let Some(node) = node.filter(|node| !self.nodes.contains_key(node)) {
            return Err(not_found("node", node));
        }
        let predefined = match &spec.driver {
            Driver::Bridge(bridge) => bridge.is_default,
            Driver::Overlay | Driver::Macvlan(_) => false,
        };
        if PREDEFINED.contains(&spec.name.as_str()) && !predefined {
            let expected = "another name: every host has networks called bridge, host and none";
            return Err(Invalid::new("name", &spec.name, expected).into());
        }
        // Where both can be meant there is but one of a name.
        let meets = |other: Option<NodeId>| other.is_none() || node.is_none() || other == node;
        let taken = |n: &&Network| *n.name() == spec.name && meets(n.spec.driver.node());
        if let Some(holder) = self.networks.values().find(taken) {
            return Err(Rejection::NameTaken {
                kind: "network".to_owned(),
                name: spec.name.clone(),
                holder: holder.id.to_string(),
            });
        }
        let pools = self.take_subnets(spec)?;
        self.refuse_bridge_link(spec)?;
        let vni = match spec.driver {
            Driver::Overlay => Some(self.take_vni()?),
            Driver::Bridge(_) | Driver::Macvlan(_) => None,
        };
        let id = NetworkId(self.next_id());
        self.networks.insert(id, Network { id, spec: spec.clone(), vni, pools, created: entry.at });
        Ok(Reply::Network(id))
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Outcome {
        let network = self.networks.get(&id).ok_or_else(|| not_found("network", id))?;
        if matches!(&network.spec.driver, Driver::Bridge(bridge) if bridge.is_default) {
            return Err(Rejection::PredefinedNetwork { network: network.name().to_string() });
        }
        let services = self.services_of_network(id).map(|s| format!("service {}", s.spec.name));
        // Tasks of a service that still names the network are covered by the service.
        let leaving = self
            .tasks_of_network(id)
            .filter(|t| !self.services_by_network.contains(&(id, t.service)))
            .map(|t| format!("task {} (still ending)", t.name()));
        let containers = self.containers_of_network(id).map(|c| format!("container {} of {}", c.spec.name, c.node));
        let users: BTreeSet<String> = services.chain(leaving).chain(containers).collect();
        if users.is_empty() {
            self.networks.remove(&id);
            return Ok(Reply::Done);
        }
        let mut named: Vec<String> = users.iter().take(USERS_NAMED).cloned().collect();
        if users.len() > USERS_NAMED {
            named.push(format!("{} more", users.len() - USERS_NAMED));
        }
        Err(Rejection::NetworkInUse { network: network.name().clone(), users: named.join(", ") })
    }

    /// Somebody is still on it, and all of them have been told to end.
    pub fn is_only_ended_on(&self, network: NetworkId) -> bool {
        let mut tasks = self.tasks_of_network(network).peekable();
        let mut containers = self.containers_of_network(network).peekable();
        (tasks.peek().is_some() || containers.peek().is_some())
            && self.services_of_network(network).next().is_none()
            && tasks.all(|task| !self.services.contains_key(&task.service))
            && containers.all(|container| container.wanted == Wanted::Removed)
    }

    /// A macvlan may be of some hosts alone.
    pub(super) fn refuse_without_parent(&self, id: NetworkId, node: NodeId) -> Result<(), Rejection> {
        let network = self.network(id)?;
        if network.spec.driver.reaches(node) {
            return Ok(());
        }
        let node = self.nodes.get(&node).map_or_else(|| node.to_string(), |n| n.description.hostname.clone());
        Err(Rejection::NoParent { network: network.name().clone(), node })
    }

    /// Two bridges of one host have two names.
    fn refuse_bridge_link(&self, spec: &NetworkSpec) -> Result<(), Rejection> {
        let Driver::Bridge(new) = &spec.driver else { return Ok(()) };
        let clash = |n: &&Network| match &n.spec.driver {
            Driver::Bridge(other) => other.node == new.node && new.link.is_some() && other.link == new.link,
            Driver::Overlay | Driver::Macvlan(_) => false,
        };
        match (self.networks.values().find(clash), &new.link) {
            (Some(holder), Some(link)) => {
                let expected = format!("another link: that is the bridge of network {}", holder.name());
                Err(Invalid::new("com.docker.network.bridge.name", link, expected).into())
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// A host's default bridge, as its daemon wants it. One that somebody is on is left as it is.
    pub(super) fn ensure_default_bridge(&mut self, entry: Entry, node: NodeId) -> Result<(), Rejection> {
        let wanted = self.nodes.get(&node).and_then(|n| n.description.default_bridge.clone());
        let wanted = wanted.map(|wanted| default_bridge_spec(node, wanted)).transpose()?;
        let there = self.default_bridge(node).and_then(|id| self.networks.get(&id));
        if let Some((id, spec)) = there.map(|n| (n.id, &n.spec)) {
            let is_used = self.containers_of_network(id).next().is_some() || self.tasks_of_network(id).next().is_some();
            if is_used || wanted.as_ref() == Some(spec) {
                return Ok(());
            }
            self.networks.remove(&id);
        }
        wanted.map_or(Ok(()), |spec| self.create_network(entry, &spec).map(drop))
    }

    /// The networks of a host go with it.
    pub(super) fn forget_networks_of(&mut self, node: NodeId) {
        let gone: Vec<NetworkId> =
            self.networks.values().filter(|n| n.spec.driver.node() == Some(node)).map(|n| n.id).collect();
        for id in gone {
            self.networks.remove(&id);
        }
    }

    pub(crate) fn services_of_network(&self, id: NetworkId) -> impl Iterator<Item = &crate::state::Service> {
        self.services_by_network
            .range((id, ServiceId(0))..=(id, ServiceId(u64::MAX)))
            .filter_map(|(_, service)| self.services.get(service))
    }
}

fn default_bridge_spec(node: NodeId, wanted: DefaultBridge) -> Result<NetworkSpec, Invalid> {
    let v4 = wanted.bip.map(|bip| SubnetSpec {
        net: bip.trunc(),
        gateway: Some(bip.addr()),
        ip_range: wanted.fixed_cidr,
        aux: BTreeMap::new(),
    });
    let v6 = wanted.fixed_cidr_v6.filter(|_| wanted.ipv6);
    let v6 = v6.map(|net| SubnetSpec { net, gateway: None, ip_range: None, aux: BTreeMap::new() });
    let link: LinkName = BridgeOptions::DEFAULT_LINK.parse()?;
    Ok(NetworkSpec {
        name: BridgeOptions::DEFAULT_NAME.parse()?,
        driver: Driver::Bridge(BridgeOptions { link: Some(link), is_default: true, ..BridgeOptions::on(node) }),
        subnets: v4.into_iter().chain(v6).collect(),
        ipv6: wanted.ipv6,
        internal: false,
        attachable: true,
        allow_overlap: false,
        mtu: wanted.mtu,
        labels: Labels::new(),
    })
}
