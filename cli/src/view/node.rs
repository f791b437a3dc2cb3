//! Hosts of the cluster.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_common::node::{Availability, Liveness, Role};
use shoal_proto::pb;

use super::{capital, host, some_id, time, word};

/// A row of `node ls`, which a lab reads back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) hostname: String,
    /// Unknown, Ready or Down
    pub(crate) status: String,
    /// Active, Pause or Drain
    pub(crate) availability: String,
    /// Who leads and who can be reached; empty for a worker.
    pub(crate) manager_status: String,
    pub(crate) engine_version: String,
    /// The host that answered.
    #[serde(rename = "Self")]
    pub(crate) is_self: bool,
    /// worker or manager
    pub(crate) role: String,
    /// leader, voter, learner, or empty
    pub(crate) raft: String,
    pub(crate) tasks: u32,
}

pub(crate) fn row(n: &pb::Node) -> Row {
    let description = n.description.clone().unwrap_or_default();
    Row {
        id: some_id("node", n.id),
        hostname: description.hostname,
        status: capital(&word::<pb::Liveness, Liveness>(n.liveness)),
        availability: capital(&word::<pb::Availability, Availability>(n.availability)),
        manager_status: manager_status(n).to_owned(),
        engine_version: description.version,
        is_self: n.is_self,
        role: word::<pb::Role, Role>(n.role),
        raft: n.raft.clone(),
        tasks: n.tasks,
    }
}

fn manager_status(n: &pb::Node) -> &'static str {
    let is_manager = n.role() == pb::Role::Manager;
    match n.raft.as_str() {
        "leader" => "Leader",
        _ if is_manager && (n.liveness() == pb::Liveness::Down || !n.raft_fault.is_empty()) => "Unreachable",
        "voter" => "Reachable",
        "learner" => "Learner",
        _ if is_manager => "Joining",
        _ => "",
    }
}

pub(crate) fn inspected(n: &pb::Node) -> Value {
    let description = n.description.clone().unwrap_or_default();
    let capacity = description.capacity.unwrap_or_default();
    let mut out = json!({
        "ID": some_id("node", n.id),
        "CreatedAt": time(n.joined_ms),
        "Spec": {
            "Role": word::<pb::Role, Role>(n.role),
            "Availability": word::<pb::Availability, Availability>(n.availability),
            "Labels": n.labels,
        },
        "Description": {
            "Hostname": description.hostname,
            "Platform": { "Architecture": description.arch, "OS": description.os },
            "Resources": { "NanoCPUs": capacity.nano_cpus, "MemoryBytes": capacity.memory_bytes },
            "Engine": { "EngineVersion": description.version },
        },
        "Status": {
            "State": word::<pb::Liveness, Liveness>(n.liveness),
            "Addr": host(&description.control_addr),
            "Since": time(n.liveness_since_ms),
        },
        // Ours.
        "Self": n.is_self,
        "Raft": n.raft,
        "Tasks": n.tasks,
        "VTEP": description.vtep,
        "Underlay": description.underlay,
        "OverlappedUnderlay": n.overlapped,
        "UnderlayMTU": description.underlay_mtu,
    });
    // As Docker: workers have none.
    if let (Some(out), pb::Role::Manager) = (out.as_object_mut(), n.role()) {
        // A host that is heard from need not be one that the other managers reach: only a voter has shown that.
        let is_voter = matches!(n.raft.as_str(), "leader" | "voter");
        let reachability = match n.liveness() {
            pb::Liveness::Ready if !n.raft_fault.is_empty() => "unreachable",
            pb::Liveness::Ready if is_voter => "reachable",
            pb::Liveness::Down => "unreachable",
            pb::Liveness::Ready | pb::Liveness::Unknown | pb::Liveness::Unspecified => "unknown",
        };
        let status = json!({
            "Leader": n.raft == "leader", "Reachability": reachability, "Addr": description.control_addr,
            // Ours.
            "Error": n.raft_fault,
        });
        out.insert("ManagerStatus".to_owned(), status);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn node(role: pb::Role, raft: &str, liveness: pb::Liveness) -> pb::Node {
        let description = pb::NodeDescription {
            hostname: "m1".into(),
            control_addr: "[fd00::11]:2377".into(),
            vtep: "fd00::11".into(),
            underlay_mtu: 1500,
            underlay: vec!["fd00::/64".into()],
            capacity: Some(pb::Amount { nano_cpus: 2_000_000_000, memory_bytes: 1 << 30 }),
            os: "linux".into(),
            arch: "x86_64".into(),
            version: "0.1.0".into(),
            ..Default::default()
        };
        pb::Node {
            id: 1,
            description: Some(description),
            role: role.into(),
            availability: pb::Availability::Drain.into(),
            liveness: liveness.into(),
            liveness_since_ms: 2_000,
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            joined_ms: 1_000,
            raft: raft.into(),
            is_self: true,
            tasks: 3,
            raft_fault: String::new(),
            overlapped: vec![],
        }
    }

    #[test]
    fn a_row_has_dockers_names_and_words() {
        let want = json!({
            "ID": "node-1", "Hostname": "m1", "Status": "Ready", "Availability": "Drain", "ManagerStatus": "Leader",
            "EngineVersion": "0.1.0", "Self": true, "Role": "manager", "Raft": "leader", "Tasks": 3,
        });
        assert_eq!(super::super::value(&row(&node(pb::Role::Manager, "leader", pb::Liveness::Ready))), want);
        for (role, raft, liveness, status) in [
            (pb::Role::Manager, "voter", pb::Liveness::Ready, "Reachable"),
            (pb::Role::Manager, "voter", pb::Liveness::Down, "Unreachable"),
            (pb::Role::Manager, "learner", pb::Liveness::Ready, "Learner"),
            (pb::Role::Manager, "", pb::Liveness::Ready, "Joining"),
            (pb::Role::Worker, "", pb::Liveness::Down, ""),
        ] {
            assert_eq!(manager_status(&node(role, raft, liveness)), status, "{role:?} {raft} {liveness:?}");
        }
    }

    #[test]
    fn a_manager_that_does_not_vote_yet_is_not_called_reachable() {
        for (raft, liveness, reachability) in [
            ("voter", pb::Liveness::Ready, "reachable"),
            ("learner", pb::Liveness::Ready, "unknown"),
            ("", pb::Liveness::Ready, "unknown"),
            ("learner", pb::Liveness::Down, "unreachable"),
        ] {
            let shown = inspected(&node(pb::Role::Manager, raft, liveness));
            assert_eq!(shown["ManagerStatus"]["Reachability"], reachability, "{raft} {liveness:?}");
        }
    }

    #[test]
    fn an_inspected_one_has_dockers_shape_and_ours_beside_it() {
        let want = json!({
            "ID": "node-1",
            "CreatedAt": "1970-01-01T00:00:01.000Z",
            "Spec": { "Role": "manager", "Availability": "drain", "Labels": { "disk": "ssd" } },
            "Description": {
                "Hostname": "m1",
                "Platform": { "Architecture": "x86_64", "OS": "linux" },
                "Resources": { "NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 1_073_741_824_u64 },
                "Engine": { "EngineVersion": "0.1.0" },
            },
            "Status": { "State": "ready", "Addr": "fd00::11", "Since": "1970-01-01T00:00:02.000Z" },
            "ManagerStatus": { "Leader": true, "Reachability": "reachable", "Addr": "[fd00::11]:2377", "Error": "" },
            "Self": true, "Raft": "leader", "Tasks": 3, "VTEP": "fd00::11", "Underlay": ["fd00::/64"],
            "OverlappedUnderlay": [],
            "UnderlayMTU": 1500,
        });
        assert_eq!(inspected(&node(pb::Role::Manager, "leader", pb::Liveness::Ready)), want);
        let faulty = pb::Node {
            raft_fault: "E-LOG-MISSING: it is gone".into(),
            ..node(pb::Role::Manager, "voter", pb::Liveness::Ready)
        };
        assert_eq!(manager_status(&faulty), "Unreachable");
        let status = &inspected(&faulty)["ManagerStatus"];
        assert_eq!((&status["Reachability"], &status["Error"]), (&json!("unreachable"), &json!(faulty.raft_fault)));
        let worker = inspected(&node(pb::Role::Worker, "", pb::Liveness::Ready));
        assert_eq!(worker.get("ManagerStatus"), None);
    }
}
