//! Which of the hosts' links the networks of the cluster keep clear of.
//!
//! A host could not tell a container from its neighbour, so no network overlaps a link of any host. But a host says
//! itself what its links are, and a VPN with a /8 is honest: without a limit one host would leave no subnet for the
//! whole cluster. So half of each address pool is kept for networks, whatever the hosts say. The links that are left
//! out are reported with their host.

use ipnet::{IpNet, Ipv4Net};
use shoal_common::NodeId;
use std::collections::BTreeSet;

use crate::{command::ClusterSettings, state::State};

/// The shortest prefix of a link that is kept clear of, for IPv4 and IPv6. No link has that many neighbours: a shorter
/// one is a route to everywhere.
const SHORTEST: (u8, u8) = (8, 16);

#[derive(Default)]
struct Links {
    clear: Vec<(NodeId, IpNet)>,
    overlapped: Vec<(NodeId, IpNet)>,
}

impl State {
    /// The links of all hosts that networks keep clear of, each with a host that has it.
    pub(crate) fn clear_links(&self) -> Vec<(NodeId, IpNet)> {
        self.links().clear
    }

    /// The links that networks may overlap although a host has them, because keeping clear of them would leave less
    /// than half of an address pool.
    pub fn overlapped_links(&self) -> Vec<(NodeId, IpNet)> {
        self.links().overlapped
    }

    fn links(&self) -> Links {
        let mut found = Links::default();
        let Some(cluster) = &self.cluster else { return found };
        let all = self.nodes.values().flat_map(|n| n.description.underlay.iter().map(|net| (net.trunc(), n.id)));
        // Each link once, the smallest first: the links of ordinary networks are the last to be left out.
        let mut links: Vec<(IpNet, NodeId)> = all.collect();
        links.sort_by_key(|(net, node)| (std::cmp::Reverse(net.prefix_len()), *net, *node));
        let mut budget = Budget::new(&cluster.settings);
        let mut kept: BTreeSet<IpNet> = BTreeSet::new();
        for (net, node) in links {
            if kept.contains(&net) {
                continue;
            }
            if budget.take(net) {
                kept.insert(net);
                found.clear.push((node, net));
            } else {
                found.overlapped.push((node, net));
            }
        }
        found
    }
}

/// How many addresses of each pool links may still take.
struct Budget(Vec<(IpNet, u128)>);

impl Budget {
    fn new(settings: &ClusterSettings) -> Self {
        let v4 = settings.address_pools.iter().map(|pool: &Ipv4Net| IpNet::V4(*pool));
        let pools = v4.chain([IpNet::V6(settings.ula_prefix)]);
        Self(pools.map(|pool| (pool, addresses(pool) / 2)).collect())
    }

    fn take(&mut self, link: IpNet) -> bool {
        let shortest = if link.addr().is_ipv4() { SHORTEST.0 } else { SHORTEST.1 };
        if link.prefix_len() < shortest {
            return false;
        }
        let needed = |pool: &IpNet| {
            if link.contains(pool) { Some(addresses(*pool)) } else { pool.contains(&link).then(|| addresses(link)) }
        };
        if self.0.iter().any(|(pool, left)| needed(pool).is_some_and(|n| n > *left)) {
            return false;
        }
        for (pool, left) in &mut self.0 {
            *left -= needed(pool).unwrap_or(0);
        }
        true
    }
}

fn addresses(net: IpNet) -> u128 {
    let bits = if net.addr().is_ipv4() { 32 } else { 128 };
    1u128.checked_shl(bits - u32::from(net.prefix_len())).unwrap_or(u128::MAX)
}
