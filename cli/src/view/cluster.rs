//! `info`: this host, and its cluster as far as a manager answers here.

use serde::Serialize;
use shoal_common::node::Role;
use shoal_proto::pb;

use super::{some_id, time, word};

#[derive(Debug, Serialize)]
pub(crate) struct Info {
    pub(crate) host: Host,
    /// Absent on a host that is not a manager.
    pub(crate) cluster: Option<Cluster>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) version: String,
    pub(crate) hostname: String,
    /// inactive, joining, active or error
    pub(crate) state: String,
    /// Why it is in that state.
    pub(crate) message: String,
    pub(crate) node: String,
    /// worker, manager, or empty on a host that is in no cluster
    pub(crate) role: String,
    pub(crate) advertise_addr: String,
    pub(crate) data_dir: String,
    pub(crate) generation: u64,
    pub(crate) converged_generation: u64,
    pub(crate) failed_operations: u32,
    pub(crate) containers: u32,
    pub(crate) containers_running: u32,
    pub(crate) images: u32,
    pub(crate) connected: bool,
    pub(crate) certificate_expires: String,
}

impl From<pb::StatusReply> for Host {
    fn from(s: pb::StatusReply) -> Self {
        Self {
            version: s.version,
            hostname: s.hostname,
            state: s.state,
            message: s.message,
            node: some_id("node", s.node),
            role: if s.role == 0 { String::new() } else { word::<pb::Role, Role>(s.role) },
            advertise_addr: s.advertise_addr,
            data_dir: s.data_dir,
            generation: s.generation,
            converged_generation: s.converged_generation,
            failed_operations: s.failed_operations,
            containers: s.containers,
            containers_running: s.containers_running,
            images: s.images,
            connected: s.connected,
            certificate_expires: time(s.certificate_expires_ms),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) created: String,
    pub(crate) this_node: String,
    /// Empty: there is none.
    pub(crate) leader: String,
    pub(crate) term: u64,
    pub(crate) applied: u64,
    pub(crate) nodes: u32,
    pub(crate) managers: u32,
    pub(crate) voters: Vec<String>,
    pub(crate) address_pools: Vec<String>,
    pub(crate) subnet_prefix_len: u32,
    pub(crate) ula_prefix: String,
    pub(crate) data_path_port: u32,
    pub(crate) ca_sha256: String,
}

impl From<pb::GetClusterReply> for Cluster {
    fn from(c: pb::GetClusterReply) -> Self {
        Self {
            id: c.id,
            created: time(c.created_ms),
            this_node: some_id("node", c.this_node),
            leader: some_id("node", c.leader),
            term: c.term,
            applied: c.applied,
            nodes: c.nodes,
            managers: c.managers,
            voters: c.voters.into_iter().map(|n| some_id("node", n)).collect(),
            address_pools: c.address_pools,
            subnet_prefix_len: c.subnet_prefix_len,
            ula_prefix: c.ula_prefix,
            data_path_port: c.data_path_port,
            ca_sha256: c.ca_sha256,
        }
    }
}
