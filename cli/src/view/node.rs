//! Hosts of the cluster.

use serde::Serialize;
use shoal_common::node::{Availability, Liveness, Role};
use shoal_proto::pb;
use std::collections::BTreeMap;

use super::{some_id, time, word};

#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) hostname: String,
    /// The host that answered.
    #[serde(rename = "self")]
    pub(crate) is_self: bool,
    /// unknown, ready or down
    pub(crate) status: String,
    pub(crate) status_since: String,
    /// active, pause or drain
    pub(crate) availability: String,
    /// worker or manager
    pub(crate) role: String,
    /// leader, voter, learner, or empty
    pub(crate) raft: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) joined: String,
    pub(crate) tasks: u32,
    pub(crate) control_addr: String,
    pub(crate) vtep: String,
    pub(crate) underlay_mtu: u32,
    pub(crate) underlay: Vec<String>,
    pub(crate) nano_cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) os: String,
    pub(crate) arch: String,
    pub(crate) version: String,
}

impl From<pb::Node> for Node {
    fn from(n: pb::Node) -> Self {
        let d = n.description.unwrap_or_default();
        let capacity = d.capacity.unwrap_or_default();
        Self {
            id: some_id("node", n.id),
            hostname: d.hostname,
            is_self: n.is_self,
            status: word::<pb::Liveness, Liveness>(n.liveness),
            status_since: time(n.liveness_since_ms),
            availability: word::<pb::Availability, Availability>(n.availability),
            role: word::<pb::Role, Role>(n.role),
            raft: n.raft,
            labels: n.labels,
            joined: time(n.joined_ms),
            tasks: n.tasks,
            control_addr: d.control_addr,
            vtep: d.vtep,
            underlay_mtu: d.underlay_mtu,
            underlay: d.underlay,
            nano_cpus: capacity.nano_cpus,
            memory_bytes: capacity.memory_bytes,
            os: d.os,
            arch: d.arch,
            version: d.version,
        }
    }
}

impl Node {
    /// Docker's column MANAGER STATUS: what an operator asks is who leads and who can be reached.
    pub(crate) fn manager_status(&self) -> &str {
        match (self.raft.as_str(), self.role.as_str(), self.status.as_str()) {
            ("leader", _, _) => "Leader",
            (_, "manager", "down") => "Unreachable",
            ("voter", _, _) => "Reachable",
            ("learner", _, _) => "Learner",
            (_, "manager", _) => "Joining",
            _ => "",
        }
    }
}
