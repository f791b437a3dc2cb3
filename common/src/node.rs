//! Hosts of the cluster.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::{Invalid, Mtu, service::Amount};
use ipnet::IpNet;

/// What a node's certificate lets it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    Worker,
    Manager,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Worker => "worker",
            Role::Manager => "manager",
        })
    }
}

impl FromStr for Role {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "worker" => Ok(Role::Worker),
            "manager" => Ok(Role::Manager),
            _ => Err(Invalid::new("role", s, "worker or manager")),
        }
    }
}

/// Whether the scheduler may use a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Availability {
    #[default]
    Active,
    /// Keeps what it has, gets nothing new.
    Pause,
    /// Gets nothing new, and what it has moves away.
    Drain,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        })
    }
}

impl FromStr for Availability {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "active" => Ok(Self::Active),
            "pause" => Ok(Self::Pause),
            "drain" => Ok(Self::Drain),
            _ => Err(Invalid::new("availability", s, "active, pause or drain")),
        }
    }
}

/// Whether a node is heard from: decided by the leader's clock, then replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// Registered, not heard from yet.
    Unknown,
    Ready,
    Down,
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Down => "down",
        })
    }
}

/// What a host says of itself when it joins, and again whenever its agent connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    pub hostname: String,
    /// Where other hosts reach this host's daemon (TCP, mutual TLS).
    pub control_addr: SocketAddr,
    /// This host's VXLAN tunnel end point.
    pub vtep: IpAddr,
    /// The MTU of the link that bears `vtep`.
    pub underlay_mtu: Mtu,
    /// Subnets on this host's own links: a network must not overlap them.
    pub underlay: Vec<IpNet>,
    pub capacity: Amount,
    /// `linux`.
    pub os: String,
    /// `x86_64`, as `uname -m` says.
    pub arch: String,
    /// The version of its `shoal`.
    pub version: String,
    /// By which other hosts reach this one, on the link that bears `vtep`: at most one of each family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// `None`: the host has opted out of a default bridge.
    #[serde(default)]
    pub default_bridge: Option<DefaultBridge>,
}

/// How a host wants its default bridge (`--bip`, `--fixed-cidr`, `--ipv6`, `--fixed-cidr-v6`, `--mtu` of its daemon).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultBridge {
    /// The bridge's own address and prefix length; else the first subnet that is free on the host.
    pub bip: Option<IpNet>,
    pub fixed_cidr: Option<IpNet>,
    pub ipv6: bool,
    /// The IPv6 subnet; else one of the cluster's ULA pool.
    pub fixed_cidr_v6: Option<IpNet>,
    pub mtu: Option<Mtu>,
}
