//! A small host to ask about, for the tests.

use shoal_common::{
    Generation, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
    assignment::{
        Assignment, ContainerAssignment, EndpointAssignment, NetworkAssignment, NetworkKind, ServiceAssignment,
    },
    container::{Attachment, ContainerLink, Networking, Phase, RestartMode, RunSpec, RunStatus, Wanted},
    net::MacAddr,
    service::{ContainerSpec, EndpointMode, NamedPort, Protocol, Resources},
    subnet::Subnet,
    task::Endpoint,
};
use std::collections::BTreeMap;

pub(crate) const BLUE: NetworkId = NetworkId(1);
pub(crate) const GREEN: NetworkId = NetworkId(2);
pub(crate) const VAULT: NetworkId = NetworkId(3);

/// A task that is starting: `web.3`.
pub(crate) const STARTING: TaskId = TaskId(13);

fn network(name: &str, vni: u32, nets: &[&str], internal: bool) -> NetworkAssignment {
    let subnet = |net: &&str| Subnet {
        net: net.parse().unwrap(),
        gateway: net.replace(".0/", ".1/").split('/').next().unwrap().parse().unwrap(),
        ip_range: None,
        aux: BTreeMap::new(),
    };
    NetworkAssignment {
        name: name.parse().unwrap(),
        kind: NetworkKind::Overlay { vni: vni.try_into().unwrap() },
        subnets: nets.iter().map(subnet).collect(),
        internal,
        mtu: None,
        underlay: None,
    }
}

fn service(name: &str, mode: EndpointMode, vips: [Option<&str>; 2]) -> ServiceAssignment {
    ServiceAssignment {
        name: name.parse().unwrap(),
        aliases: vec![],
        mode,
        vip4: vips[0].map(|ip| ip.parse().unwrap()),
        vip6: vips[1].map(|ip| ip.parse().unwrap()),
        ports: vec![],
    }
}

pub(crate) fn endpoint(network: NetworkId, service: u64, name: &str, v4: &str, serving: bool) -> EndpointAssignment {
    let v4: std::net::Ipv4Addr = v4.parse().unwrap();
    EndpointAssignment {
        endpoint: Endpoint { network, link: 0, mac: MacAddr::of_v4(v4), v4: Some(v4), v6: None },
        node: NodeId(1),
        vtep: [192, 0, 2, 1].into(),
        service: Some(ServiceId(service)),
        task_name: name.to_owned(),
        aliases: vec![],
        serving,
    }
}

/// A container of this host that has links.
pub(crate) fn linked(network: NetworkId, links: Vec<ContainerLink>) -> ContainerAssignment {
    ContainerAssignment {
        spec: RunSpec {
            name: "c".parse().unwrap(),
            container: ContainerSpec::default(),
            resources: Resources::default(),
            networking: Networking::Own(vec![Attachment { links, ..Attachment::to(network) }]),
            ports: vec![],
            exposed: [].into(),
            restart: RestartMode::No,
            auto_remove: false,
            links: vec![],
        },
        created: Timestamp::default(),
        endpoints: vec![],
        ports: vec![],
        links: vec![],
        gateways: vec![],
        stop_grace: ContainerSpec::DEFAULT_STOP_GRACE,
        wanted: Wanted::Running,
        start: 1,
        known: RunStatus {
            phase: Phase::Running,
            start: 1,
            since: Timestamp::default(),
            message: String::new(),
            exit_code: None,
            restarts: 0,
            health: None,
            unstarted: false,
        },
    }
}

/// Networks: blue (dual stack), green, vault (internal).
///
/// - on blue: `web` (VIP, three tasks of which the third is starting, SRV `http`, alias `www`), `db` (dnsrr, three
///   tasks), `idle` (VIP, no tasks), `gone` (dnsrr, no tasks);
/// - on green: `api` (VIP) and another `cache`;
/// - on vault: `safe` (VIP).
pub(crate) fn assignment() -> Assignment {
    let mut a = Assignment { generation: Generation(42), ..Assignment::default() };
    a.networks.insert(BLUE, network("blue", 4097, &["10.0.1.0/24", "fd00:1::/64"], false));
    a.networks.insert(GREEN, network("green", 4098, &["10.0.2.0/24"], false));
    a.networks.insert(VAULT, network("vault", 4099, &["10.0.3.0/24"], true));

    let mut web = service("web", EndpointMode::Vip, [Some("10.0.1.2"), Some("fd00:1::2")]);
    web.aliases = vec!["www".parse().unwrap()];
    web.ports = vec![NamedPort { name: "http".parse().unwrap(), port: 8080, protocol: Protocol::Tcp }];
    a.services.insert((BLUE, ServiceId(1)), web);
    a.services.insert((BLUE, ServiceId(2)), service("db", EndpointMode::DnsRr, [None, None]));
    a.services.insert((BLUE, ServiceId(3)), service("idle", EndpointMode::Vip, [Some("10.0.1.3"), None]));
    let mut gone = service("gone", EndpointMode::DnsRr, [None, None]);
    gone.ports = vec![NamedPort { name: "pg".parse().unwrap(), port: 5432, protocol: Protocol::Tcp }];
    a.services.insert((BLUE, ServiceId(4)), gone);
    a.services.insert((GREEN, ServiceId(5)), service("api", EndpointMode::Vip, [Some("10.0.2.2"), None]));
    a.services.insert((VAULT, ServiceId(6)), service("safe", EndpointMode::Vip, [Some("10.0.3.2"), None]));

    let mut add = |task: u64, e: EndpointAssignment| a.endpoints.insert((e.endpoint.network, TaskId(task)), e.into());
    for (n, serving) in [(1u64, true), (2, true), (3, false)] {
        let mut e = endpoint(BLUE, 1, &format!("web.{n}"), &format!("10.0.1.1{n}"), serving);
        e.endpoint.v6 = Some(format!("fd00:1::1{n}").parse().unwrap());
        if n == 1 {
            e.aliases = vec!["Frontend".to_owned(), "host.example.com".to_owned(), "not a..name".to_owned()];
        }
        add(10 + n, e);
    }
    for n in 1..=3u64 {
        add(20 + n, endpoint(BLUE, 2, &format!("db.{n}"), &format!("10.0.1.2{n}"), true));
    }
    add(51, endpoint(GREEN, 5, "api.1", "10.0.2.11", true));
    add(61, endpoint(VAULT, 6, "safe.node-7", "10.0.3.11", true));
    a
}
