//! Names on the host: how we know that a thing is ours.

use shoal_common::{LinkName, TaskId, Vni};

/// The nftables table (family `inet`) in each namespace of ours, the host's included. Nobody else's rules go there.
pub const TABLE: &str = "shoal";

/// Prefix of our links in the host's namespace.
pub const HOST_LINK_PREFIX: &str = "shx";

/// The port at 127.0.0.11 to which a task's namespace redirects DNS. Above the ephemeral range, so that it does not
/// get into the way of what a container binds; port 53 itself stays free for it.
pub const RESOLVER_PORT: u16 = 61_053;

/// Sysctls that are read in every namespace of ours.
pub const SYSCTLS: &[&str] = &[
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
    "net/ipv6/conf/default/accept_ra",
    "net/ipv4/conf/br0/send_redirects",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
];

/// Whether a link in the host's namespace is ours: [`host_uplink`] of some VNI. No other is touched there.
pub fn is_ours(link: &LinkName) -> bool {
    let digits = link.as_str().strip_prefix(HOST_LINK_PREFIX);
    let vni = digits.and_then(|d| u32::from_str_radix(d, 16).ok()).and_then(|n| Vni::try_from(n).ok());
    vni.is_some_and(|vni| host_uplink(vni) == *link)
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
    while n > 0 {
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
        ] {
            assert_eq!(is_ours(&name.parse().unwrap()), ours, "{name}");
        }
    }
}
