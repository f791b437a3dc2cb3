//! Tasks: one scheduled instance of a service each, and the table of who may move one from where to where.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{MacAddr, NetworkId, Timestamp};

/// Where a task is in its life. The order is the order of life; nothing moves backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Waits for a node or for an address; the message says which and why.
    Pending,
    /// Has a node and its addresses.
    Assigned,
    /// The host fetches the image and wires the network namespace.
    Preparing,
    /// The first process is being started.
    Starting,
    /// The process runs, has passed a health check if it has any, and the host has told its data plane: the task can
    /// be reached.
    Running,
    /// The process runs, and its health checks have failed: names and VIPs lead elsewhere, and the host ends it.
    Unhealthy,
    /// Ended by itself with exit code 0.
    Complete,
    /// Was told to end, and did.
    Shutdown,
    /// Ended by itself with another exit code, was unhealthy, or could not be started.
    Failed,
    /// The host refused it: no such image, a bad option.
    Rejected,
    /// Its node is down or gone; whether it still runs is not known.
    Orphaned,
}

/// Who asks for a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The orchestrator and the scheduler on the leader.
    Manager,
    /// The agent of the task's own node.
    Agent,
}

impl TaskState {
    pub const ALL: [TaskState; 11] = [
        Self::Pending,
        Self::Assigned,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::Unhealthy,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Orphaned,
    ];

    /// The task has ended and holds nothing any more.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Complete | Self::Shutdown | Self::Failed | Self::Rejected | Self::Orphaned => true,
            Self::Pending | Self::Assigned | Self::Preparing | Self::Starting | Self::Running | Self::Unhealthy => {
                false
            }
        }
    }

    /// THE TABLE. A move that is not in it is refused, whoever asks.
    pub fn may_become(self, next: TaskState, actor: Actor) -> bool {
        use TaskState::*;
        if self.is_terminal() {
            return false;
        }
        match actor {
            Actor::Manager => match next {
                Pending | Preparing | Starting | Running | Unhealthy | Complete | Failed => false,
                Assigned => self == Pending,
                // A task that never reached a host can be ended without asking one.
                Shutdown | Rejected => self == Pending,
                Orphaned => self != Pending,
            },
            Actor::Agent => match next {
                Pending | Assigned | Orphaned => false,
                Preparing | Starting | Running | Unhealthy => self != Pending && next > self,
                Complete | Shutdown | Failed | Rejected => self != Pending,
            },
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "Pending",
            Self::Assigned => "Assigned",
            Self::Preparing => "Preparing",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Unhealthy => "Unhealthy",
            Self::Complete => "Complete",
            Self::Shutdown => "Shutdown",
            Self::Failed => "Failed",
            Self::Rejected => "Rejected",
            Self::Orphaned => "Orphaned",
        })
    }
}

/// What the managers want of a task. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DesiredState {
    Running,
    /// End it. It leaves names and VIPs at once, and its addresses when the host says that it ended.
    Shutdown,
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "Running",
            Self::Shutdown => "Shutdown",
        })
    }
}

/// What is known of a task, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskStatus {
    pub state: TaskState,
    pub since: Timestamp,
    /// Why it is in this state, for people: never cut off, never only in a log. Empty when there is nothing to say.
    pub message: String,
    pub exit_code: Option<i32>,
}

/// Which instance of its service a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// 1, 2, 3 … of a replicated service. A replacement takes the same slot.
    Replica(u32),
    /// The one on this node, of a global service.
    Node(crate::NodeId),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Replica(n) => n.fmt(f),
            Slot::Node(n) => n.fmt(f),
        }
    }
}

/// A task's place in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub network: NetworkId,
    /// Its link in the container: 0 is eth0.
    #[serde(default)]
    pub link: u8,
    pub mac: MacAddr,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Endpoint {
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_back_from_the_dead() {
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                for actor in [Actor::Manager, Actor::Agent] {
                    if from.is_terminal() || to <= from {
                        assert!(!from.may_become(to, actor), "{actor:?} {from} -> {to}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_an_agent_can_say_that_a_task_runs_and_only_a_manager_that_it_is_lost() {
        assert!(TaskState::Starting.may_become(TaskState::Running, Actor::Agent));
        assert!(!TaskState::Starting.may_become(TaskState::Running, Actor::Manager));
        assert!(TaskState::Running.may_become(TaskState::Orphaned, Actor::Manager));
        assert!(!TaskState::Running.may_become(TaskState::Orphaned, Actor::Agent));
    }
}
