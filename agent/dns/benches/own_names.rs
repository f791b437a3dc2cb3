//! How many questions a second one container's resolver answers, over loopback: `cargo bench -p shoal-dns`.
//!
//! One name by its VIP, one service of 60 addresses, and forwarded; then, without sockets, what one answer and
//! one zone cost. Clients take their share of the same machine, as they did where Docker's resolver was measured
//! (69 k, 14 k and 20 k questions a second on two cores).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use shoal_common::{
    NetworkId, NodeId, ServiceId, TaskId,
    assignment::{Assignment, EndpointAssignment, NetworkAssignment, NetworkKind, ServiceAssignment},
    net::MacAddr,
    service::EndpointMode,
    task::Endpoint,
};
use shoal_dns::{Asker, OwnWay, Resolver, Scope, Servers, Transport, Zone, answer};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

const CLIENTS: usize = 2;
/// Questions that one client has under way.
const WINDOW: usize = 16;
const SPELL: Duration = Duration::from_secs(2);
const BLUE: NetworkId = NetworkId(1);

fn host(services: u32, tasks: u32) -> Assignment {
    let mut a = Assignment::default();
    let network = NetworkAssignment {
        name: "blue".parse().unwrap(),
        kind: NetworkKind::Overlay { vni: 4097.try_into().unwrap() },
        subnets: vec![],
        internal: false,
        mtu: None,
        underlay: None,
    };
    a.networks.insert(BLUE, network);
    for s in 0..services {
        let mode = if s == 0 { EndpointMode::DnsRr } else { EndpointMode::Vip };
        let service = ServiceAssignment {
            name: format!("svc{s}").parse().unwrap(),
            aliases: vec![],
            mode,
            vip4: (s != 0).then(|| Ipv4Addr::from(0x0a01_0000 + s)),
            vip6: None,
            ports: vec![],
        };
        a.services.insert((BLUE, ServiceId(s.into())), service);
        for t in 0..tasks {
            let n = s * tasks + t;
            let v4 = Ipv4Addr::from(0x0a02_0000 + n);
            let endpoint = EndpointAssignment {
                endpoint: Endpoint { network: BLUE, link: 0, mac: MacAddr::of_v4(v4), v4: Some(v4), v6: None },
                node: NodeId(1),
                vtep: [192, 0, 2, 1].into(),
                service: Some(ServiceId(s.into())),
                task_name: format!("svc{s}.{}", t + 1),
                aliases: vec![],
                serving: true,
            };
            a.endpoints.insert((BLUE, TaskId(n.into())), Arc::new(endpoint));
        }
    }
    a
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.set_edns(Edns::new());
    message.edns.as_mut().unwrap().set_max_payload(1232);
    message.to_vec().unwrap()
}

/// Questions answered in a second, by all clients.
fn rate(server: SocketAddr, query: &[u8]) -> f64 {
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let query = query.to_vec();
            std::thread::spawn(move || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                socket.connect(server).unwrap();
                let (mut answered, mut lost, mut buffer) = (0u64, 0u64, [0; 2048]);
                for _ in 0..WINDOW {
                    socket.send(&query).unwrap();
                }
                while begun.elapsed() < SPELL {
                    match socket.recv(&mut buffer) {
                        Ok(_) => answered += 1,
                        Err(_) => lost += 1,
                    }
                    socket.send(&query).unwrap();
                }
                assert_eq!(lost, 0, "an answer did not come");
                assert!(buffer[3] & 0x0f == 0, "an error was answered");
                answered
            })
        })
        .collect();
    let answered: u64 = clients.into_iter().map(|c| c.join().unwrap()).sum();
    answered as f64 / begun.elapsed().as_secs_f64()
}

/// An upstream server that answers everything with nothing.
fn outside() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
    address
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let zone = Arc::new(Zone::of(&host(100, 60)));
    let scope = Arc::new(Scope { task: None, networks: vec![BLUE], servers: vec![] });
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let (_zones, zones) = watch::channel(Arc::clone(&zone));
    let (_servers, servers) = watch::channel(vec![outside()]);
    let shutdown = tokio_util::sync::CancellationToken::new();
    {
        let _inside = runtime.enter();
        let servers = Servers { addresses: servers, way: Arc::new(OwnWay) };
        let asker = Arc::new(Asker { scope: Scope::clone(&scope), servers });
        let asker = watch::Sender::new(asker).subscribe();
        Resolver::new().serve(udp, listener, asker, zones, shutdown.clone()).unwrap();
    }
    for (what, name) in [("one VIP", "svc7."), ("60 addresses", "svc0."), ("forwarded", "example.com.")] {
        println!("{what:>14}: {:>9.0} questions/s", rate(address, &query(name)));
    }
    for (what, name) in [("one VIP", "svc7."), ("60 addresses", "svc0.")] {
        let (query, begun, rounds) = (query(name), Instant::now(), 100_000u32);
        for seed in 0..rounds {
            std::hint::black_box(answer(&query, Transport::Udp, &scope, &zone, seed.into()));
        }
        println!(
            "{what:>14}: {:>9} ns for an answer, without sockets",
            begun.elapsed().as_nanos() / u128::from(rounds)
        );
    }
    for tasks in [10, 100] {
        let host = host(100, tasks);
        let begun = Instant::now();
        std::hint::black_box(Zone::of(&host));
        println!("{:>8} tasks: {:>9} µs for a zone", 100 * tasks, begun.elapsed().as_micros());
    }
    shutdown.cancel();
}
