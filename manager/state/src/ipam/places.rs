//! Places in networks: what an endpoint or a VIP takes, and who holds how many.

use shoal_common::{
    Invalid, MacAddr, Name, NetworkId, TaskId,
    service::{EndpointMode, NetworkAttachment, ServiceSpec},
    task::Endpoint,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    ipam::subnets::overlap,
    reply::Rejection,
    state::{Network, State, Task, Vip},
};

/// Holders named in a message; the others are counted.
const HOLDERS_NAMED: usize = 5;

impl State {
    /// Whether a task with these networks would get its addresses now.
    pub fn room(&self, networks: &[NetworkAttachment]) -> Result<(), Rejection> {
        networks.iter().try_for_each(|attachment| self.room_in(attachment.network))
    }

    fn room_in(&self, id: NetworkId) -> Result<(), Rejection> {
        let network = self.network(id)?;
        match network.pools.iter().find(|pool| pool.free() == 0) {
            None => Ok(()),
            Some(full) => Err(Rejection::AddressesExhausted {
                network: network.name().clone(),
                subnet: full.subnet().net.to_string(),
                total: full.total(),
                holders: self.holders_of(id),
            }),
        }
    }

    pub(crate) fn network(&self, id: NetworkId) -> Result<&Network, Rejection> {
        self.networks.get(&id).ok_or_else(|| Rejection::NotFound { kind: "network".to_owned(), name: id.to_string() })
    }

    /// `service web 200, service db 54`: the greatest first.
    fn holders_of(&self, id: NetworkId) -> String {
        let mut holders: Vec<(&Name, u64)> = self
            .holders
            .range((id, lowest_name())..)
            .take_while(|((network, _), _)| *network == id)
            .map(|((_, name), places)| (name, *places))
            .collect();
        holders.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        let rest: u64 = holders.iter().skip(HOLDERS_NAMED).map(|(_, places)| places).sum();
        let mut named: Vec<String> =
            holders.iter().take(HOLDERS_NAMED).map(|(name, places)| format!("service {name} {places}")).collect();
        if rest > 0 {
            named.push(format!("{} more services {rest}", holders.len() - HOLDERS_NAMED));
        }
        named.join(", ")
    }

    /// All of a task's endpoints, or none.
    pub(crate) fn take_endpoints(&mut self, task: &mut Task) -> Result<(), Rejection> {
        self.room(&task.networks)?;
        for attachment in &task.networks {
            let (v4, v6) = self.take_place(attachment.network, &task.service_name)?;
            let mac = match (v4, v6) {
                (Some(ip), _) => MacAddr::of_v4(ip),
                (None, Some(ip)) => MacAddr::of_v6(ip),
                (None, None) => continue,
            };
            task.endpoints.push(Endpoint { network: attachment.network, mac, v4, v6 });
            self.tasks_by_network.insert((attachment.network, task.id));
        }
        Ok(())
    }

    pub(crate) fn release_endpoints(&mut self, task: &mut Task) {
        for endpoint in std::mem::take(&mut task.endpoints) {
            self.tasks_by_network.remove(&(endpoint.network, task.id));
            self.release_place(endpoint.network, &task.service_name, endpoint.addresses());
        }
    }

    pub(crate) fn tasks_of_network(&self, id: NetworkId) -> impl Iterator<Item = &Task> {
        self.tasks_by_network
            .range((id, TaskId(0))..=(id, TaskId(u64::MAX)))
            .filter_map(|(_, task)| self.tasks.get(task).map(std::sync::Arc::as_ref))
    }

    pub(crate) fn take_vip(&mut self, id: NetworkId, service: &Name) -> Result<Vip, Rejection> {
        let (v4, v6) = self.take_place(id, service)?;
        Ok(Vip { v4, v6 })
    }

    pub(crate) fn release_vip(&mut self, id: NetworkId, service: &Name, vip: Vip) {
        let addresses = vip.v4.map(IpAddr::V4).into_iter().chain(vip.v6.map(IpAddr::V6));
        self.release_place(id, service, addresses);
    }

    fn take_place(&mut self, id: NetworkId, holder: &Name) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Rejection> {
        self.room_in(id)?;
        let network = self.networks.get_mut(&id).expect("a network with room exists");
        let (mut v4, mut v6) = (None, None);
        for pool in &mut network.pools {
            match pool.take().expect("a pool with a free address yields one") {
                IpAddr::V4(ip) => v4 = Some(ip),
                IpAddr::V6(ip) => v6 = Some(ip),
            }
        }
        let places = self.holders.get(&(id, holder.clone())).copied().unwrap_or(0);
        self.holders.insert((id, holder.clone()), places + 1);
        Ok((v4, v6))
    }

    fn release_place(&mut self, id: NetworkId, holder: &Name, addresses: impl Iterator<Item = IpAddr>) {
        let network = self.networks.get_mut(&id).expect("a network outlives the addresses in use on it");
        for ip in addresses {
            let was_used = network.pools.iter_mut().any(|pool| pool.release(ip));
            assert!(was_used, "address {ip} of {holder} was in use on {id}");
        }
        let key = (id, holder.clone());
        match self.holders.get(&key).copied() {
            Some(places) if places > 1 => drop(self.holders.insert(key, places - 1)),
            Some(_) | None => drop(self.holders.remove(&key)),
        }
    }

    /// The networks of a service exist, are named once each, and could meet on one host.
    pub(crate) fn check_networks(&self, spec: &ServiceSpec) -> Result<(), Rejection> {
        let mut seen: Vec<&Network> = Vec::new();
        for attachment in &spec.networks {
            let network = self.network(attachment.network)?;
            if seen.iter().any(|other| other.id == network.id) {
                return Err(Invalid::new("network", network.name(), "each network once").into());
            }
            for other in &seen {
                let clash = other
                    .subnets()
                    .flat_map(|a| network.subnets().map(move |b| (a.net, b.net)))
                    .find(|(a, b)| overlap(*a, *b));
                if let Some((a, b)) = clash {
                    return Err(Rejection::OverlapInService {
                        first: other.name().clone(),
                        second: network.name().clone(),
                        subnet: a.to_string(),
                        other: b.to_string(),
                    });
                }
            }
            seen.push(network);
        }
        Ok(())
    }
}

/// Whether a service of this spec has a VIP on each of its networks.
pub(crate) fn wants_vips(spec: &ServiceSpec) -> bool {
    match spec.endpoint_mode {
        EndpointMode::Vip => true,
        EndpointMode::DnsRr => false,
    }
}

/// No name is empty, and `0` sorts before every other character that a name may begin with.
fn lowest_name() -> Name {
    "0".parse().expect("0 is a name")
}
