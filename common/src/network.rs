//! Networks: what a user asks for.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use crate::{Invalid, LinkName, Mtu, Name, NodeId, name::Labels, subnet::SubnetSpec};

/// How a network is realised on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// One layer-2 segment over all hosts, by VXLAN (RFC 7348).
    Overlay,
    /// A bridge on one host.
    Bridge(BridgeOptions),
    /// Links of their own on a link of the host: containers are neighbours of the host's neighbours.
    Macvlan(MacvlanOptions),
}

impl Driver {
    /// The host to which the network is confined; `None`: it is the cluster's.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Driver::Bridge(bridge) => Some(bridge.node),
            Driver::Overlay | Driver::Macvlan(_) => None,
        }
    }

    /// Whether that host can be on the network. One that cannot has no parent for its links.
    pub fn reaches(&self, node: NodeId) -> bool {
        match self {
            Driver::Overlay => true,
            Driver::Bridge(bridge) => bridge.node == node,
            Driver::Macvlan(macvlan) => macvlan.parent_on(node).is_some(),
        }
    }

    /// As Docker's users know it.
    pub fn scope(&self) -> &'static str {
        if self.node().is_some() { "local" } else { "cluster" }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Driver::Overlay => "overlay",
            Driver::Bridge(_) => "bridge",
            Driver::Macvlan(_) => "macvlan",
        })
    }
}

/// What is particular to a bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeOptions {
    pub node: NodeId,
    /// The bridge's name in the host's namespace; by default `shb` and the network's number.
    pub link: Option<LinkName>,
    /// Whether its containers reach one another.
    pub icc: bool,
    /// Whether what leaves by another link bears the host's address.
    pub masquerade: bool,
    /// Where ports are published that name no address.
    pub host_binding: Option<IpAddr>,
    /// The host's own, to which containers go that name no network.
    pub is_default: bool,
}

impl BridgeOptions {
    /// The name and the link of the network that every host has.
    pub const DEFAULT_NAME: &'static str = "bridge";
    pub const DEFAULT_LINK: &'static str = "shoal0";

    pub fn on(node: NodeId) -> Self {
        Self { node, link: None, icc: true, masquerade: true, host_binding: None, is_default: false }
    }
}

/// What is particular to a macvlan network. It is of the whole cluster, so that two hosts on one LAN never give out
/// one address twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacvlanOptions {
    /// The link of a host on which containers' links are made; `eth0.50` is VLAN 50 on eth0, made on demand. None: only
    /// the hosts below can be on the network.
    pub parent: Option<LinkName>,
    /// Hosts on which it is another.
    pub parents: BTreeMap<NodeId, LinkName>,
    pub mode: MacvlanMode,
}

impl MacvlanOptions {
    pub fn parent_on(&self, node: NodeId) -> Option<&LinkName> {
        self.parents.get(&node).or(self.parent.as_ref())
    }
}

/// Whom a macvlan link reaches (`ip-link`(8)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MacvlanMode {
    #[default]
    Bridge,
    Private,
    Vepa,
    Passthru,
}

impl fmt::Display for MacvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
        })
    }
}

impl FromStr for MacvlanMode {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "bridge" | "" => Ok(Self::Bridge),
            "private" => Ok(Self::Private),
            "vepa" => Ok(Self::Vepa),
            "passthru" => Ok(Self::Passthru),
            _ => Err(Invalid::new("macvlan_mode", s, "bridge, private, vepa or passthru")),
        }
    }
}

/// `shoal network create`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    pub name: Name,
    pub driver: Driver,
    /// At most one per address family. A family that is wanted but not listed is taken from the cluster's pool.
    pub subnets: Vec<SubnetSpec>,
    /// Dual stack: an IPv6 subnet too, from the ULA pool if none is listed.
    pub ipv6: bool,
    /// No way out, and none in.
    pub internal: bool,
    /// Containers that belong to no service may join.
    pub attachable: bool,
    /// The user says that an overlap with another network is meant. The two never meet on any host.
    pub allow_overlap: bool,
    /// `--opt mtu=` (or `com.docker.network.driver.mtu`); by default the underlay's less VXLAN's overhead.
    pub mtu: Option<Mtu>,
    #[serde(default)]
    pub labels: Labels,
}
