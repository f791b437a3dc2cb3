//! Our tables as the kernel has them after we wrote them, and after `nft` did: `nft` tells no difference.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::Host;
use shoal_plan::{
    Ns, Op, Table, names,
    nft::{self, Bridge, Published, Transport, VirtualService},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

fn bridges() -> Vec<Bridge> {
    let bridge = |link: &str, net: &str, internal, icc| Bridge {
        link: link.parse().unwrap(),
        subnets: vec![net.parse().unwrap(), "fd00:7::/64".parse().unwrap()],
        internal,
        masquerade: icc,
        icc,
    };
    vec![
        bridge("shoal0", "172.17.0.0/16", false, true),
        bridge("br-x", "10.7.7.16/28", false, false),
        bridge("shb7", "172.18.0.0/16", true, true),
    ]
}

fn published() -> Vec<Published> {
    let port = |host_ip: Option<&str>, host_port, transport, to: &str, by: &str| Published {
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        transport,
        to: to.parse().unwrap(),
        container_port: 80,
        by: by.parse().unwrap(),
    };
    vec![
        port(None, 8000, Transport::Tcp, "172.17.0.2", "shoal0"),
        port(None, 8000, Transport::Tcp, "fd00:7::2", "shoal0"),
        port(Some("127.0.0.1"), 8001, Transport::Udp, "172.17.0.2", "shoal0"),
        port(Some("0.0.0.0"), 8002, Transport::Sctp, "240.0.32.1", "shx1000"),
    ]
}

async fn write(host: &Host, table: &Table) {
    let (chains, digest) = (table.chains.clone(), table.digest.clone());
    host.kernel.apply(&Op::ReplaceTable { ns: Ns::Host, name: names::TABLE.into(), chains, digest }).await.unwrap();
}

/// What `nft` says, a line a statement; the elements of a set come in the order of its hash table.
fn listed(host: &Host) -> Vec<String> {
    let text = host.run(Ns::Host, "nft -nn list ruleset").replace(",\n", ", ");
    let sorted = |line: &str| match (line.find('{'), line.rfind('}')) {
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
    let peers = |of: &[&str]| of.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect();
    for table in [
        nft::task(),
        nft::host(&peers(&["192.0.2.1"]), 4789, &[], &[]),
        nft::host(&peers(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]), 4790, &[], &[]),
        nft::host(&peers(&["192.0.2.1"]), 4789, &bridges(), &[]),
        nft::host(&peers(&["192.0.2.1"]), 4789, &bridges(), &published()),
        nft::sandbox(&[], &published(), true),
        nft::sandbox(&[], &[], false),
        nft::sandbox(&[], &[], true),
        nft::sandbox(&[service(2, 10, 1)], &[], true),
        nft::sandbox(&[service(2, 10, 3), service(3, 20, 1), service(4, 0, 0)], &[], true),
        nft::sandbox(&[service(2, 0, 0), service(3, 0, 0)], &[], false),
        nft::sandbox(&[VirtualService { vip6: None, ..service(2, 10, 2) }], &[], true),
        nft::sandbox(&[VirtualService { vip4: None, ..service(2, 10, 2) }], &[], true),
        nft::sandbox(&[service(2, 100, 300), service(3, 400, 2)], &[], true),
    ] {
        write(&ours, &table).await;
        let text = nft::text(names::TABLE, &table.digest, &table.chains);
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
    write(&host, &nft::sandbox(&[service(2, 300, 10_000)], &[], true)).await;
    assert_eq!(host.run(Ns::Host, "nft list ruleset").matches(&format!(": {}", v4(10_299))).count(), 1);
    write(&host, &nft::sandbox(&[service(2, 300, 1)], &[], true)).await;
    assert!(listed(&host).iter().any(|line| line == &format!("dnat ip to {}", v4(300))));
}
