//! The text of each whole nftables table, and its digest.
//!
//! nft 1.0.6 wants one statement a line. A table's comment bears the digest of its rules, by which an observer tells
//! which of our tables it sees.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{names, world::Table};

fn table(body: &str, backends: BTreeSet<IpAddr>) -> Table {
    let digest = HEXLOWER.encode(&Sha256::digest(body.as_bytes())[..16]);
    let text = format!("table inet {} {{\n  comment \"{digest}\"\n{body}}}\n", names::TABLE);
    Table { text, digest, backends }
}

/// A VIP and where its connections go, of one address family each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualService {
    pub vip4: Option<Ipv4Addr>,
    pub vip6: Option<Ipv6Addr>,
    pub backends4: BTreeSet<Ipv4Addr>,
    pub backends6: BTreeSet<Ipv6Addr>,
}

/// A network's sandbox: VIPs are translated to a backend chosen at random per connection, so the client's address is
/// kept. A VIP without a backend refuses at once. `masquerade`: what leaves by the uplink bears the uplink's address.
pub fn sandbox(services: &[VirtualService], masquerade: bool) -> Table {
    let mut chains = String::new();
    let mut map4 = Vec::new();
    let mut map6 = Vec::new();
    let mut dead4 = Vec::new();
    let mut dead6 = Vec::new();
    let mut all4 = BTreeSet::new();
    let mut all6 = BTreeSet::new();
    for (n, service) in services.iter().enumerate() {
        if let Some(vip) = service.vip4 {
            match choose("ip", &service.backends4) {
                Some(rule) => {
                    _ = writeln!(chains, "  chain svc{n}_4 {{\n    {rule}\n  }}");
                    map4.push(format!("{vip} : goto svc{n}_4"));
                    all4.extend(&service.backends4);
                }
                None => dead4.push(vip.to_string()),
            }
        }
        if let Some(vip) = service.vip6 {
            match choose("ip6", &service.backends6) {
                Some(rule) => {
                    _ = writeln!(chains, "  chain svc{n}_6 {{\n    {rule}\n  }}");
                    map6.push(format!("{vip} : goto svc{n}_6"));
                    all6.extend(&service.backends6);
                }
                None => dead6.push(vip.to_string()),
            }
        }
    }
    let mut body = chains;
    body.push_str("  chain pre {\n    type nat hook prerouting priority dstnat; policy accept\n");
    if !map4.is_empty() {
        _ = writeln!(body, "    ip daddr vmap {{ {} }}", map4.join(", "));
    }
    if !map6.is_empty() {
        _ = writeln!(body, "    ip6 daddr vmap {{ {} }}", map6.join(", "));
    }
    body.push_str("  }\n  chain post {\n    type nat hook postrouting priority srcnat; policy accept\n");
    // A backend that is sent to itself would see its own address as the client's, and answer past the translation.
    if !all4.is_empty() {
        let pairs: Vec<String> = all4.iter().map(|ip| format!("{ip} . {ip}")).collect();
        _ = writeln!(body, "    ct status dnat ip saddr . ip daddr {{ {} }} masquerade", pairs.join(", "));
    }
    if !all6.is_empty() {
        let pairs: Vec<String> = all6.iter().map(|ip| format!("{ip} . {ip}")).collect();
        _ = writeln!(body, "    ct status dnat ip6 saddr . ip6 daddr {{ {} }} masquerade", pairs.join(", "));
    }
    if masquerade {
        _ = writeln!(body, "    oifname \"{}\" masquerade", names::uplink());
    }
    body.push_str("  }\n  chain in {\n    type filter hook input priority filter; policy accept\n");
    for (family, dead) in [("ip", &dead4), ("ip6", &dead6)] {
        if !dead.is_empty() {
            let dead = dead.join(", ");
            _ = writeln!(body, "    {family} daddr {{ {dead} }} meta l4proto tcp reject with tcp reset");
            _ = writeln!(body, "    {family} daddr {{ {dead} }} reject");
        }
    }
    body.push_str("  }\n");
    let backends = all4.into_iter().map(IpAddr::V4).chain(all6.into_iter().map(IpAddr::V6)).collect();
    table(&body, backends)
}

fn choose<A: std::fmt::Display + Ord>(family: &str, backends: &BTreeSet<A>) -> Option<String> {
    let mut sorted = backends.iter();
    let first = sorted.next()?;
    if backends.len() == 1 {
        return Some(format!("dnat {family} to {first}"));
    }
    let map: Vec<String> = backends.iter().enumerate().map(|(i, ip)| format!("{i} : {ip}")).collect();
    Some(format!("dnat {family} to numgen random mod {} map {{ {} }}", backends.len(), map.join(", ")))
}

/// A task: what it asks 127.0.0.11 goes to the resolver's own port, so that port 53 stays free for the container.
pub fn task() -> Table {
    let port = names::RESOLVER_PORT;
    let body = format!(
        "  chain out {{\n    type nat hook output priority -100; policy accept\n    \
         ip daddr 127.0.0.11 udp dport 53 dnat ip to 127.0.0.11:{port}\n    \
         ip daddr 127.0.0.11 tcp dport 53 dnat ip to 127.0.0.11:{port}\n  }}\n"
    );
    table(&body, BTreeSet::new())
}

/// The host: the way out of the sandboxes, none from one to another, and VXLAN from hosts of the cluster only.
pub fn host(peers: &BTreeSet<IpAddr>, data_path_port: u16) -> Table {
    let uplinks = format!("\"{}*\"", names::HOST_LINK_PREFIX);
    let mut body = format!(
        "  chain forward {{\n    type filter hook forward priority filter; policy accept\n    \
         iifname {uplinks} oifname {uplinks} counter drop\n  }}\n  chain post {{\n    \
         type nat hook postrouting priority srcnat; policy accept\n    \
         iifname {uplinks} oifname != {uplinks} masquerade\n  }}\n  chain in {{\n    \
         type filter hook input priority filter; policy accept\n"
    );
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = peers.iter().partition(|ip| ip.is_ipv4());
    for (family, peers) in [("ip", v4), ("ip6", v6)] {
        if !peers.is_empty() {
            let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
            _ = writeln!(body, "    udp dport {data_path_port} {family} saddr {{ {} }} accept", peers.join(", "));
        }
    }
    _ = writeln!(body, "    udp dport {data_path_port} counter drop\n  }}");
    table(&body, BTreeSet::new())
}
