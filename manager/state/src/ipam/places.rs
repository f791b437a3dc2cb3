//! Places in networks: what an endpoint or a VIP takes, and who holds how many.

use shoal_common::{
    Invalid, MacAddr, Name, NetworkId, TaskId,
    service::{EndpointMode, NetworkAttachment, ServiceSpec},
    task::Endpoint,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    ipam::{Pool, subnets::overlap},
    reply::Rejection,
    state::{Network, State, Task, Vip},
};

/// Holders named in a message; the others are counted.
const HOLDERS_NAMED: usize = 5;

impl State {
    /// Whether a task with these networks would get its addresses now.
    pub fn room(&self, networks: &[NetworkAttachment]) -> Result<(), Rejection> {
        networks.iter().try_for_each(|attachment| self.room_in(attachment.network, &[]))
    }

    /// An address is there in each subnet that is not `spared`.
    fn room_in(&self, id: NetworkId, spared: &[IpAddr]) -> Result<(), Rejection> {
        let network = self.network(id)?;
        let is_spared = |pool: &Pool| spared.iter().any(|ip| pool.subnet().net.contains(ip));
        match network.pools.iter().find(|pool| pool.free() == 0 && !is_spared(pool)) {
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
        let mut holders: Vec<(&String, u64)> = self
            .holders
            .range((id, String::new())..)
            .take_while(|((network, _), _)| *network == id)
            .map(|((_, name), places)| (name, *places))
            .collect();
        holders.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        let rest: u64 = holders.iter().skip(HOLDERS_NAMED).map(|(_, places)| places).sum();
        let mut named: Vec<String> =
            holders.iter().take(HOLDERS_NAMED).map(|(name, places)| format!("{name} {places}")).collect();
        if rest > 0 {
            named.push(format!("{} more {rest}", holders.len() - HOLDERS_NAMED));
        }
        named.join(", ")
    }

    /// All of a task's endpoints, or none.
    pub(crate) fn take_endpoints(&mut self, task: &mut Task) -> Result<(), Rejection> {
        self.room(&task.networks)?;
        for attachment in &task.networks {
            let (v4, v6) = self.take_place(attachment.network, &holder(&task.service_name), None, None)?;
            let mac = match (v4, v6) {
                (Some(ip), _) => MacAddr::of_v4(ip),
                (None, Some(ip)) => MacAddr::of_v6(ip),
                (None, None) => continue,
            };
            // Beyond 255 networks no service is made.
            let link = u8::try_from(task.endpoints.len()).unwrap_or(u8::MAX);
            task.endpoints.push(Endpoint { network: attachment.network, link, mac, v4, v6 });
            self.tasks_by_network.insert((attachment.network, task.id));
        }
        Ok(())
    }

    /// And its ports.
    pub(crate) fn release_endpoints(&mut self, task: &mut Task) {
        task.ports.clear();
        for endpoint in std::mem::take(&mut task.endpoints) {
            self.tasks_by_network.remove(&(endpoint.network, task.id));
            self.release_place(endpoint.network, &holder(&task.service_name), endpoint.addresses());
        }
    }

    pub(crate) fn tasks_of_network(&self, id: NetworkId) -> impl Iterator<Item = &Task> {
        self.tasks_by_network
            .range((id, TaskId(0))..=(id, TaskId(u64::MAX)))
            .filter_map(|(_, task)| self.tasks.get(task).map(std::sync::Arc::as_ref))
    }

    pub(crate) fn take_vip(&mut self, id: NetworkId, service: &Name) -> Result<Vip, Rejection> {
        let (v4, v6) = self.take_place(id, &holder(service), None, None)?;
        Ok(Vip { v4, v6 })
    }

    pub(crate) fn release_vip(&mut self, id: NetworkId, service: &Name, vip: Vip) {
        let addresses = vip.v4.map(IpAddr::V4).into_iter().chain(vip.v6.map(IpAddr::V6));
        self.release_place(id, &holder(service), addresses);
    }

    /// An address of each family that the network has: the one that is wanted, else the next. On a refusal addresses
    /// may have been taken: the caller's command is refused as a whole.
    pub(crate) fn take_place(
        &mut self,
        id: NetworkId,
        holder: &str,
        wanted4: Option<Ipv4Addr>,
        wanted6: Option<Ipv6Addr>,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Rejection> {
        let wanted: Vec<IpAddr> = wanted4.map(IpAddr::V4).into_iter().chain(wanted6.map(IpAddr::V6)).collect();
        self.room_in(id, &wanted)?;
        let network = self.networks.get_mut(&id).expect("a network with room exists");
        let has = |v6: bool| network.pools.iter().any(|p| p.subnet().net.addr().is_ipv6() == v6);
        for (field, wanted, there) in
            [("ip", wanted4.map(IpAddr::V4), has(false)), ("ip6", wanted6.map(IpAddr::V6), has(true))]
        {
            if let Some(wanted) = wanted.filter(|_| !there) {
                let expected = format!("none: network {} has no subnet of that family", network.spec.name);
                return Err(Invalid::new(field, wanted, expected).into());
            }
        }
        let (mut v4, mut v6) = (None, None);
        let mut taken = None;
        for pool in &mut network.pools {
            let is_v4 = pool.subnet().net.addr().is_ipv4();
            let wanted = if is_v4 { wanted4.map(IpAddr::V4) } else { wanted6.map(IpAddr::V6) };
            let ip = match wanted {
                None => pool.take().expect("a pool with a free address yields one"),
                Some(ip) if pool.is_used(ip) => {
                    taken = Some(ip);
                    break;
                }
                Some(ip) if pool.take_exactly(ip) => ip,
                Some(ip) => {
                    let field = if is_v4 { "ip" } else { "ip6" };
                    return Err(Invalid::new(field, ip, format!("an address {}", pool.has())).into());
                }
            };
            match ip {
                IpAddr::V4(ip) => v4 = Some(ip),
                IpAddr::V6(ip) => v6 = Some(ip),
            }
        }
        if let Some(ip) = taken {
            return Err(Rejection::AddressTaken { address: ip.to_string(), holder: self.holder_of(id, ip) });
        }
        let places = self.holders.get(&(id, holder.to_owned())).copied().unwrap_or(0);
        self.holders.insert((id, holder.to_owned()), places + 1);
        Ok((v4, v6))
    }

    /// Who has this address now, for people.
    fn holder_of(&self, id: NetworkId, ip: IpAddr) -> String {
        let on = |all: &[Endpoint]| all.iter().any(|e| e.network == id && e.addresses().any(|a| a == ip));
        let task = self.tasks_of_network(id).find(|t| on(&t.endpoints)).map(|t| format!("task {}", t.name()));
        let container =
            || self.containers_of_network(id).find(|c| on(&c.endpoints)).map(|c| format!("container {}", c.spec.name));
        task.or_else(container).unwrap_or_else(|| "a service's VIP".to_owned())
    }

    pub(crate) fn rename_holder(&mut self, id: NetworkId, old: &str, new: &str) {
        if let Some(places) = self.holders.remove(&(id, old.to_owned())) {
            self.holders.insert((id, new.to_owned()), places);
        }
    }

    pub(crate) fn release_place(&mut self, id: NetworkId, holder: &str, addresses: impl Iterator<Item = IpAddr>) {
        let network = self.networks.get_mut(&id).expect("a network outlives the addresses in use on it");
        for ip in addresses {
            let was_used = network.pools.iter_mut().any(|pool| pool.release(ip));
            assert!(was_used, "address {ip} of {holder} was in use on {id}");
        }
        let key = (id, holder.to_owned());
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
            if network.spec.driver.node().is_some() {
                let driver = network.spec.driver.to_string();
                return Err(Rejection::LocalNetwork { network: network.name().clone(), driver });
            }
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

/// As whom a service holds its places.
fn holder(service: &Name) -> String {
    format!("service {service}")
}
