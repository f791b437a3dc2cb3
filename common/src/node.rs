//! Hosts of the cluster.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::{Invalid, Level, Mtu, service::Amount};
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
#[serde(deny_unknown_fields)]
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
    /// Which entries of the managers' log its `shoal` understands.
    #[serde(default)]
    pub level: Level,
    /// By which other hosts reach this one, on the link that bears `vtep`: at most one of each family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// `None`: the host has opted out of a default bridge.
    #[serde(default)]
    pub default_bridge: Option<DefaultBridge>,
}

/// How a host wants its default bridge (`--bip`, `--fixed-cidr`, `--ipv6`, `--fixed-cidr-v6`, `--mtu` of its daemon).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultBridge {
    /// The bridge's own address and prefix length; else the first subnet that is free on the host.
    pub bip: Option<IpNet>,
    pub fixed_cidr: Option<IpNet>,
    pub ipv6: bool,
    /// The IPv6 subnet; else one of the cluster's ULA pool.
    pub fixed_cidr_v6: Option<IpNet>,
    pub mtu: Option<Mtu>,
}

const HOSTNAME_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// A host's name: labels of letters, digits, hyphens (RFC 1123) and, as hosts have them, underscores, with dots between.
/// It is printed, compared with constraints, and resolved.
pub fn hostname(text: &str) -> Result<String, Invalid> {
    let label = |l: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (1..=LABEL_BYTES).contains(&l.len()) && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    if text.len() <= HOSTNAME_BYTES && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    let expected =
        "a host name: at most 253 letters, digits, hyphens, underscores and dots, with 1 to 63 between the dots";
    Err(Invalid::new("hostname", crate::text::cut(text.to_owned(), 100), expected))
}

/// The nearest name that [`hostname`] accepts, for a host whose own name is none. `None`: nothing of it can be used.
pub fn fit_hostname(text: &str) -> Option<String> {
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let fitted: String = text.chars().map(fit).collect();
    let labels = fitted.split('.').map(|l| l[..l.len().min(LABEL_BYTES)].trim_matches('-')).filter(|l| !l.is_empty());
    let name = labels.collect::<Vec<_>>().join(".");
    let name = name[..name.len().min(HOSTNAME_BYTES)].trim_end_matches(['.', '-']);
    hostname(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_a_name_and_every_host_gets_one() {
        for name in ["m1", "my_host", "a.b-c.example", "10", &"x".repeat(63)] {
            assert_eq!(hostname(name).as_deref(), Ok(name));
            assert_eq!(fit_hostname(name).as_deref(), Some(name));
        }
        for (name, fitted) in [
            ("", None),
            ("---", None),
            ("a b", Some("a-b")),
            ("-a-.b", Some("a.b")),
            ("a..b.", Some("a.b")),
            ("bad\u{1b}[2Jname", Some("bad--2Jname")),
            ("häuschen", Some("h-uschen")),
        ] {
            assert!(hostname(name).is_err(), "{name:?}");
            assert_eq!(fit_hostname(name).as_deref(), fitted, "{name:?}");
        }
        let long = "x".repeat(300);
        assert_eq!(fit_hostname(&long).map(|n| n.len()), Some(63));
        let many = ["abcdefghi"; 60].join(".");
        assert!(hostname(&many).is_err() && fit_hostname(&many).is_some_and(|n| n.len() <= 253));
    }
}
