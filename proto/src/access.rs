//! Who may make which call from another host.
//!
//! [`Call`] is generated from the `.proto` files, and [`Call::who`] has no wildcard arm: a new call without a row does
//! not compile. The layer before the router of the server for other hosts enforces the table, so no handler can forget
//! it. Handlers check what the table cannot say: which node, container or network a request names.

include!(concat!(env!("OUT_DIR"), "/calls.rs"));

/// Who may make a call from another host. The host's own socket serves its owner, root, without this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Nobody: the host's own socket alone serves it.
    Local,
    /// A host that has no certificate yet. The join token in the request stands for it.
    Stranger,
    /// A node of the cluster. A worker speaks of itself and of what is its own.
    Node,
    /// A node that is a manager now, by its certificate and by what this host knows.
    Manager,
    /// A manager, by its certificate, that was not removed. A member of the Raft group that is behind does not know its
    /// leader yet, so the group itself decides about the rest.
    Member,
}

impl Call {
    /// The row of this call in the table.
    pub const fn who(self) -> Who {
        match self {
            Call::CertificateAuthorityJoin => Who::Stranger,
            Call::CertificateAuthorityRenew => Who::Node,

            Call::DispatcherAssignments => Who::Node,
            Call::DispatcherHeartbeat => Who::Node,
            Call::DispatcherReportStatus => Who::Node,
            Call::DispatcherLeave => Who::Node,
            Call::DispatcherRelayHeartbeats => Who::Manager,

            Call::RaftAppendEntries => Who::Member,
            Call::RaftVote => Who::Member,
            Call::RaftPreVote => Who::Member,
            Call::RaftInstallSnapshot => Who::Member,
            Call::RaftTransferLeader => Who::Member,
            Call::RaftPropose => Who::Member,
            Call::RaftReadIndex => Who::Member,

            Call::HostControlCreateContainer => Who::Node,
            Call::HostControlStartContainer => Who::Node,
            Call::HostControlStopContainer => Who::Node,
            Call::HostControlRemoveContainer => Who::Node,
            Call::HostControlRenameContainer => Who::Node,
            Call::HostControlConnectContainer => Who::Node,
            Call::HostControlDisconnectContainer => Who::Node,
            Call::HostControlListContainers => Who::Node,
            Call::HostControlAwaitContainer => Who::Node,
            Call::HostControlCreateHostNetwork => Who::Node,
            Call::HostControlListHostNetworks => Who::Node,
            Call::HostControlRemoveHostNetwork => Who::Node,

            Call::NodeContainersExec => Who::Manager,
            Call::NodeContainersAttach => Who::Manager,
            Call::NodeContainersContainerLogs => Who::Manager,
            Call::NodeContainersSignal => Who::Manager,
            Call::NodeContainersStats => Who::Manager,
            Call::NodeContainersDescribeContainers => Who::Manager,
            Call::NodeContainersInspectImage => Who::Manager,
            Call::NodeContainersCheckNetwork => Who::Manager,
            Call::NodeLogsTaskLogs => Who::Manager,

            Call::ControlGetCluster => Who::Local,
            Call::ControlGetJoinToken => Who::Local,
            Call::ControlListNodes => Who::Local,
            Call::ControlUpdateNode => Who::Local,
            Call::ControlRemoveNode => Who::Local,
            Call::ControlCreateNetwork => Who::Local,
            Call::ControlListNetworks => Who::Local,
            Call::ControlRemoveNetwork => Who::Local,
            Call::ControlCreateService => Who::Local,
            Call::ControlUpdateService => Who::Local,
            Call::ControlListServices => Who::Local,
            Call::ControlRemoveService => Who::Local,
            Call::ControlWatchService => Who::Local,
            Call::ControlListTasks => Who::Local,
            Call::ControlServiceLogs => Who::Local,

            Call::LocalNodeInit => Who::Local,
            Call::LocalNodeJoinCluster => Who::Local,
            Call::LocalNodeLeave => Who::Local,
            Call::LocalNodeStatus => Who::Local,
            Call::LocalNodePullImage => Who::Local,
            Call::LocalNodeLoadImage => Who::Local,
            Call::LocalNodeImportImage => Who::Local,
            Call::LocalNodeListImages => Who::Local,
            Call::LocalNodeRemoveImage => Who::Local,
        }
    }

    /// The largest request from another host, in bytes. `None`: a stream, whose messages have the limit of their
    /// service.
    pub const fn request_bytes(self) -> Option<usize> {
        if self.is_stream() {
            return None;
        }
        if matches!(self, Call::HostControlCreateContainer) {
            // Its specification stays in the state of every manager for as long as the container exists.
            return Some(256 << 10);
        }
        Some(match self.who() {
            Who::Local => 0,
            // A signing request, a secret and a description are about 2 KiB. Nobody has shown a certificate yet.
            Who::Stranger => 64 << 10,
            // What a worker asks for ends up in one entry of the log, which is 1 MiB at most.
            Who::Node | Who::Manager => 1 << 20,
            // A batch of entries.
            Who::Member => 64 << 20,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_found_by_its_path() {
        for call in Call::ALL {
            assert_eq!(Call::of_path(call.path()), Some(*call));
        }
        for other in ["", "/", "/shoal.v1.Raft/", "/shoal.v1.Raft/Vote/", "shoal.v1.Raft/Vote"] {
            assert_eq!(Call::of_path(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_host_without_a_certificate_may_join_and_nothing_else() {
        let open: Vec<_> = Call::ALL.iter().filter(|call| call.who() == Who::Stranger).collect();
        assert_eq!(open, [&Call::CertificateAuthorityJoin]);
        assert_eq!(Call::CertificateAuthorityJoin.request_bytes(), Some(64 << 10));
    }
}
