//! Tasks.

use serde::Serialize;
use shoal_common::task::{DesiredState, TaskState};
use shoal_proto::{convert::enumerated, pb};

use super::{some_id, time, word};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    /// web.1
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) service_name: String,
    /// A number, or the id of the node of a global service's task.
    pub(crate) slot: String,
    /// Empty: none yet.
    pub(crate) node: String,
    pub(crate) node_name: String,
    pub(crate) image: String,
    /// running or shutdown
    pub(crate) desired_state: String,
    /// pending, assigned, preparing, starting, running, complete, shutdown, failed, rejected or orphaned
    pub(crate) state: String,
    pub(crate) since: String,
    /// Why it is in that state, in full.
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Of its host: *:8080->80/tcp
    pub(crate) ports: Vec<String>,
    pub(crate) created: String,
    pub(crate) spec_version: u64,
    #[serde(skip)]
    pub(crate) since_ms: u64,
    #[serde(skip)]
    pub(crate) number: u64,
    #[serde(skip)]
    pub(crate) order: (u32, u64),
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) network: String,
    pub(crate) mac: String,
    pub(crate) v4: String,
    pub(crate) v6: String,
}

impl From<pb::Task> for Task {
    fn from(t: pb::Task) -> Self {
        let status = t.status.unwrap_or_default();
        let (slot, order) = match t.slot.and_then(|s| s.slot) {
            Some(pb::slot::Slot::Replica(n)) => (n.to_string(), (n, 0)),
            Some(pb::slot::Slot::Node(n)) => (some_id("node", n), (0, n)),
            None => (String::new(), (0, 0)),
        };
        // Nobody wants a task again that is over: another takes its place.
        let over = enumerated::<pb::TaskState, TaskState>("state", status.state).is_ok_and(TaskState::is_terminal);
        Self {
            id: some_id("task", t.id),
            name: t.name,
            service: some_id("svc", t.service),
            service_name: t.service_name,
            slot,
            node: some_id("node", t.node),
            node_name: t.node_name,
            image: t.image,
            desired_state: if over {
                DesiredState::Shutdown.to_string().to_lowercase()
            } else {
                word::<pb::DesiredState, DesiredState>(t.desired)
            },
            state: word::<pb::TaskState, TaskState>(status.state),
            since: time(status.since_ms),
            message: status.message,
            exit_code: status.exit_code,
            endpoints: t
                .endpoints
                .into_iter()
                .map(|e| Endpoint { network: some_id("net", e.network), mac: e.mac, v4: e.v4, v6: e.v6 })
                .collect(),
            ports: t.ports.iter().map(|p| format!("*:{}->{}/{}", p.host_port, p.container_port, p.protocol)).collect(),
            created: time(t.created_ms),
            spec_version: t.spec_version,
            since_ms: status.since_ms,
            number: t.id,
            order,
        }
    }
}

impl Task {
    /// The column ERROR: the reason, with the exit code where the reason does not name it.
    pub(crate) fn error(&self) -> String {
        match (self.state.as_str(), self.exit_code) {
            ("running", _) => String::new(),
            ("failed", Some(code)) if self.message.is_empty() => format!("ended with exit code {code}"),
            _ => self.message.clone(),
        }
    }
}
