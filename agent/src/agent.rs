//! One host's part in its cluster, from joining (or the daemon's start) to leaving (or the daemon's end).

use shoal_common::{
    Generation, NodeId,
    assignment::{Assignment, NodeAssignment},
    node::NodeDescription,
};
use shoal_plan::HostFacts;
use shoal_proto::pb;
use shoal_rt::{Credentials, Tasks as Owner};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};
use tokio::sync::watch;

use crate::{
    Host, containers, known,
    reconcile::{Converged, Reconciler},
    report::Reports,
    session::{Line, Session},
    tasks::Tasks,
};

/// What a host must know to take part.
#[derive(Debug, Clone)]
pub struct Membership {
    pub credentials: Credentials,
    pub description: NodeDescription,
    /// Where managers are, as far as the daemon knows; the assignment tells more, and newer.
    pub managers: BTreeMap<NodeId, SocketAddr>,
}

/// Handle on a running agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    assignment: watch::Receiver<Arc<Assignment>>,
    node: watch::Receiver<Option<NodeAssignment>>,
    line: watch::Receiver<Line>,
    converged: watch::Receiver<Converged>,
    first_managers: BTreeMap<NodeId, SocketAddr>,
    reports: Reports,
    host: Host,
    hostname: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    /// To a manager's dispatcher.
    pub connected: bool,
    /// Of the assignment that is held.
    pub generation: Generation,
    /// The highest at which the kernel's networking was as it should be.
    pub converged_generation: Generation,
    /// Of the last look at the kernel.
    pub failed_operations: u32,
    /// The managers say that this host is none of theirs (any more).
    pub removed: bool,
    /// What is wrong with the memory of the assignment, for people.
    pub memory: Option<String>,
}

impl Agent {
    /// Starts from the assignment that this host remembers, if any. When `owner` ends its tasks, containers and data
    /// plane stay as they are. Only one agent may run on a host at a time.
    pub fn start(host: Host, membership: Membership, owner: &Owner) -> Agent {
        let remembered = host.memory().load(membership.credentials.current().node);
        let (node, node_rx) = watch::channel(remembered.node.clone());
        let (assignment, assignment_rx) = watch::channel(Arc::new(remembered));
        let (line, line_rx) = watch::channel(Line::default());
        let (converged, converged_rx) = watch::channel(Converged::default());
        let reports = Reports::default();

        let facts = HostFacts {
            vtep: membership.description.vtep,
            underlay_mtu: membership.description.underlay_mtu,
            keeps_idle: false,
            closed: BTreeSet::new(),
        };
        let (underlay, underlay_mtu) = watch::channel(facts.underlay_mtu);
        let reconciler = Reconciler::new(&host, facts, underlay, assignment_rx.clone(), converged);
        let tasks = Tasks::new(host.clone(), assignment_rx.clone(), converged_rx.clone(), reports.clone());
        let memory = host.memory().clone();
        let agent = Agent {
            assignment: assignment_rx,
            node: node_rx,
            line: line_rx,
            converged: converged_rx.clone(),
            first_managers: membership.managers.clone(),
            reports: reports.clone(),
            host,
            hostname: membership.description.hostname.clone(),
        };
        let session = Session {
            credentials: membership.credentials,
            description: membership.description,
            underlay_mtu,
            first_managers: membership.managers,
            memory,
            assignment,
            node,
            line,
            converged: converged_rx,
            reports,
        };
        owner.forever("agent: reconcile", reconciler.run(owner.shutdown()));
        owner.forever("agent: resolver", tasks.keep_resolver(owner.shutdown()));
        owner.forever("agent: tasks", tasks.run(owner.shutdown()));
        owner.forever("agent: session", session.run(owner.shutdown()));
        agent
    }

    pub fn status(&self) -> AgentStatus {
        let line = *self.line.borrow();
        let converged = self.converged.borrow();
        AgentStatus {
            connected: line.connected,
            generation: self.assignment.borrow().generation,
            converged_generation: converged.generation,
            failed_operations: converged.failed_operations,
            removed: line.removed,
            memory: self.host.memory().problem(),
        }
    }

    /// What this host itself knows of the containers that were run on it by hand.
    pub fn containers(&self) -> Option<pb::ListContainersReply> {
        let assignment = self.assignment.borrow().clone();
        known::containers(&self.hostname, &assignment, &self.reports.runs(), &containers::of(self.host.runtime()))
    }

    /// Waits until no task of a service is assigned to this host, so none runs.
    pub async fn without_tasks(&self) {
        // An agent that ended runs none.
        let _ = self.assignment.clone().wait_for(|assignment| assignment.tasks.is_empty()).await;
    }

    /// Waits until the managers say that this host is none of theirs.
    pub async fn removed(&self) {
        if self.line.clone().wait_for(|line| line.removed).await.is_err() {
            // An agent that ended hears of nothing.
            std::future::pending().await
        }
    }

    /// Where managers are: those of the last assignment, then those known from joining.
    pub fn managers(&self) -> BTreeMap<NodeId, SocketAddr> {
        let mut managers = self.first_managers.clone();
        managers.extend(self.node.borrow().iter().flat_map(|node| node.managers.clone()));
        managers
    }

    /// Role and managers, as last assigned: the daemon becomes or ceases to be a manager by it.
    pub fn node(&self) -> watch::Receiver<Option<NodeAssignment>> {
        self.node.clone()
    }
}
