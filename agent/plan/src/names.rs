//! Names on the host: how we know that a thing is ours.

use ipnet::IpNet;
use shoal_common::{LinkName, NetworkId, TaskId, Vni, network::BridgeOptions};

use crate::ns::Ns;

/// The nftables table (family `inet`) in each namespace of ours, the host's included. Nobody else's rules go there.
pub const TABLE: &str = "shoal";

/// The table (family `inet`) of the host's namespace by which connections of ours are kept.
pub const IDLE_TABLE: &str = "shoal_idle";

/// Prefix of the host's ends of ways out.
pub const HOST_LINK_PREFIX: &str = LinkName::OWN_UPLINK;
/// Prefix of the ports of the host's bridges.
const HOST_PORT_PREFIX: &str = LinkName::OWN_PORT;
/// Prefix of the host's bridges, unless the user named them.
const HOST_BRIDGE_PREFIX: &str = LinkName::OWN_BRIDGE;
/// Prefix of links that are made in the host's namespace and then move: whoever finds one left over, from a daemon
/// that was killed there, deletes it.
pub const PASSING_PREFIX: &str = "shx~";

/// The alias (`ip link set … alias`) of links in the host's namespace that may have any name: bridges, which users
/// name, and VLAN links. One without it belongs to somebody else, whatever its name is.
pub const MARK: &str = "shoal";

/// The port at 127.0.0.11 to which a task's namespace redirects DNS. Above the ephemeral range, so that it does not
/// get into the way of what a container binds; port 53 itself stays free for it.
pub const RESOLVER_PORT: u16 = 61_053;

/// Sysctls that are read in a namespace of ours: those that are ever set there. (To find one by its name takes the
/// kernel longer the more namespaces there are.)
pub const fn sysctls(ns: Ns) -> &'static [&'static str] {
    match ns {
        Ns::Host => &["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"],
        Ns::Sandbox(_) => &[
            "net/ipv4/ip_forward",
            "net/ipv6/conf/all/forwarding",
            "net/bridge/bridge-nf-call-iptables",
            "net/bridge/bridge-nf-call-ip6tables",
            "net/ipv4/conf/all/send_redirects",
            "net/ipv4/conf/default/send_redirects",
            "net/ipv6/conf/all/disable_ipv6",
            "net/ipv6/conf/default/disable_ipv6",
            "net/ipv6/conf/all/accept_dad",
            "net/ipv6/conf/default/accept_dad",
            CLOSE_WAIT,
        ],
        Ns::Task(_) => &[
            "net/ipv6/conf/all/disable_ipv6",
            "net/ipv6/conf/default/disable_ipv6",
            "net/ipv6/conf/all/accept_dad",
            "net/ipv6/conf/default/accept_dad",
            "net/ipv6/conf/default/accept_ra",
            "net/ipv4/ip_unprivileged_port_start",
        ],
    }
}

/// For how long half-closed connections are tracked.
pub const CLOSE_WAIT: &str = "net/netfilter/nf_conntrack_tcp_timeout_close_wait";

/// Sysctls of one link that are read for each of ours in the host's namespace that is not a container's port
/// ([`is_host_port`]).
pub const LINK_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/conf/", "/route_localnet"),
    ("net/ipv6/conf/", "/disable_ipv6"),
    ("net/ipv6/conf/", "/accept_ra"),
    ("net/ipv6/conf/", "/accept_dad"),
];

/// The link that a sysctl is of, if it is one link's.
pub fn sysctl_link(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("net/ipv4/conf/").or_else(|| path.strip_prefix("net/ipv6/conf/"))?;
    rest.rsplit_once('/').map(|(link, _)| link).filter(|link| !["all", "default"].contains(link))
}

/// Whether a link in the host's namespace is ours by its name. Others are by their [`MARK`]; none else is touched.
pub fn is_ours(link: &LinkName) -> bool {
    let name = link.as_str();
    let digits = |prefix, radix| name.strip_prefix(prefix).and_then(|d| u64::from_str_radix(d, radix).ok());
    let uplink = digits(HOST_LINK_PREFIX, 16).and_then(|n| Vni::try_from(u32::try_from(n).ok()?).ok());
    let bridge = digits(HOST_BRIDGE_PREFIX, 10).is_some_and(|id| host_bridge(NetworkId(id)) == *link);
    name.starts_with(PASSING_PREFIX)
        || bridge
        || uplink.is_some_and(|vni| host_uplink(vni) == *link)
        || is_host_port(link)
}

/// Whether a link in the host's namespace is a container's port on a bridge. There are as many as containers, and their
/// sysctls stay as the kernel has them, so nobody reads those.
pub fn is_host_port(link: &LinkName) -> bool {
    let port = link.as_str().strip_prefix(HOST_PORT_PREFIX).and_then(|rest| {
        let (id, nth) = rest.split_once('-')?;
        Some((u64::from_str_radix(id, 36).ok()?, u8::from_str_radix(nth, 36).ok()?))
    });
    port.is_some_and(|(id, nth)| host_port(TaskId(id), nth) == *link)
}

fn link(name: String) -> LinkName {
    name.parse().expect("our link names have at most 15 bytes")
}

/// The bridge of a network, in its sandbox.
pub fn bridge() -> LinkName {
    link("br0".to_owned())
}

/// The VXLAN link of a network, in its sandbox.
pub fn vxlan() -> LinkName {
    link("vx0".to_owned())
}

/// The sandbox's end of the way out.
pub fn uplink() -> LinkName {
    link("up0".to_owned())
}

/// The host's end of a sandbox's way out: `shx` and the VNI, hex.
pub fn host_uplink(vni: Vni) -> LinkName {
    link(format!("{HOST_LINK_PREFIX}{:x}", vni.get()))
}

/// The bridge of a bridge network: `shb` and the network's number, base 36 when decimal would not fit.
pub fn host_bridge(network: NetworkId) -> LinkName {
    let decimal = format!("{HOST_BRIDGE_PREFIX}{}", network.0);
    let fits = decimal.len() <= LinkName::MAX_BYTES;
    link(if fits { decimal } else { format!("{HOST_BRIDGE_PREFIX}{}", base36(network.0 % HOST_NUMBERS)) })
}

/// The bridge of the network that every host has.
pub fn default_bridge() -> LinkName {
    link(BridgeOptions::DEFAULT_LINK.to_owned())
}

/// An address that IPv6 users of Docker know: the default bridge has it besides its own.
pub fn link_local_gateway() -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::new_assert([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), 64))
}

/// As many numbers as fit a name in 9 digits, base 36: ids are handed out in sequence, so no two that live on one host
/// are that far apart.
const HOST_NUMBERS: u64 = 36u64.pow(9);

/// A container's port on a bridge of the host: `shp`, its number in base 36, and the number of its link.
pub fn host_port(id: TaskId, nth: u8) -> LinkName {
    link(format!("{HOST_PORT_PREFIX}{}-{}", base36(id.0 % HOST_NUMBERS), base36(nth.into())))
}

/// A task's port on the bridge of a sandbox: `t` and the task's number, base 36 when decimal would not fit.
pub fn port(task: TaskId) -> LinkName {
    let decimal = format!("t{}", task.0);
    link(if decimal.len() <= LinkName::MAX_BYTES { decimal } else { format!("t{}", base36(task.0)) })
}

/// The task's own end: eth0, eth1, …
pub fn eth(nth: u8) -> LinkName {
    link(format!("eth{nth}"))
}

fn base36(mut n: u64) -> String {
    let mut digits = Vec::new();
    while n > 0 || digits.is_empty() {
        digits.push(char::from_digit(u32::try_from(n % 36).unwrap_or(0), 36).unwrap_or('0'));
        n /= 36;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_a_link() {
        assert_eq!(port(TaskId(7)).as_str(), "t7");
        assert!(port(TaskId(u64::MAX)).as_str().len() <= LinkName::MAX_BYTES);
        assert_eq!(host_uplink(Vni::LAST).as_str(), "shxffffff");
        assert_eq!(host_port(TaskId(36), 0).as_str(), "shp10-0");
        assert!(host_port(TaskId(u64::MAX), u8::MAX).as_str().len() <= LinkName::MAX_BYTES);
        assert_eq!(host_bridge(NetworkId(7)).as_str(), "shb7");
        assert!(host_bridge(NetworkId(u64::MAX)).as_str().len() <= LinkName::MAX_BYTES);
    }

    #[test]
    fn a_sysctl_of_one_link_is_told_from_those_of_all() {
        assert_eq!(sysctl_link("net/ipv4/conf/br-lan.5/route_localnet"), Some("br-lan.5"));
        assert_eq!(sysctl_link("net/ipv6/conf/all/forwarding"), None);
        assert_eq!(sysctl_link("net/ipv4/ip_forward"), None);
    }

    #[test]
    fn only_what_we_would_call_so_is_ours() {
        for (name, ours) in [
            ("shx1000", true),
            ("shxffffff", true),
            ("shx", false),
            ("shx0", false),
            ("shx01", false),
            ("shxA", false),
            ("shx1000000", false),
            ("eth0", false),
            ("shp10-0", true),
            ("shpa-1z", true),
            ("shp10", false),
            ("shpA-0", false),
            ("shx~1005", true),
            ("shb7", true),
            ("shb07", false),
            ("shb", false),
            ("shoal0", false),
        ] {
            let link: LinkName = name.parse().unwrap();
            assert_eq!(is_ours(&link), ours, "{name}");
            assert!(link.is_reserved() || !ours, "{name}");
        }
    }
}
