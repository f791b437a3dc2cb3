//! Subnets: those a user names are checked, those he does not are taken from the cluster's pools, next-fit.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use shoal_common::{
    Invalid, NodeId, Subnet,
    network::{Driver, NetworkSpec},
    subnet::SubnetSpec,
};
use std::{collections::BTreeMap, net::Ipv6Addr};

use crate::{
    command::ClusterSettings,
    ipam::Pool,
    reply::Rejection,
    state::{Cluster, State},
};

/// Where networks of one host have their subnets from, and how long a prefix: Docker's, for its users' firewalls know
/// them.
const LOCAL_POOLS: [(&str, u8); 7] = [
    ("172.17.0.0/16", 16),
    ("172.18.0.0/15", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
    ("10.128.0.0/9", 20),
];

impl State {
    /// The pools of a new network, IPv4 first. Every network has IPv4.
    pub(crate) fn take_subnets(&mut self, spec: &NetworkSpec) -> Result<Vec<Pool>, Rejection> {
        let settings = self.cluster.as_ref().map(|c: &Cluster| c.settings.clone()).ok_or(Rejection::NotInitialised)?;
        let node = spec.driver.node();
        let (mut v4, mut v6) = (None, None);
        for wanted in &spec.subnets {
            let subnet = wanted.settle()?;
            self.refuse_overlap(subnet.net, &spec.driver, spec.allow_overlap)?;
            let family = if subnet.net.addr().is_ipv4() { &mut v4 } else { &mut v6 };
            if family.is_some() {
                return Err(Invalid::new("subnet", subnet.net, "at most one subnet for each address family").into());
            }
            let pool = Pool::new(subnet);
            if pool.total() == 0 {
                return Err(Invalid::new("ip-range", pool.subnet().net, "a range with an address to hand out").into());
            }
            *family = Some(pool);
        }
        if v4.is_none() {
            v4 = Some(Pool::new(match node {
                Some(node) => self.next_local_v4(node)?,
                None => self.next_v4(&settings)?,
            }));
        }
        if v6.is_none() && spec.ipv6 {
            v6 = Some(Pool::new(self.next_v6(&settings)?));
        }
        Ok(v4.into_iter().chain(v6).collect())
    }

    /// Hosts' own links are never overlapped: a host could not tell a container from its neighbour. (On a macvlan they
    /// are neighbours.) A network of one host meets those of the cluster and of that host.
    fn refuse_overlap(&self, net: IpNet, driver: &Driver, allowed: bool) -> Result<(), Rejection> {
        let here = driver.node();
        let is_met = |node: NodeId| here.is_none_or(|here| here == node);
        let on_the_underlay = matches!(driver, Driver::Macvlan(_));
        let links = if on_the_underlay { Vec::new() } else { self.links_met(here) };
        if let Some((node, other)) = links.into_iter().find(|(_, other)| overlap(net, *other)) {
            let hostname = self.nodes.get(&node).map_or("", |n| n.description.hostname.as_str());
            return Err(Rejection::UnderlayOverlap {
                subnet: net.to_string(),
                other: other.to_string(),
                node: format!("{node} ({hostname})"),
            });
        }
        if allowed {
            return Ok(());
        }
        for network in self.networks.values().filter(|n| n.spec.driver.node().is_none_or(is_met)) {
            if let Some(other) = network.subnets().find(|other| overlap(net, other.net)) {
                return Err(Rejection::SubnetOverlap {
                    subnet: net.to_string(),
                    other: other.net.to_string(),
                    holder: format!("network {}", network.name()),
                });
            }
        }
        Ok(())
    }

    /// The links that a network meets: of one host all of its own, which concern nobody else.
    fn links_met(&self, on: Option<NodeId>) -> Vec<(NodeId, IpNet)> {
        match on {
            None => self.clear_links(),
            Some(node) => {
                let links = self.nodes.get(&node).into_iter().flat_map(|n| n.description.underlay.iter().copied());
                links.map(|net| (node, net)).collect()
            }
        }
    }

    fn next_v4(&mut self, settings: &ClusterSettings) -> Result<Subnet, Rejection> {
        let taken = self.taken_v4(None);
        // The pools from the one after whose subnet the last search ended, round to that pool again.
        let start = self.last_subnet_v4.and_then(|last| settings.address_pools.iter().position(|p| p.contains(&last)));
        let (before, from) = settings.address_pools.split_at(start.unwrap_or(0));
        let after = self.last_subnet_v4.map_or(0, |last| u64::from(u32::from(last.broadcast())) + 1);
        let first = from.iter().take(1).map(|pool| (pool, if start.is_some() { after } else { 0 }));
        let rest = from.iter().skip(1).chain(before).chain(from.iter().take(1)).map(|pool| (pool, 0));
        let found = first.chain(rest).find_map(|(pool, at)| first_gap(pool, settings.subnet_prefix_len, at, &taken));
        let Some(net) = found else {
            let pools: Vec<String> = settings.address_pools.iter().map(Ipv4Net::to_string).collect();
            let used = self.networks.values().flat_map(|n| n.subnets()).filter(|s| s.net.addr().is_ipv4()).count();
            return Err(Rejection::PoolExhausted { pool: pools.join(", "), used });
        };
        self.last_subnet_v4 = Some(net);
        settled(IpNet::V4(net))
    }

    /// Of a network of one host: the first that is free there. Those of two hosts may be the same, for they never meet.
    fn next_local_v4(&self, node: NodeId) -> Result<Subnet, Rejection> {
        let taken = self.taken_v4(Some(node));
        let found = LOCAL_POOLS.iter().find_map(|(pool, length)| {
            let pool: Ipv4Net = pool.parse().expect("a constant that is a subnet");
            first_gap(&pool, *length, 0, &taken)
        });
        match found {
            Some(net) => settled(IpNet::V4(net)),
            None => {
                let pools: Vec<&str> = LOCAL_POOLS.iter().map(|(pool, _)| *pool).collect();
                Err(Rejection::PoolExhausted { pool: pools.join(", "), used: taken.len() })
            }
        }
    }

    /// What no new IPv4 subnet (of that host alone, if one is given) may touch: first → last address, disjoint.
    fn taken_v4(&self, on: Option<NodeId>) -> BTreeMap<u64, u64> {
        let is_met = |node: NodeId| on.is_none_or(|on| on == node);
        let networks = self.networks.values().filter(|n| n.spec.driver.node().is_none_or(is_met));
        let networks = networks.flat_map(|n| n.subnets().map(|s| s.net));
        let underlay = self.links_met(on).into_iter().map(|(_, net)| net);
        let mut taken: BTreeMap<u64, u64> = BTreeMap::new();
        for net in networks.chain(underlay) {
            if let IpNet::V4(net) = net {
                // Two subnets are disjoint or nested, so the longer one at each base is all that matters there.
                let (first, last) = (u32::from(net.network()).into(), u32::from(net.broadcast()).into());
                let longest = taken.entry(first).or_insert(last);
                *longest = (*longest).max(last);
            }
        }
        let mut reach = None;
        taken.retain(|_, last| {
            let nested = reach.is_some_and(|r| *last <= r);
            reach = reach.max(Some(*last));
            !nested
        });
        taken
    }

    fn next_v6(&mut self, settings: &ClusterSettings) -> Result<Subnet, Rejection> {
        let ula = settings.ula_prefix;
        let in_use: Vec<IpNet> = self
            .networks
            .values()
            .flat_map(|n| n.subnets().map(|s| s.net))
            .chain(self.clear_links().into_iter().map(|(_, net)| net))
            .filter(|net| overlap(*net, IpNet::V6(ula)))
            .collect();
        let count: u128 = 1 << (64 - ula.prefix_len());
        let base = u128::from(ula.network());
        let start = match self.last_subnet_v6 {
            Some(last) => ((u128::from(last.network()) - base) >> 64) + 1,
            None => 0,
        };
        // Each subnet in use rules out at least one candidate, but a short one (a user's /48) may rule out all.
        let found = (start..count).chain(0..start.min(count)).find_map(|n| {
            let net = Ipv6Net::new(Ipv6Addr::from(base + (n << 64)), 64).expect("64 is a prefix length of IPv6");
            (!in_use.iter().any(|other| overlap(*other, IpNet::V6(net)))).then_some(net)
        });
        let Some(net) = found else {
            return Err(Rejection::PoolExhausted { pool: ula.to_string(), used: in_use.len() });
        };
        self.last_subnet_v6 = Some(net);
        settled(IpNet::V6(net))
    }
}

/// The first subnet of that length in `pool`, at or after the address `at`, that touches nothing in `taken`.
fn first_gap(pool: &Ipv4Net, prefix_len: u8, at: u64, taken: &BTreeMap<u64, u64>) -> Option<Ipv4Net> {
    let size = 1u64 << (32 - prefix_len);
    let (first, last) = (u64::from(u32::from(pool.network())), u64::from(u32::from(pool.broadcast())));
    let mut candidate = at.max(first).next_multiple_of(size);
    while candidate + size - 1 <= last {
        // `taken` is disjoint, so the last that begins inside or before is the last that can reach in.
        match taken.range(..candidate + size).next_back().filter(|(_, end)| **end >= candidate) {
            Some((_, end)) => candidate = (end + 1).next_multiple_of(size),
            None => return Ipv4Net::new(u32::try_from(candidate).ok()?.into(), prefix_len).ok(),
        }
    }
    None
}

pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn settled(net: IpNet) -> Result<Subnet, Rejection> {
    Ok(SubnetSpec { net, gateway: None, ip_range: None, aux: BTreeMap::new() }.settle()?)
}
