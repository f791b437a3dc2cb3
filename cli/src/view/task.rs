//! Tasks.

use serde::Serialize;
use serde_json::{Value, json};
use shoal_common::task::{DesiredState, TaskState};
use shoal_proto::{convert::enumerated, pb};

use super::{ago, capital, some_id, time, word};

/// A row of `service ps` and `node ps`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// web.1
    pub(crate) name: String,
    pub(crate) image: String,
    /// Empty: none yet.
    pub(crate) node: String,
    /// Running or Shutdown
    pub(crate) desired_state: String,
    /// Running 2 minutes ago
    pub(crate) current_state: String,
    /// The reason, with the exit code where the reason does not name it.
    pub(crate) error: String,
    /// Of its host: `*:8080->80/tcp`.
    pub(crate) ports: String,
    /// pending, assigned, preparing, starting, running, complete, shutdown, failed, rejected or orphaned
    pub(crate) state: String,
    /// Why it is in that state, in full.
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) endpoints: Vec<Endpoint>,
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    pub(crate) service: String,
    /// A number, or the id of the node of a global service's task.
    pub(crate) slot: String,
    pub(crate) created: String,
    #[serde(skip)]
    pub(crate) number: u64,
    #[serde(skip)]
    pub(crate) order: (u32, u64),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Endpoint {
    pub(crate) network: String,
    pub(crate) mac_address: String,
    #[serde(rename = "IPv4")]
    pub(crate) v4: String,
    #[serde(rename = "IPv6")]
    pub(crate) v6: String,
}

pub(crate) fn row(t: &pb::Task, now_ms: u64) -> Row {
    let status = t.status.clone().unwrap_or_default();
    let (slot, order) = match t.slot.and_then(|s| s.slot) {
        Some(pb::slot::Slot::Replica(n)) => (n.to_string(), (n, 0)),
        Some(pb::slot::Slot::Node(n)) => (some_id("node", n), (0, n)),
        None => (String::new(), (0, 0)),
    };
    let state = word::<pb::TaskState, TaskState>(status.state);
    Row {
        id: some_id("task", t.id),
        name: t.name.clone(),
        image: t.image.clone(),
        node: t.node_name.clone(),
        desired_state: capital(&desired(t)),
        current_state: format!("{} {}", capital(&state), ago(status.since_ms, now_ms)),
        error: match (state.as_str(), status.exit_code) {
            ("running", _) => String::new(),
            ("failed", Some(code)) if status.message.is_empty() => format!("ended with exit code {code}"),
            _ => status.message.clone(),
        },
        ports: ports(t).join(", "),
        state,
        message: status.message,
        exit_code: status.exit_code,
        endpoints: t.endpoints.iter().map(endpoint).collect(),
        node_id: some_id("node", t.node),
        service: t.service_name.clone(),
        slot,
        created: time(t.created_ms),
        number: t.id,
        order,
    }
}

fn desired(t: &pb::Task) -> String {
    let state = t.status.clone().unwrap_or_default().state;
    // Nobody wants a task again that is over: another takes its place.
    if enumerated::<pb::TaskState, TaskState>("state", state).is_ok_and(TaskState::is_terminal) {
        return DesiredState::Shutdown.to_string().to_lowercase();
    }
    word::<pb::DesiredState, DesiredState>(t.desired)
}

fn ports(t: &pb::Task) -> Vec<String> {
    t.ports.iter().map(|p| format!("*:{}->{}/{}", p.host_port, p.container_port, p.protocol)).collect()
}

fn endpoint(e: &pb::Endpoint) -> Endpoint {
    Endpoint { network: some_id("net", e.network), mac_address: e.mac.clone(), v4: e.v4.clone(), v6: e.v6.clone() }
}

pub(crate) fn inspected(t: &pb::Task) -> Value {
    let status = t.status.clone().unwrap_or_default();
    let slot = t.slot.and_then(|s| s.slot).and_then(|slot| match slot {
        pb::slot::Slot::Replica(n) => Some(n),
        pb::slot::Slot::Node(_) => None,
    });
    let published = |p: &pb::PortSpec| json!({ "Protocol": p.protocol, "TargetPort": p.container_port, "PublishedPort": p.host_port, "PublishMode": "host" });
    let attachment = |e: &pb::Endpoint| {
        let addresses: Vec<&String> = [&e.v4, &e.v6].into_iter().filter(|a| !a.is_empty()).collect();
        json!({ "Network": { "ID": some_id("net", e.network) }, "Addresses": addresses, "MacAddress": e.mac })
    };
    json!({
        "ID": some_id("task", t.id),
        "CreatedAt": time(t.created_ms),
        "Spec": { "ContainerSpec": { "Image": t.image } },
        "ServiceID": some_id("svc", t.service),
        // Of a global service's it is 0.
        "Slot": slot.unwrap_or(0),
        "NodeID": some_id("node", t.node),
        "Status": {
            "Timestamp": time(status.since_ms),
            "State": word::<pb::TaskState, TaskState>(status.state),
            "Message": status.message,
            "ContainerStatus": { "ContainerID": some_id("task", t.id), "ExitCode": status.exit_code },
            "PortStatus": { "Ports": t.ports.iter().map(published).collect::<Vec<_>>() },
        },
        "DesiredState": desired(t),
        "NetworksAttachments": t.endpoints.iter().map(attachment).collect::<Vec<_>>(),
        // Ours.
        "Name": t.name,
        "Service": t.service_name,
        "Node": t.node_name,
        "SpecVersion": { "Index": t.spec_version },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> pb::Task {
        let endpoint =
            pb::Endpoint { network: 4, mac: "02:00:00:00:00:01".into(), v4: "10.0.1.3".into(), ..Default::default() };
        let status = pb::TaskStatus {
            state: pb::TaskState::Failed.into(),
            since_ms: 2_000,
            message: String::new(),
            exit_code: Some(3),
        };
        let port = pb::PortSpec { host_port: 8080, container_port: 80, protocol: "tcp".into(), ..Default::default() };
        pb::Task {
            id: 13,
            name: "web.1".into(),
            service: 12,
            service_name: "web".into(),
            slot: Some(pb::Slot { slot: Some(pb::slot::Slot::Replica(1)) }),
            node: 5,
            node_name: "w1".into(),
            image: "demo:1".into(),
            desired: pb::DesiredState::Running.into(),
            status: Some(status),
            endpoints: vec![endpoint],
            created_ms: 1_000,
            spec_version: 20,
            ports: vec![port],
        }
    }

    #[test]
    fn a_row_has_dockers_names_and_ours_beside_them() {
        let want = json!({
            "ID": "task-13", "Name": "web.1", "Image": "demo:1", "Node": "w1", "DesiredState": "Shutdown",
            "CurrentState": "Failed 5 seconds ago", "Error": "ended with exit code 3", "Ports": "*:8080->80/tcp",
            "State": "failed", "Message": "", "ExitCode": 3, "NodeID": "node-5", "Service": "web", "Slot": "1",
            "Created": "1970-01-01T00:00:01.000Z",
            "Endpoints": [{ "Network": "net-4", "MacAddress": "02:00:00:00:00:01", "IPv4": "10.0.1.3", "IPv6": "" }],
        });
        assert_eq!(super::super::value(&row(&failed(), 7_000)), want);
    }

    #[test]
    fn an_inspected_one_has_dockers_shape_and_ours_beside_it() {
        let want = json!({
            "ID": "task-13", "CreatedAt": "1970-01-01T00:00:01.000Z",
            "Spec": { "ContainerSpec": { "Image": "demo:1" } },
            "ServiceID": "svc-12", "Slot": 1, "NodeID": "node-5",
            "Status": {
                "Timestamp": "1970-01-01T00:00:02.000Z", "State": "failed", "Message": "",
                "ContainerStatus": { "ContainerID": "task-13", "ExitCode": 3 },
                "PortStatus": { "Ports": [
                    { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host" },
                ] },
            },
            "DesiredState": "shutdown",
            "NetworksAttachments": [
                { "Network": { "ID": "net-4" }, "Addresses": ["10.0.1.3"], "MacAddress": "02:00:00:00:00:01" },
            ],
            "Name": "web.1", "Service": "web", "Node": "w1", "SpecVersion": { "Index": 20 },
        });
        assert_eq!(inspected(&failed()), want);
    }
}
