//! Why a call is refused, and the one map from that to a gRPC status.

use shoal_common::{Invalid, Name, NodeId, TaskId};
use shoal_raft::ProposeError;
use shoal_state::Rejection;
use std::time::Duration;
use tonic::{Code, Status};

/// Why a call has no answer. Its text is for the person who asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Unanswered(#[from] ProposeError),
    /// More at once than one call may ask for.
    #[error("{0}")]
    TooMuch(String),
    /// A worker's users asked about another host.
    #[error(
        "{asker} is no manager: its users may speak of its own containers and networks only, not of those of {node}"
    )]
    NotYours { asker: NodeId, node: NodeId },
    #[error("{0} is the whole cluster's: run the command on a manager")]
    ManagersOnly(String),
    #[error("network {0} cannot be joined once a container is made: give it to run or create, --network {0}")]
    StackJoined(String),
    #[error("network {0} cannot be left: a container has it for good")]
    StackLeft(String),
    #[error("{0} runs: stop it first, or remove it with --force; its service makes another one in its place")]
    TaskRuns(TaskId),
    #[error("{task} is a task of service {service}, which alone can be told to {what}")]
    TaskOfService { task: TaskId, service: Name, what: &'static str },
    #[error("it has not come so far within {0:?}")]
    TooLate(Duration),
    #[error("this host is no manager any more: ask again")]
    Ending,
    #[error("the cluster's CA certificate cannot be read: {0}")]
    BadCertificate(String),
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Refusal::Rejected(Rejection::Invalid(invalid))
    }
}

impl Refusal {
    pub(crate) fn code(&self) -> Code {
        match self {
            Refusal::Rejected(rejection) => of_rejection(rejection),
            Refusal::Unanswered(error) => of_propose(error),
            Refusal::TooMuch(_) => Code::ResourceExhausted,
            Refusal::NotYours { .. } | Refusal::ManagersOnly(_) => Code::PermissionDenied,
            Refusal::StackJoined(_) | Refusal::StackLeft(_) | Refusal::TaskRuns(_) | Refusal::TaskOfService { .. } => {
                Code::FailedPrecondition
            }
            Refusal::TooLate(_) => Code::DeadlineExceeded,
            Refusal::Ending => Code::Unavailable,
            Refusal::BadCertificate(_) => Code::Internal,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::new(refusal.code(), refusal.to_string())
    }
}

fn of_rejection(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::Invalid(_) => Code::InvalidArgument,
        Rejection::NotFound { .. } => Code::NotFound,
        Rejection::NameTaken { .. }
        | Rejection::SubnetOverlap { .. }
        | Rejection::UnderlayOverlap { .. }
        | Rejection::AddressTaken { .. }
        | Rejection::PortTaken { .. }
        | Rejection::ConnectedAlready { .. } => Code::AlreadyExists,
        Rejection::PoolExhausted { .. }
        | Rejection::VniExhausted
        | Rejection::IngressExhausted
        | Rejection::AddressesExhausted { .. }
        | Rejection::PortsExhausted { .. } => Code::ResourceExhausted,
        Rejection::VersionConflict { .. } => Code::Aborted,
        Rejection::AlreadyInitialised
        | Rejection::NotInitialised
        | Rejection::NetworkInUse { .. }
        | Rejection::OverlapInService { .. }
        | Rejection::ContainerRuns { .. }
        | Rejection::NotConnected { .. }
        | Rejection::NeverConnected { .. }
        | Rejection::NotAttachable { .. }
        | Rejection::NetworkElsewhere { .. }
        | Rejection::NoParent { .. }
        | Rejection::PredefinedNetwork { .. }
        | Rejection::LocalNetwork { .. }
        | Rejection::NodeIsReady { .. }
        | Rejection::NodeIsManager { .. }
        | Rejection::LastManager { .. }
        | Rejection::LevelUnknown { .. } => Code::FailedPrecondition,
        Rejection::NotYourTask { .. } => Code::PermissionDenied,
        Rejection::NodeDown { .. } => Code::Unavailable,
    }
}

fn of_propose(error: &ProposeError) -> Code {
    match error {
        ProposeError::NotInitialised | ProposeError::AboveLevel { .. } => Code::FailedPrecondition,
        ProposeError::TooLarge { .. } => Code::InvalidArgument,
        ProposeError::NoLeader { .. } | ProposeError::NoQuorum(_) | ProposeError::Stopped(_) => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{LogIndex, Name, TaskId};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn each_refusal_has_the_code_that_the_interface_promises() {
        let text = |s: &str| s.to_owned();
        let rejections = [
            (Rejection::AlreadyInitialised, Code::FailedPrecondition),
            (Rejection::NotInitialised, Code::FailedPrecondition),
            (Invalid::new("port", 0, "a port").into(), Code::InvalidArgument),
            (Rejection::NotFound { kind: text("service"), name: text("web") }, Code::NotFound),
            (
                Rejection::NameTaken { kind: text("service"), name: name("web"), holder: text("svc-1") },
                Code::AlreadyExists,
            ),
            (
                Rejection::SubnetOverlap { subnet: text("a"), other: text("b"), holder: text("net-1") },
                Code::AlreadyExists,
            ),
            (
                Rejection::UnderlayOverlap { subnet: text("a"), other: text("b"), node: text("node-1") },
                Code::AlreadyExists,
            ),
            (Rejection::PoolExhausted { pool: text("10.0.0.0/8"), used: 9 }, Code::ResourceExhausted),
            (Rejection::VniExhausted, Code::ResourceExhausted),
            (
                Rejection::AddressesExhausted {
                    network: name("blue"),
                    subnet: text("10.0.1.0/29"),
                    total: 5,
                    holders: text("web"),
                },
                Code::ResourceExhausted,
            ),
            (Rejection::NetworkInUse { network: name("blue"), users: text("web") }, Code::FailedPrecondition),
            (
                Rejection::OverlapInService {
                    first: name("blue"),
                    second: name("red"),
                    subnet: text("a"),
                    other: text("b"),
                },
                Code::FailedPrecondition,
            ),
            (
                Rejection::VersionConflict { service: name("web"), given: LogIndex(1), current: LogIndex(2) },
                Code::Aborted,
            ),
            (Rejection::NodeIsReady { node: text("node-2") }, Code::FailedPrecondition),
            (Rejection::NodeDown { node: text("w1") }, Code::Unavailable),
            (Rejection::NodeIsManager { node: text("node-2") }, Code::FailedPrecondition),
            (Rejection::LastManager { node: text("node-1") }, Code::FailedPrecondition),
            (Rejection::NotYourTask { task: TaskId(1), node: NodeId(2) }, Code::PermissionDenied),
            (Rejection::ContainerRuns { container: name("a") }, Code::FailedPrecondition),
            (Rejection::NotConnected { container: name("a"), network: name("blue") }, Code::FailedPrecondition),
            (Rejection::NeverConnected { container: name("a"), stack: text("loopback") }, Code::FailedPrecondition),
            (Rejection::ConnectedAlready { container: name("a"), network: name("blue") }, Code::AlreadyExists),
            (Rejection::NotAttachable { network: name("blue") }, Code::FailedPrecondition),
            (Rejection::NetworkElsewhere { network: name("br"), node: NodeId(2) }, Code::FailedPrecondition),
            (Rejection::NoParent { network: name("lan"), node: text("w1") }, Code::FailedPrecondition),
            (Rejection::AddressTaken { address: text("10.0.0.9"), holder: text("container a") }, Code::AlreadyExists),
            (Rejection::PortTaken { port: text("80/tcp"), holder: text("container a") }, Code::AlreadyExists),
            (Rejection::PortsExhausted { node: NodeId(2) }, Code::ResourceExhausted),
            (Rejection::IngressExhausted, Code::ResourceExhausted),
            (Rejection::PredefinedNetwork { network: text("bridge") }, Code::FailedPrecondition),
            (Rejection::LocalNetwork { network: name("br"), driver: text("bridge") }, Code::FailedPrecondition),
        ];
        for (rejection, code) in rejections {
            let status = Status::from(Refusal::from(rejection.clone()));
            assert_eq!((status.code(), status.message()), (code, rejection.to_string().as_str()));
        }
        let unanswered = [
            (ProposeError::NotInitialised, Code::FailedPrecondition),
            (ProposeError::TooLarge { bytes: 2 << 20 }, Code::InvalidArgument),
            (ProposeError::NoLeader { reachable: text("1 of 3") }, Code::Unavailable),
            (ProposeError::NoQuorum(Duration::from_secs(5)), Code::Unavailable),
            (ProposeError::Stopped(text("disk full")), Code::Unavailable),
        ];
        for (error, code) in unanswered {
            assert_eq!(Status::from(Refusal::from(error.clone())).code(), code, "{error}");
        }
    }
}
