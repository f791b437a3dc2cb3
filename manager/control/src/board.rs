//! The cluster as the scheduler sees it: every node with what it bears, and every task with where it sits.
//!
//! One pass over all tasks fills it; changes that are decided in the same call are counted in as they are made.

use std::collections::{BTreeMap, BTreeSet};

use shoal_common::{
    NetworkId, NodeId, ServiceId,
    container::PublishedPort,
    network::Driver,
    node::Liveness,
    service::{Amount, ServiceSpec},
    task::{DesiredState, TaskState},
};
use shoal_state::{Network, Node, State, Task, TaskChange};

use crate::{draft::Draft, scheduler::filter};

/// One node.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    pub(crate) node: &'a Node,
    /// Tasks that hold a slot here: what spreading counts.
    pub(crate) live: u32,
    /// Set aside by everything that has not ended, also by what is being stopped: it still uses it.
    pub(crate) reserved: Amount,
    /// Ports of the node that are taken.
    pub(crate) ports: Vec<PublishedPort>,
    /// Networks that this node cannot be on.
    pub(crate) beyond: BTreeSet<NetworkId>,
}

impl Seat<'_> {
    pub(crate) fn left(&self) -> Amount {
        let capacity = self.node.description.capacity;
        Amount {
            nano_cpus: capacity.nano_cpus.saturating_sub(self.reserved.nano_cpus),
            memory_bytes: capacity.memory_bytes.saturating_sub(self.reserved.memory_bytes),
        }
    }

    /// For one more task.
    pub(crate) fn take(&mut self, spec: &ServiceSpec) {
        self.live += 1;
        self.reserve(spec.resources.reservations);
        self.ports.extend(filter::ports(spec));
    }

    pub(crate) fn reserve(&mut self, amount: Amount) {
        self.reserved.nano_cpus = self.reserved.nano_cpus.saturating_add(amount.nano_cpus);
        self.reserved.memory_bytes = self.reserved.memory_bytes.saturating_add(amount.memory_bytes);
    }
}

/// One task, seen together with its node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) task: &'a Task,
    /// Where in [`Board::seats`]; `None` while it is pending, or when its node is of the cluster no more.
    pub(crate) seat: Option<usize>,
    /// It had not ended when its node went down. This very batch orphans it.
    pub(crate) lost: bool,
}

impl Seen<'_> {
    /// Holds its slot.
    pub(crate) fn is_live(&self) -> bool {
        !self.lost && self.task.is_live()
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.task.status.state == TaskState::Pending
    }

    pub(crate) fn is_running(&self) -> bool {
        self.task.status.state == TaskState::Running
    }

    /// It ended although it was wanted.
    pub(crate) fn ended_by_itself(&self) -> bool {
        self.task.desired == DesiredState::Running && self.task.status.state.is_terminal()
    }
}

#[derive(Debug)]
pub(crate) struct Board<'a> {
    /// By node id.
    pub(crate) seats: Vec<Seat<'a>>,
}

impl<'a> Board<'a> {
    /// Looks at everything once: the seats, the tasks by service (ascending by id), and an `Orphan` for each task
    /// that sits on a node which is down.
    pub(crate) fn survey(state: &'a State, draft: &mut Draft) -> (Self, BTreeMap<ServiceId, Vec<Seen<'a>>>) {
        // Of what services can be on, these alone are not on every node; a bridge of each host is no service's.
        let partial: Vec<&Network> =
            state.networks.values().filter(|n| matches!(n.spec.driver, Driver::Macvlan(_))).collect();
        let seats = state.nodes.values().map(|node| Seat {
            node,
            live: 0,
            reserved: Amount::default(),
            ports: state.containers_of_node(node.id).flat_map(|c| c.ports.iter().copied()).collect(),
            beyond: partial.iter().filter(|n| !n.spec.driver.reaches(node.id)).map(|n| n.id).collect(),
        });
        let seats = seats.collect();
        let mut board = Self { seats };
        let mut services: BTreeMap<ServiceId, Vec<Seen<'a>>> = BTreeMap::new();
        for task in state.tasks.values() {
            let seen = board.seat(task);
            if seen.lost {
                draft.push(TaskChange::Orphan { task: task.id });
            }
            services.entry(task.service).or_default().push(seen);
        }
        (board, services)
    }

    pub(crate) fn index(&self, node: NodeId) -> Option<usize> {
        self.seats.binary_search_by_key(&node, |seat| seat.node.id).ok()
    }

    /// A task that was decided to end no longer counts for spreading.
    pub(crate) fn leave(&mut self, seen: &Seen<'_>) {
        if let Some(seat) = seen.seat.and_then(|i| self.seats.get_mut(i)) {
            seat.live = seat.live.saturating_sub(1);
        }
    }

    fn seat(&mut self, task: &'a Task) -> Seen<'a> {
        let index = task.node.and_then(|node| self.index(node));
        if task.status.state.is_terminal() {
            return Seen { task, seat: index, lost: false };
        }
        match index.and_then(|i| self.seats.get_mut(i)) {
            Some(seat) if seat.node.liveness != Liveness::Down => {
                seat.live += u32::from(task.is_live());
                seat.reserve(task.resources.reservations);
                seat.ports.extend(&task.ports);
                Seen { task, seat: index, lost: false }
            }
            Some(_) | None => Seen { task, seat: index, lost: task.node.is_some() },
        }
    }
}
