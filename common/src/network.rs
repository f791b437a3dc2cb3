//! Networks: what a user asks for.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

use crate::{Invalid, Mtu, Name, name::Labels, subnet::SubnetSpec};

/// How a network is realised on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Driver {
    /// One layer-2 segment over all hosts, by VXLAN (RFC 7348).
    Overlay,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Driver::Overlay => "overlay",
        })
    }
}

impl FromStr for Driver {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "overlay" => Ok(Driver::Overlay),
            _ => Err(Invalid::new("driver", s, "overlay (the other drivers are not built yet)")),
        }
    }
}

/// `shoal network create`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
