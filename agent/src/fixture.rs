//! A small host for tests: node 1, on network 7, with some tasks there and one elsewhere.

use shoal_common::{
    Generation, LogIndex, MacAddr, NetworkId, NodeId, ServiceId, Subnet, TaskId, Timestamp,
    assignment::{
        Assignment, ContainerAssignment, EndpointAssignment, NetworkAssignment, NetworkKind, NodeAssignment,
        TaskAssignment,
    },
    container::{Attachment, Networking, Phase, RestartMode, RunSpec, RunStatus, Wanted},
    node::Role,
    service::{ContainerSpec, Resources},
    task::{DesiredState, Endpoint, Slot, TaskState},
};
use std::{net::Ipv4Addr, sync::Arc};

pub(crate) const HERE: NodeId = NodeId(1);
pub(crate) const ELSEWHERE: NodeId = NodeId(2);
pub(crate) const NETWORK: NetworkId = NetworkId(7);

fn endpoint(task: u64) -> Endpoint {
    // Of 10.0.0.0/16, beside the gateway 10.0.1.1.
    let [high, low] = u16::try_from(256 + task + 10).unwrap().to_be_bytes();
    let ip = Ipv4Addr::new(10, 0, high, low);
    Endpoint { network: NETWORK, link: 0, mac: MacAddr::of_v4(ip), v4: Some(ip), v6: None }
}

pub(crate) fn task(id: u64) -> TaskAssignment {
    TaskAssignment {
        service: ServiceId(3),
        service_name: "web".parse().unwrap(),
        slot: Slot::Replica(u32::try_from(id).unwrap()),
        name: format!("web.{id}"),
        container: ContainerSpec { image: "web:1".to_owned(), ..ContainerSpec::default() },
        resources: Resources::default(),
        endpoints: vec![endpoint(id)],
        desired: DesiredState::Running,
        known: TaskState::Assigned,
        spec_version: LogIndex(1),
        ports: vec![],
    }
}

/// Run by hand, on network 7: `db`, that runs as far as the managers have heard.
pub(crate) fn container(id: u64) -> ContainerAssignment {
    ContainerAssignment {
        spec: RunSpec {
            name: "db".parse().unwrap(),
            container: ContainerSpec { image: "db:1".to_owned(), ..ContainerSpec::default() },
            resources: Resources::default(),
            networking: Networking::Own(vec![Attachment::to(NETWORK)]),
            ports: vec![],
            exposed: [].into(),
            restart: RestartMode::No,
            auto_remove: false,
            links: vec![],
        },
        created: Timestamp(1_000),
        endpoints: vec![endpoint(id)],
        ports: vec![],
        links: vec![],
        gateways: vec![[172, 17, 0, 1].into()],
        stop_grace: ContainerSpec::DEFAULT_STOP_GRACE,
        wanted: Wanted::Running,
        start: 1,
        known: RunStatus {
            phase: Phase::Running,
            start: 1,
            since: Timestamp(2_000),
            message: String::new(),
            exit_code: None,
            restarts: 0,
            health: None,
            unstarted: false,
        },
    }
}

/// Of node [`HERE`] with these tasks, and task 99 of network 7 on node [`ELSEWHERE`].
pub(crate) fn assignment(generation: u64, tasks: &[u64]) -> Assignment {
    let net = "10.0.1.0/24".parse().unwrap();
    let subnet = Subnet { net, gateway: "10.0.1.1".parse().unwrap(), ip_range: None, aux: [].into() };
    let entry = |id: u64, node: NodeId| {
        let entry = EndpointAssignment {
            endpoint: endpoint(id),
            node,
            vtep: format!("192.0.2.{}", node.0).parse().unwrap(),
            service: Some(ServiceId(3)),
            task_name: format!("web.{id}"),
            aliases: vec![],
            serving: true,
        };
        ((NETWORK, TaskId(id)), Arc::new(entry))
    };
    Assignment {
        generation: Generation(generation),
        node: Some(NodeAssignment {
            id: HERE,
            role: Role::Worker,
            data_path_port: 4789,
            managers: [(ELSEWHERE, "192.0.2.2:2377".parse().unwrap())].into(),
        }),
        networks: [(
            NETWORK,
            NetworkAssignment {
                name: "blue".parse().unwrap(),
                kind: NetworkKind::Overlay { vni: 4097.try_into().unwrap() },
                subnets: vec![subnet],
                internal: false,
                mtu: None,
                underlay: None,
            },
        )]
        .into(),
        endpoints: tasks.iter().map(|id| entry(*id, HERE)).chain([entry(99, ELSEWHERE)]).collect(),
        services: [].into(),
        tasks: tasks.iter().map(|id| (TaskId(*id), Arc::new(task(*id)))).collect(),
        containers: [].into(),
        ingress: [].into(),
    }
}

/// As [`assignment`], with room for some ten thousand tasks in the network.
#[allow(dead_code, reason = "of the tests outside alone")]
pub(crate) fn many(tasks: &[u64]) -> Assignment {
    let mut many = assignment(5, tasks);
    for network in many.networks.values_mut() {
        network.subnets[0].net = "10.0.0.0/16".parse().unwrap();
    }
    many
}
