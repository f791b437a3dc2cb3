//! Who is asking.

use serde::{Deserialize, Serialize};
use shoal_common::{NetworkId, TaskId, task::Endpoint};
use std::net::IpAddr;

/// What a container may see, and whom it asks about what is not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// It finds itself by name also before it serves.
    pub task: Option<TaskId>,
    /// In the order in which the user named them: a name that two of them know is answered from the first.
    pub networks: Vec<NetworkId>,
    /// Servers of the container's own, asked from its own namespace; none: the host's, asked from the host's.
    pub servers: Vec<IpAddr>,
}

impl Scope {
    pub fn of(task: TaskId, endpoints: &[Endpoint], servers: &[IpAddr]) -> Self {
        let networks = endpoints.iter().map(|e| e.network).collect();
        Self { task: Some(task), networks, servers: servers.to_vec() }
    }
}
