//! `info`: this host, and its cluster as far as a manager answers here.

use serde_json::{Value, json};
use shoal_common::node::Role;
use shoal_proto::pb;

use super::{host, some_id, time, word};

#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) host: Host,
    /// Absent on a host that is not a manager.
    pub(crate) cluster: Option<Cluster>,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) version: String,
    pub(crate) hostname: String,
    /// inactive, joining, active or error
    pub(crate) state: String,
    /// Why it is in that state.
    pub(crate) message: String,
    pub(crate) warning: String,
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

impl Info {
    /// In Docker's shape, with ours beside it.
    pub(crate) fn shown(&self) -> Value {
        let (h, c) = (&self.host, &self.cluster);
        let mut swarm = json!({
            "NodeID": h.node,
            "NodeAddr": host(&h.advertise_addr),
            // Docker's word.
            "LocalNodeState": if h.state == "joining" { "pending" } else { &h.state },
            "ControlAvailable": c.is_some(),
            "Error": h.message,
            // Ours.
            "Warning": h.warning,
            "Role": h.role,
            "Connected": h.connected,
            "Generation": h.generation,
            "ConvergedGeneration": h.converged_generation,
            "FailedOperations": h.failed_operations,
            "CertificateExpires": h.certificate_expires,
        });
        if let (Some(swarm), Some(c)) = (swarm.as_object_mut(), c) {
            swarm.insert("Nodes".to_owned(), json!(c.nodes));
            swarm.insert("Managers".to_owned(), json!(c.managers));
            swarm.insert("Cluster".to_owned(), c.shown());
        }
        json!({
            "ID": h.node,
            "Name": h.hostname,
            "ServerVersion": h.version,
            "Containers": h.containers,
            "ContainersRunning": h.containers_running,
            "ContainersStopped": h.containers.saturating_sub(h.containers_running),
            "Images": h.images,
            "DockerRootDir": h.data_dir,
            "Swarm": swarm,
        })
    }
}

impl Cluster {
    fn shown(&self) -> Value {
        json!({
            "ID": self.id,
            "CreatedAt": self.created,
            "DefaultAddrPool": self.address_pools,
            "SubnetSize": self.subnet_prefix_len,
            "DataPathPort": self.data_path_port,
            // Ours.
            "Leader": self.leader,
            "Term": self.term,
            "Applied": self.applied,
            "Voters": self.voters,
            "ULAPrefix": self.ula_prefix,
            "CADigest": self.ca_sha256,
        })
    }
}

impl From<pb::StatusReply> for Host {
    fn from(s: pb::StatusReply) -> Self {
        Self {
            version: s.version,
            hostname: s.hostname,
            state: s.state,
            message: s.message,
            warning: s.warning,
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

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) created: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_dockers_shape_with_and_without_a_manager() {
        let host = pb::StatusReply {
            hostname: "m1".into(),
            state: "joining".into(),
            node: 1,
            advertise_addr: "172.31.0.11:2377".into(),
            containers: 3,
            containers_running: 2,
            ..Default::default()
        };
        let alone = Info { host: host.clone().into(), cluster: None }.shown();
        assert_eq!(
            (&alone["Name"], &alone["ContainersStopped"], &alone["ID"]),
            (&json!("m1"), &json!(1), &json!("node-1"))
        );
        assert_eq!(alone["Swarm"]["LocalNodeState"], "pending");
        assert_eq!(alone["Swarm"]["NodeAddr"], "172.31.0.11");
        assert_eq!(alone["Swarm"]["ControlAvailable"], false);
        assert_eq!(alone["Swarm"].get("Cluster"), None);
        let cluster = pb::GetClusterReply { id: "c".into(), nodes: 5, managers: 3, ..Default::default() };
        let led = Info { host: host.into(), cluster: Some(cluster.into()) }.shown();
        assert_eq!(led["Swarm"]["ControlAvailable"], true);
        assert_eq!((&led["Swarm"]["Nodes"], &led["Swarm"]["Cluster"]["ID"]), (&json!(5), &json!("c")));
    }
}
