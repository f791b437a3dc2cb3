//! What `apply` answers. A rejection is an ordinary, replicated answer that changed nothing.

use serde::{Deserialize, Serialize};
use shoal_common::{Invalid, Level, LogIndex, Name, NetworkId, NodeId, ServiceId, TaskId};

/// The answer to a proposal.
pub type Outcome = Result<Reply, Rejection>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Node(NodeId),
    Network(NetworkId),
    /// The service and its version after the change.
    Service(ServiceId, LogIndex),
    /// The container, and the number of its user's last start.
    Container(TaskId, u64),
    /// How many of the proposed changes were made; the others' ground had moved.
    Made(usize),
}

/// Why a change was refused: each kind its own, so that each has its own message and its own gRPC status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Rejection {
    #[error("this cluster was initialised already")]
    AlreadyInitialised,
    /// Nothing that is asked of it would be done.
    #[error(
        "host {node} is down: ask again once it is back (rm -f forgets a container of a host that does not come back)"
    )]
    NodeDown { node: String },
    #[error("this cluster was not initialised yet: run shoal init")]
    NotInitialised,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("there is no {kind} {name}")]
    NotFound { kind: String, name: String },
    #[error("the {kind} name {name} is taken by {holder}; choose another, or remove that one first")]
    NameTaken { kind: String, name: Name, holder: String },
    #[error(
        "subnet {subnet} overlaps {other} of {holder}; choose another subnet, or pass --allow-overlap if it is meant"
    )]
    SubnetOverlap { subnet: String, other: String, holder: String },
    #[error("subnet {subnet} overlaps {other}, which is on a link of node {node}; choose another subnet")]
    UnderlayOverlap { subnet: String, other: String, node: String },
    #[error("no subnet is left in the address pool {pool}: {used} are in use; name one with --subnet")]
    PoolExhausted { pool: String, used: usize },
    #[error("every VNI is in use")]
    VniExhausted,
    #[error(
        "network {network} has no free address: all {total} of {subnet} are in use ({holders}); remove tasks or create a larger network"
    )]
    AddressesExhausted { network: Name, subnet: String, total: u128, holders: String },
    #[error("network {network} is in use by {users}; remove them first")]
    NetworkInUse { network: Name, users: String },
    #[error(
        "networks {first} and {second} have overlapping subnets ({subnet} and {other}), so no container can be on both"
    )]
    OverlapInService { first: Name, second: Name, subnet: String, other: String },
    #[error("service {service} was changed meanwhile (version {current}, not {given}); look at it again and retry")]
    VersionConflict { service: Name, given: LogIndex, current: LogIndex },
    #[error("node {node} is ready; stop its daemon or drain it and take it down first, or pass --force")]
    NodeIsReady { node: String },
    #[error("node {node} is a manager; demote it first: shoal node demote {node}")]
    NodeIsManager { node: String },
    #[error(
        "{node} runs Shoal {version}, which knows feature level {knows} of the managers' log, and this cluster is at \
         level {level}: install a newer version on {node} first"
    )]
    LevelUnknown { node: String, version: String, knows: Level, level: Level },
    #[error("node {node} is the last manager; promote another one first")]
    LastManager { node: String },
    #[error("container {container} runs; stop it first, or pass --force")]
    ContainerRuns { container: Name },
    #[error("container {container} is not connected to network {network}")]
    NotConnected { container: Name, network: Name },
    #[error("container {container} has {stack} and can join no other network")]
    NeverConnected { container: Name, stack: String },
    #[error("container {container} is connected to network {network} already")]
    ConnectedAlready { container: Name, network: Name },
    #[error("network {network} is not attachable: create it with --attachable, or run a service on it")]
    NotAttachable { network: Name },
    #[error("network {network} is of another host than {node}; a bridge is of one host alone")]
    NetworkElsewhere { network: Name, node: NodeId },
    #[error("address {address} is in use by {holder}")]
    AddressTaken { address: String, holder: String },
    #[error("port {port} of the host is in use by {holder}")]
    PortTaken { port: String, holder: String },
    #[error("{node} has no free port left")]
    PortsExhausted { node: NodeId },
    #[error("no port from 30000 to 32767 is free on all hosts; name one with published=PORT")]
    IngressExhausted,
    #[error("network {network} is on every host and cannot be removed")]
    PredefinedNetwork { network: String },
    #[error(
        "a service cannot use network {network}: a {driver} network is of one host alone; use one of driver overlay or \
         macvlan"
    )]
    LocalNetwork { network: Name, driver: String },
    #[error("task {task} is not of node {node}")]
    NotYourTask { task: TaskId, node: NodeId },
    #[error(
        "network {network} has no parent on host {node}: it was created for other hosts, without \
         --opt parent@{node}=LINK and without --opt parent=LINK"
    )]
    NoParent { network: Name, node: String },
}
