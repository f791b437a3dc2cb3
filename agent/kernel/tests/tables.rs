//! Our tables as the kernel has them after we wrote them, and after `nft` did: `nft` tells no difference.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::Host;
use shoal_common::{MacAddr, Vni};
use shoal_plan::{
    Ns, Op, Table,
    nft::{self, Family, Transport, VirtualService},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

fn v4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0900 + n)
}

fn v6(n: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfd00_0009_u128 << 96) + u128::from(n))
}

/// A service with its VIPs at `vip` and so many backends from `first` on.
fn service(vip: u32, first: u32, backends: u32) -> VirtualService {
    let all = first..first + backends;
    VirtualService {
        vip4: Some(v4(vip)),
        vip6: Some(v6(vip)),
        backends4: all.clone().map(v4).collect(),
        backends6: all.map(v6).collect(),
    }
}

fn sandbox(services: &[VirtualService], masquerade: bool) -> Table {
    nft::sandbox(&nft::Sandbox { services: services.to_vec(), masquerade, ..Default::default() })
}

fn bridges(these: &[(&str, nft::Bridge)]) -> nft::Host {
    nft::Host { bridges: these.iter().map(|(name, b)| ((*name).to_owned(), b.clone())).collect(), ..Default::default() }
}

fn host(peers: &[&str], port: u16, these: &[(&str, nft::Bridge)]) -> Table {
    nft::host(&nft::Host { vxlan: Some(vxlan(peers, port)), ..bridges(these) })
}

/// Each on a network of its own.
fn vxlan(peers: &[&str], port: u16) -> nft::Vxlan {
    let vni = |n: u32| Vni::try_from(0x1005 + n).unwrap();
    let peers = (0..).zip(peers).map(|(n, ip)| (ip.parse::<IpAddr>().unwrap(), vni(n))).collect();
    nft::Vxlan { port, peers, overlays: true }
}

async fn write(host: &Host, family: Family, table: &Table) {
    let (chains, digest) = (table.chains.clone(), table.digest.clone());
    let op = Op::ReplaceTable { ns: Ns::Host, family, chains, digest, leads: BTreeSet::new() };
    host.kernel.apply(&op).await.unwrap();
}

/// What `nft` says, a line a statement; the elements of a set come in the order of its hash table.
fn listed(host: &Host) -> Vec<String> {
    let text = host.run(Ns::Host, "nft -nn list ruleset").replace(",\n", ", ");
    let sorted = |line: &str| match (line.find('{'), line.rfind('}')) {
        (Some(from), Some(to)) if line.contains("@th,96,32") => {
            let hex = |ip: Ipv4Addr| format!("{:#x}", ip.to_bits());
            let number = |text: &str| text.parse().map_or_else(|_| text.to_owned(), hex);
            let mut elements: Vec<_> = line[from + 1..to]
                .split(',')
                .filter_map(|element| element.trim().split_once(" . "))
                .map(|(ip, vni)| format!("{ip} . {}", number(vni)))
                .collect();
            elements.sort_unstable();
            format!("{}{{ {} }}{}", &line[..from], elements.join(", "), &line[to + 1..])
        }
        // nft prints its own numbers in hex, and ours as the addresses that they are.
        (Some(from), Some(to)) if line.contains("@th,64,128") => {
            let hex = |ip: Ipv6Addr| format!("{:#x}", ip.to_bits());
            let number = |text: &str| text.parse().map_or_else(|_| text.to_owned(), hex);
            let mut elements: Vec<_> = line[from + 1..to]
                .split(',')
                .filter_map(|element| element.trim().split_once(" . "))
                .map(|(link, target)| format!("{link} . {}", number(target)))
                .collect();
            elements.sort_unstable();
            format!("{}{{ {} }}{}", &line[..from], elements.join(", "), &line[to + 1..])
        }
        (Some(from), Some(to)) => {
            let mut elements: Vec<_> = line[from + 1..to].split(',').map(str::trim).collect();
            elements.sort_unstable();
            format!("{}{{ {} }}{}", &line[..from], elements.join(", "), &line[to + 1..])
        }
        _ => line.trim().to_owned(),
    };
    text.lines().map(|line| sorted(line.trim())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nft_reads_from_the_kernel_what_it_would_have_written_for_the_text() {
    let (ours, nfts) = (Host::new(), Host::new());
    let open = nft::Bridge {
        subnets: ["172.20.7.0/24", "172.20.128.0/18", "fd00:70::/60"].iter().map(|s| s.parse().unwrap()).collect(),
        internal: false,
        icc: true,
        masquerade: true,
    };
    let shut = nft::Bridge { icc: false, masquerade: false, ..open.clone() };
    let quiet = nft::Bridge { internal: true, ..open.clone() };
    let publication = |host_ip: &str, transport, port, to: &str| nft::Publication {
        host_ip: (!host_ip.is_empty()).then(|| host_ip.parse().unwrap()),
        transport,
        port,
        to: to.parse().unwrap(),
    };
    let ports = vec![
        publication("", Transport::Tcp, 8080, "10.0.9.11:80"),
        publication("", Transport::Udp, 53, "10.0.9.11:5353"),
        publication("", Transport::Sctp, 99, "10.0.9.12:99"),
        publication("192.0.2.1", Transport::Tcp, 8081, "10.0.9.12:80"),
        publication("127.0.0.1", Transport::Tcp, 8082, "10.0.9.12:80"),
        publication("", Transport::Tcp, 8080, "[fd00:9::b]:80"),
        publication("", Transport::Udp, 53, "[fd00:9::b]:5353"),
        publication("2001:db8::1", Transport::Tcp, 8081, "[fd00:9::c]:80"),
    ];
    let loopback = |these: &[&str]| these.iter().map(|name| (*name).to_owned()).collect();
    let balanced = |transport, port, to: &[&str], elsewhere| {
        let to = to.iter().map(|to| to.parse().unwrap()).collect();
        nft::Balanced { transport, port, to, elsewhere }
    };
    let ingress = vec![
        balanced(Transport::Tcp, 80, &["10.0.9.11:80"], false),
        balanced(Transport::Tcp, 81, &["10.0.9.11:80", "10.0.9.12:81"], false),
        balanced(Transport::Udp, 53, &["[fd00:9::b]:53", "[fd00:9::c]:53", "[fd00:9::b]:54"], false),
        balanced(Transport::Tcp, 82, &["192.0.2.2:82", "192.0.2.2:82", "192.0.2.3:82"], true),
        balanced(Transport::Tcp, 82, &["[2001:db8::2]:82"], true),
    ];
    let tables = [
        nft::host(&nft::Host { ingress: ingress.clone(), ..Default::default() }),
        nft::host(&nft::Host {
            ports: ports.clone(),
            ingress,
            detours: [
                ("172.20.9.0/24".parse().unwrap(), Transport::Tcp, "10.0.9.11:80".parse().unwrap()),
                ("fd00:72::/64".parse().unwrap(), Transport::Udp, "[fd00:9::b]:5353".parse().unwrap()),
            ]
            .into(),
            vxlan: Some(vxlan(&["192.0.2.1"], 4789)),
            ..bridges(&[("shoal0", open.clone())])
        }),
        nft::host(&nft::Host {
            ports: ports.clone(),
            loopback: loopback(&["shoal0"]),
            ..bridges(&[("shoal0", open.clone()), ("shb2", shut.clone())])
        }),
        nft::host(&nft::Host {
            ports: ports[..1].to_vec(),
            vxlan: Some(vxlan(&["192.0.2.1"], 4789)),
            loopback: loopback(&["shoal0", "shx1005"]),
            ..bridges(&[("shoal0", open.clone())])
        }),
        nft::sandbox(&nft::Sandbox {
            ports: ports[3..].to_vec(),
            services: vec![service(2, 10, 3)],
            ..Default::default()
        }),
        nft::task(),
        host(&["192.0.2.1"], 4789, &[]),
        host(&["192.0.2.1", "192.0.2.2", "2001:db8::1"], 4790, &[]),
        host(&["192.0.2.1", "2001:db8::1", "2001:db8::2"], 4790, &[]),
        host(&[], 4789, &[]),
        nft::host(&nft::Host {
            keeps_idle: true,
            ports: ports.clone(),
            vxlan: Some(nft::Vxlan { overlays: false, ..vxlan(&[], 4789) }),
            ..bridges(&[("shoal0", open.clone()), ("shb3", quiet.clone())])
        }),
        host(&["192.0.2.1"], 4789, &[("shoal0", open.clone())]),
        nft::host(&nft::Host {
            vxlan: None,
            ..bridges(&[("shb1", open.clone()), ("shb2", shut.clone()), ("shb3", quiet.clone())])
        }),
        host(&["192.0.2.1"], 4789, &[("shb2", shut.clone()), ("shb3", quiet.clone())]),
        sandbox(&[], false),
        sandbox(&[], true),
        sandbox(&[service(2, 10, 1)], true),
        sandbox(&[service(2, 10, 3), service(3, 20, 1), service(4, 0, 0)], true),
        sandbox(&[service(2, 0, 0), service(3, 0, 0)], false),
        sandbox(&[VirtualService { vip6: None, ..service(2, 10, 2) }], true),
        sandbox(&[VirtualService { vip4: None, ..service(2, 10, 2) }], true),
        sandbox(&[service(2, 100, 300), service(3, 400, 2)], true),
    ];
    let port = |link: &str, last: u8, has_v6, alone| nft::Port {
        link: link.to_owned(),
        mac: MacAddr([2, 0x42, 10, 0, 9, last]),
        v4: (last != 13).then(|| v4(last.into())),
        v6: Some(v6(last.into())).filter(|_| has_v6),
        alone,
        bridge: Some(MacAddr([2, 0x42, 10, 0, 9, last % 2])),
        published: BTreeSet::new(),
    };
    let published =
        |port: nft::Port, these: &[(Transport, u16)]| nft::Port { published: these.iter().copied().collect(), ..port };
    let ports = [
        vec![port("t11", 11, true, false)],
        vec![
            published(port("shpv-0", 11, true, false), &[(Transport::Tcp, 80), (Transport::Sctp, 99)]),
            published(port("shpw-0", 12, true, false), &[(Transport::Tcp, 80)]),
            published(port("shpx-0", 14, true, false), &[(Transport::Udp, 53)]),
        ],
        vec![port("shpv-0", 11, true, false), port("shpw-0", 12, false, true), port("shpx-1", 13, true, true)],
    ];
    let of_bridges = ports.iter().filter_map(|ports| nft::ports(ports)).map(|table| (Family::Bridge, table));
    let tables = tables.into_iter().map(|table| (Family::Inet, table)).chain([(Family::Idle, nft::idle())]);
    for (family, table) in tables.chain(of_bridges) {
        // One at a time, in either place.
        for other in [Family::Inet, Family::Bridge, Family::Idle] {
            ours.kernel.apply(&Op::DelTable { ns: Ns::Host, family: other }).await.unwrap();
        }
        write(&ours, family, &table).await;
        let text = nft::text(family, &table.digest, &table.chains);
        let file = nfts.run_dir().join("table");
        std::fs::write(&file, format!("flush ruleset\n{text}")).unwrap();
        nfts.run(Ns::Host, &format!("nft -f {}", file.display()));
        let (ours, nfts) = (listed(&ours), listed(&nfts));
        assert!(ours.len() > 3, "{ours:?}");
        assert_eq!(ours, nfts, "of {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_for_ten_thousand_backends_is_one_transaction_too() {
    let host = Host::new();
    write(&host, Family::Inet, &sandbox(&[service(2, 300, 10_000)], true)).await;
    assert_eq!(host.run(Ns::Host, "nft list ruleset").matches(&format!(": {}", v4(10_299))).count(), 1);
    write(&host, Family::Inet, &sandbox(&[service(2, 300, 1)], true)).await;
    assert!(listed(&host).iter().any(|line| line == &format!("dnat ip to {}", v4(300))));
}
