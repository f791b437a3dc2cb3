//! Tasks: their states, their slots, their places in networks, and what hosts report of them.

use crate::pb;
use shoal_common::{
    Invalid, MacAddr, NetworkId, NodeId, TaskId, Timestamp,
    task::{DesiredState, Endpoint, Slot, TaskState, TaskStatus},
};

use super::field::{
    AN_IPV4_ADDRESS, AN_IPV6_ADDRESS, enumerated, enumeration, id, parsed, read_unless_empty, report_message, required,
    text,
};

enumeration!(
    TaskState,
    pb::TaskState,
    "state",
    [Pending, Assigned, Preparing, Starting, Running, Unhealthy, Complete, Shutdown, Failed, Rejected, Orphaned]
);
enumeration!(DesiredState, pb::DesiredState, "desired", [Running, Shutdown]);

impl TryFrom<pb::Endpoint> for Endpoint {
    type Error = Invalid;

    fn try_from(e: pb::Endpoint) -> Result<Self, Invalid> {
        Ok(Self {
            network: id("network", e.network, NetworkId)?,
            link: u8::try_from(e.link).map_err(|_| Invalid::new("link", e.link, "a number up to 255"))?,
            mac: parsed::<MacAddr>("mac", &e.mac)?,
            v4: read_unless_empty("v4", &e.v4, AN_IPV4_ADDRESS)?,
            v6: read_unless_empty("v6", &e.v6, AN_IPV6_ADDRESS)?,
        })
    }
}

impl From<Endpoint> for pb::Endpoint {
    fn from(e: Endpoint) -> Self {
        Self { network: e.network.0, link: e.link.into(), mac: e.mac.to_string(), v4: text(e.v4), v6: text(e.v6) }
    }
}

impl TryFrom<pb::Slot> for Slot {
    type Error = Invalid;

    fn try_from(s: pb::Slot) -> Result<Self, Invalid> {
        match required("slot", s.slot)? {
            pb::slot::Slot::Replica(0) => Err(Invalid::new("replica", 0, "a slot, counted from 1")),
            pb::slot::Slot::Replica(n) => Ok(Slot::Replica(n)),
            pb::slot::Slot::Node(n) => Ok(Slot::Node(id("node", n, NodeId)?)),
        }
    }
}

impl From<Slot> for pb::Slot {
    fn from(s: Slot) -> Self {
        Self {
            slot: Some(match s {
                Slot::Replica(n) => pb::slot::Slot::Replica(n),
                Slot::Node(n) => pb::slot::Slot::Node(n.0),
            }),
        }
    }
}

impl TryFrom<pb::TaskStatus> for TaskStatus {
    type Error = Invalid;

    fn try_from(s: pb::TaskStatus) -> Result<Self, Invalid> {
        Ok(Self {
            state: enumerated::<pb::TaskState, _>("state", s.state)?,
            since: Timestamp(s.since_ms),
            message: s.message,
            exit_code: s.exit_code,
        })
    }
}

impl From<TaskStatus> for pb::TaskStatus {
    fn from(s: TaskStatus) -> Self {
        Self {
            state: pb::TaskState::from(s.state).into(),
            since_ms: s.since.0,
            message: s.message,
            exit_code: s.exit_code,
        }
    }
}

/// What a host says of one of its tasks. When it happened is the manager's to say: hosts' clocks differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub task: TaskId,
    pub state: TaskState,
    pub message: String,
    pub exit_code: Option<i32>,
}

impl TryFrom<pb::TaskReport> for Report {
    type Error = Invalid;

    fn try_from(r: pb::TaskReport) -> Result<Self, Invalid> {
        Ok(Self {
            task: id("task", r.task, TaskId)?,
            state: enumerated::<pb::TaskState, _>("state", r.state)?,
            message: report_message(r.message),
            exit_code: r.exit_code,
        })
    }
}

impl From<Report> for pb::TaskReport {
    fn from(r: Report) -> Self {
        Self {
            task: r.task.0,
            state: pb::TaskState::from(r.state).into(),
            message: report_message(r.message),
            exit_code: r.exit_code,
        }
    }
}
