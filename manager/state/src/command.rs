//! What the log says. A command carries everything that `apply` needs: time and chance were drawn before.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use shoal_common::{
    Level, LogIndex, Name, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
    container::{Attachment, Phase, RunSpec},
    health::Health,
    name::Labels,
    network::NetworkSpec,
    node::{Availability, Liveness, NodeDescription, Role},
    service::ServiceSpec,
    task::{Slot, TaskState},
};

use crate::checkpoint::Checkpoint;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The proposer's wall clock. Only ever shown to people and compared with other values from the log.
    pub at: Timestamp,
    /// Present when a user's client may retry: the same id gets the first answer again, and nothing happens twice.
    pub request: Option<RequestId>,
    pub command: Command,
}

/// Drawn at random by a client, once per intent. Remembered for [`RequestId::REMEMBERED`] requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u128);

impl RequestId {
    /// How many answers are kept; the oldest go first.
    pub const REMEMBERED: usize = 4096;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Command {
    /// The first entry of a cluster's life: its settings and its first manager, which becomes `node-1`.
    InitCluster {
        cluster: Box<ClusterSettings>,
        node: NodeDescription,
    },
    /// A host joined. `public_key_sha256` (hex) makes a retried join find the node that it already became.
    RegisterNode {
        role: Role,
        description: NodeDescription,
        public_key_sha256: String,
    },
    /// An agent connected and says what its host is now.
    DescribeNode {
        node: NodeId,
        description: NodeDescription,
    },
    /// `shoal node update|promote|demote`. `None` leaves a thing as it is.
    UpdateNode {
        node: NodeId,
        availability: Option<Availability>,
        role: Option<Role>,
        labels_add: Labels,
        labels_remove: Vec<String>,
    },
    /// Its tasks are orphaned, its addresses freed, its certificate worthless. Refused for a node that is ready
    /// (unless `force`), and for a manager.
    RemoveNode {
        node: NodeId,
        force: bool,
    },
    /// The leader's clock says who is heard from.
    SetLiveness {
        nodes: Vec<(NodeId, Liveness)>,
    },
    /// It leaves: what it ran has ended, and nobody waits for it to be heard from again.
    LeaveCluster {
        node: NodeId,
    },
    RotateJoinToken {
        role: Role,
        secret: String,
    },
    CreateNetwork {
        spec: NetworkSpec,
    },
    RemoveNetwork {
        network: NetworkId,
    },
    CreateService {
        spec: Box<ServiceSpec>,
    },
    /// `version` is the service's version that the user's change was made on: a concurrent change is refused.
    UpdateService {
        service: ServiceId,
        version: LogIndex,
        spec: Box<ServiceSpec>,
    },
    RemoveService {
        service: ServiceId,
    },
    /// What the leader's orchestrator decided, many at a time. A change whose ground has moved meanwhile is skipped.
    Orchestrate {
        changes: Vec<TaskChange>,
    },
    CreateContainer {
        node: NodeId,
        spec: Box<RunSpec>,
    },
    /// `again`: also if it runs (`shoal restart`).
    StartContainer {
        container: TaskId,
        again: bool,
    },
    StopContainer {
        container: TaskId,
        /// Instead of the container's own.
        grace: Option<Duration>,
    },
    RemoveContainer {
        container: TaskId,
        force: bool,
        /// And its anonymous volumes; else they become volumes like any other.
        #[serde(default)]
        volumes: bool,
    },
    RenameContainer {
        container: TaskId,
        name: Name,
    },
    ConnectContainer {
        container: TaskId,
        attachment: Attachment,
    },
    DisconnectContainer {
        container: TaskId,
        network: NetworkId,
    },
    /// The leader saw that every manager knows this level. Refused while one does not.
    RaiseLevel {
        level: Level,
    },
    /// What a manager says its state is; compared by all of them.
    Checkpoint {
        node: NodeId,
        checkpoint: Checkpoint,
    },
    /// What agents say of containers, many agents at a time. What is older than what is known is skipped.
    ReportContainers {
        reports: Vec<ContainerReport>,
    },
    /// What agents observed, many agents at a time. Moves that the transition table lacks are skipped.
    ReportStatus {
        reports: Vec<TaskReport>,
    },
}

/// Settled once, at `shoal init`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// Random, hex: tells clusters apart.
    pub id: String,
    pub ca_certificate_pem: String,
    /// PKCS #8. Whoever reads the log of a manager can issue certificates.
    pub ca_key_pem: String,
    pub worker_join_secret: String,
    pub manager_join_secret: String,
    /// Where subnets come from when the user names none, and how long their prefixes are.
    pub address_pools: Vec<Ipv4Net>,
    pub subnet_prefix_len: u8,
    /// A /48 of unique local addresses (RFC 4193); IPv6 subnets are its /64s.
    pub ula_prefix: Ipv6Net,
    pub data_path_port: u16,
}

impl std::fmt::Debug for ClusterSettings {
    /// Without the key and the secrets: this is logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSettings")
            .field("id", &self.id)
            .field("address_pools", &self.address_pools)
            .field("subnet_prefix_len", &self.subnet_prefix_len)
            .field("ula_prefix", &self.ula_prefix)
            .field("data_path_port", &self.data_path_port)
            .finish_non_exhaustive()
    }
}

/// One decision about one task. Each names what it was decided on, so that it can be skipped when stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum TaskChange {
    /// A new task in `slot`. With a node it is assigned at once, addresses and all; without, or when a network has
    /// no address left, it is `Pending` and says why. Skipped unless the service's spec is still at `spec_version`
    /// and no other live (wanted-running, not ended) task holds the slot.
    Create { service: ServiceId, spec_version: LogIndex, slot: Slot, node: Option<NodeId>, why_pending: String },
    /// A pending task gets its node. Takes its addresses; where a network has none left it stays `Pending` and says so.
    Assign { task: TaskId, node: NodeId },
    /// A pending task's reason has changed.
    Pend { task: TaskId, why: String },
    /// End it: replaced, scaled away, drained. A task that has no node ends at once.
    Shutdown { task: TaskId, why: String },
    /// Its node is down: what became of it is not known. Its addresses are free to rest.
    Orphan { task: TaskId },
    /// Forget an ended task.
    Forget { task: TaskId },
}

/// What an agent saw of one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReport {
    /// The node that reports. It may speak of its own tasks only.
    pub node: NodeId,
    pub task: TaskId,
    pub state: TaskState,
    pub message: String,
    pub exit_code: Option<i32>,
}

/// What a host says of a container on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerReport {
    pub node: NodeId,
    pub container: TaskId,
    /// Which of its user's starts this is about.
    pub start: u64,
    pub phase: Phase,
    pub message: String,
    pub exit_code: Option<i32>,
    pub restarts: u32,
    #[serde(default)]
    pub health: Option<Health>,
    #[serde(default)]
    pub unstarted: bool,
}
