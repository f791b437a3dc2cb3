//! Which network namespace.

use serde::{Deserialize, Serialize};
use shoal_common::{Invalid, NetworkId, TaskId};
use std::{fmt, str::FromStr};

/// A network namespace that we look at. All but the host's are ours altogether, and are files named as this prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ns {
    /// The daemon's own. Only links and tables that bear our names are ours there.
    Host,
    /// One per network that a task of this host is on: its bridge, its VXLAN link, its VIPs.
    Sandbox(NetworkId),
    /// One per task: where its containers run.
    Task(TaskId),
}

impl fmt::Display for Ns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ns::Host => f.pad("host"),
            Ns::Sandbox(network) => network.fmt(f),
            Ns::Task(task) => task.fmt(f),
        }
    }
}

impl FromStr for Ns {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "host" => Ok(Ns::Host),
            _ => s
                .parse()
                .map(Ns::Sandbox)
                .or_else(|_| s.parse().map(Ns::Task))
                .map_err(|_| Invalid::new("namespace", s, "host, net-N or task-N")),
        }
    }
}
