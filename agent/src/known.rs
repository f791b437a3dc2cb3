//! What this host itself knows of its containers: told to its users while no manager answers.

use shoal_common::{
    TaskId, Timestamp,
    assignment::{Assignment, ContainerAssignment, TaskAssignment},
    container::{Phase, RunStatus},
    task::{DesiredState, Endpoint},
};
use shoal_proto::{convert::RunReport, pb};
use shoal_runtime::ContainerState;
use std::{collections::BTreeMap, sync::Arc};

use crate::containers::Containers;

/// Nothing of a host that was never told anything. `host`: its name; `told`: what the managers were told last, whether
/// they have heard it or not.
pub(crate) fn containers(
    host: &str,
    assignment: &Assignment,
    told: &BTreeMap<TaskId, RunReport>,
    there: &Containers,
) -> Option<pb::ListContainersReply> {
    let node = assignment.node.as_ref()?.id;
    let container = |(id, assigned): (&TaskId, &Arc<ContainerAssignment>)| {
        let status = status(&assigned.known, told.get(id), there.get(id));
        // Its ports are given back with its end.
        let has_ended = status.phase == Phase::Exited && status.start == assigned.start;
        let ports = assigned.ports.iter().filter(|_| !has_ended);
        let wishes = assigned.spec.attachments().iter();
        let endpoints = wishes.filter_map(|wish| assigned.endpoints.iter().find(|e| e.network == wish.network));
        pb::Container {
            id: id.0,
            node: node.0,
            node_name: host.to_owned(),
            spec: Some(assigned.spec.clone().into()),
            wanted: assigned.wanted.to_string(),
            start: assigned.start,
            status: Some(status.into()),
            ports: ports.copied().map(Into::into).collect(),
            created_ms: assigned.created.0,
            networks: endpoints.clone().map(|e| attached(assignment, e)).collect(),
            endpoints: endpoints.cloned().map(Into::into).collect(),
            host_down: false,
            service: 0,
        }
    };
    let tasks = assignment.tasks.iter().map(|(id, task)| of_service(host, assignment, *id, task, there.get(id)));
    let containers =
        assignment.containers.iter().map(container).chain(tasks.map(|c| pb::Container { node: node.0, ..c }));
    let containers = containers.collect();
    Some(pb::ListContainersReply { containers, known_by: host.to_owned() })
}

/// A task of a service, as its container stands.
fn of_service(
    host: &str,
    assignment: &Assignment,
    id: TaskId,
    task: &TaskAssignment,
    there: Option<&ContainerState>,
) -> pb::Container {
    let (phase, since_ms, exit_code) = match there {
        None | Some(ContainerState::Created) => (Phase::Created, 0, None),
        Some(ContainerState::Running { started_at_ms, .. }) => (Phase::Running, *started_at_ms, None),
        Some(ContainerState::Exited(exit)) => (Phase::Exited, exit.finished_at_ms, Some(exit.code)),
    };
    let spec = pb::RunSpec {
        name: format!("{}.{id}", task.name),
        container: Some(task.container.clone().into()),
        resources: Some(task.resources.into()),
        stack: if task.endpoints.is_empty() { "none" } else { "own" }.to_owned(),
        restart: "no".to_owned(),
        ..Default::default()
    };
    let status = pb::RunStatus { phase: phase.to_string(), start: 1, since_ms, exit_code, ..Default::default() };
    pb::Container {
        id: id.0,
        node_name: host.to_owned(),
        spec: Some(spec),
        wanted: if task.desired == DesiredState::Running { "running" } else { "stopped" }.to_owned(),
        start: 1,
        status: Some(status),
        endpoints: task.endpoints.iter().cloned().map(Into::into).collect(),
        ports: task.ports.iter().copied().map(Into::into).collect(),
        networks: task.endpoints.iter().map(|e| attached(assignment, e)).collect(),
        service: task.service.0,
        ..Default::default()
    }
}

fn attached(assignment: &Assignment, endpoint: &Endpoint) -> pb::Attached {
    let network = assignment.networks.get(&endpoint.network);
    network.map_or_else(pb::Attached::default, |network| pb::Attached {
        name: network.name.to_string(),
        subnets: network.subnets.iter().cloned().map(Into::into).collect(),
    })
}

/// What was told last is newer than what the managers have on record; since when it is so, the container says itself.
fn status(known: &RunStatus, told: Option<&RunReport>, there: Option<&ContainerState>) -> RunStatus {
    let Some(told) = told else { return known.clone() };
    RunStatus {
        phase: told.phase,
        start: told.start,
        since: match there {
            Some(ContainerState::Running { started_at_ms, .. }) => Timestamp(*started_at_ms),
            Some(ContainerState::Exited(exit)) => Timestamp(exit.finished_at_ms),
            Some(ContainerState::Created) | None => known.since,
        },
        message: told.message.clone(),
        exit_code: told.exit_code,
        restarts: told.restarts,
        health: told.health,
        unstarted: told.unstarted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use shoal_common::{
        NetworkId,
        container::{Attachment, Networking, PublishedPort},
        service::Protocol,
    };
    use shoal_runtime::Exit;

    const DB: TaskId = TaskId(5);

    /// With this container.
    fn assignment(container: ContainerAssignment) -> Assignment {
        Assignment { containers: [(DB, Arc::new(container))].into(), ..fixture::assignment(3, &[]) }
    }

    fn only(assignment: &Assignment, told: &[RunReport], there: &[(TaskId, ContainerState)]) -> pb::Container {
        let told = told.iter().map(|r| (r.container, r.clone())).collect();
        let known = containers("w1", assignment, &told, &there.iter().cloned().collect()).unwrap();
        assert_eq!((known.known_by.as_str(), known.containers.len()), ("w1", 1));
        known.containers.into_iter().next().unwrap()
    }

    fn report(phase: Phase, exit_code: Option<i32>) -> RunReport {
        RunReport {
            container: DB,
            start: 1,
            phase,
            message: String::new(),
            exit_code,
            restarts: 0,
            health: None,
            unstarted: false,
        }
    }

    #[test]
    fn who_was_never_told_anything_knows_nothing() {
        assert_eq!(containers("w1", &Assignment::default(), &[].into(), &[].into()), None);
    }

    #[test]
    fn an_end_that_no_manager_has_heard_of_is_seen_and_its_ports_with_it() {
        let port = PublishedPort { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
        let assignment = assignment(ContainerAssignment { ports: vec![port], ..fixture::container(DB.0) });
        let seen = |c: pb::Container| {
            let status = c.status.unwrap();
            (status.phase, status.exit_code, status.since_ms, c.ports.len())
        };
        // A daemon that was just started has looked at nothing yet.
        assert_eq!(seen(only(&assignment, &[], &[])), ("running".to_owned(), None, 2_000, 1));
        let running = (DB, ContainerState::Running { pid: 7, started_at_ms: 3_000 });
        let told = [report(Phase::Running, None)];
        assert_eq!(seen(only(&assignment, &told, &[running])), ("running".to_owned(), None, 3_000, 1));
        let exit = Exit { code: 3, oom: false, finished_at_ms: 4_000, reason: None };
        let (told, there) = ([report(Phase::Exited, Some(3))], [(DB, ContainerState::Exited(exit))]);
        assert_eq!(seen(only(&assignment, &told, &there)), ("exited".to_owned(), Some(3), 4_000, 0));
        let restarting = [report(Phase::Restarting, Some(3))];
        assert_eq!(seen(only(&assignment, &restarting, &there)), ("restarting".to_owned(), Some(3), 4_000, 1));
    }

    #[test]
    fn a_container_is_shown_as_its_user_wished_it_each_network_by_its_wish() {
        let mut container = fixture::container(DB.0);
        let other = Endpoint { network: NetworkId(6), link: 1, ..container.endpoints[0].clone() };
        // The way out leads over the other one.
        container.endpoints.insert(0, other);
        container.spec.networking =
            Networking::Own([fixture::NETWORK, NetworkId(6)].into_iter().map(Attachment::to).collect());
        let shown = only(&assignment(container), &[], &[]);
        let spec = shown.spec.unwrap();
        assert_eq!((spec.name.as_str(), shown.node_name.as_str(), shown.created_ms), ("db", "w1", 1_000));
        assert_eq!(shown.endpoints.iter().map(|e| e.network).collect::<Vec<_>>(), [7, 6]);
        let [blue, unknown] = shown.networks.as_slice() else { panic!("{:?}", shown.networks) };
        assert_eq!((blue.name.as_str(), blue.subnets[0].gateway.as_str()), ("blue", "10.0.1.1"));
        assert_eq!(unknown, &pb::Attached::default());
    }
}
