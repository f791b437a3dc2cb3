//! The addresses that a host claims for itself. Other hosts send it their traffic by them: a host must not take another's.

use shoal_common::{Invalid, NodeId, node::NodeDescription};
use shoal_state::{Node, State};
use std::{collections::BTreeSet, net::IpAddr};

/// Whether `node` (none yet, if it joins) may say this of itself over a connection from `from`.
///
/// An address that no other node has may be claimed: a host has several, and connects from one of them. One that another
/// node has is that node's, unless the connection comes from an address of that node: then it is the same host, which
/// joins again.
pub(crate) fn check(
    state: &State,
    node: Option<NodeId>,
    from: IpAddr,
    description: &NodeDescription,
) -> Result<(), Invalid> {
    let from = from.to_canonical();
    let has = |other: &Node, address| claims(&other.description).iter().any(|(_, a)| *a == address);
    let others = state.nodes.values().filter(|other| Some(other.id) != node && !other.left && !has(other, from));
    let others: Vec<&Node> = others.collect();
    for (field, address) in claims(description) {
        if !is_of_a_host(address, from) {
            let expected = "an address of this host that others reach";
            return Err(Invalid::new(field, address, expected));
        }
        if let Some(holder) = others.iter().find(|other| has(other, address)) {
            let (id, name) = (holder.id, &holder.description.hostname);
            let expected = format!("an address of this host: {id} ({name}) has it (if it is gone: shoal node rm {id})");
            return Err(Invalid::new(field, address, expected));
        }
    }
    Ok(())
}

fn claims(description: &NodeDescription) -> BTreeSet<(&'static str, IpAddr)> {
    let named = [("control_addr", description.control_addr.ip()), ("vtep", description.vtep)];
    let others = description.addresses.iter().map(|address| ("addresses", *address));
    named.into_iter().chain(others).map(|(field, address)| (field, address.to_canonical())).collect()
}

/// A cluster on one machine's loopback is reached over loopback.
fn is_of_a_host(address: IpAddr, from: IpAddr) -> bool {
    if address.is_loopback() {
        return from.is_loopback();
    }
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{LogIndex, Mtu, Timestamp, node::Role, service::Amount};
    use shoal_state::{ClusterSettings, Command, Proposal};

    fn described(control: &str, vtep: &str, addresses: &[&str]) -> NodeDescription {
        NodeDescription {
            hostname: "w".to_owned(),
            control_addr: control.parse().unwrap(),
            vtep: vtep.parse().unwrap(),
            underlay_mtu: Mtu::ETHERNET,
            underlay: Vec::new(),
            capacity: Amount { nano_cpus: 1, memory_bytes: 1 },
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            version: "0.1.0".to_owned(),
            level: Default::default(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            default_bridge: None,
        }
    }

    /// node-1 has 192.0.2.1; node-2 has 192.0.2.2.
    fn state() -> State {
        let cluster = ClusterSettings {
            id: "c1".to_owned(),
            ca_certificate_pem: String::new(),
            ca_key_pem: String::new(),
            worker_join_secret: "w".to_owned(),
            manager_join_secret: "m".to_owned(),
            address_pools: vec!["10.0.0.0/8".parse().unwrap()],
            subnet_prefix_len: 24,
            ula_prefix: "fd5a:1:2::/48".parse().unwrap(),
            data_path_port: 4789,
        };
        let node = described("192.0.2.1:2377", "192.0.2.1", &["192.0.2.1", "2001:db8::1"]);
        let second = described("192.0.2.2:2377", "192.0.2.2", &[]);
        let commands = [
            Command::InitCluster { cluster: Box::new(cluster), node },
            Command::RegisterNode { role: Role::Worker, description: second, public_key_sha256: "k".to_owned() },
        ];
        let mut state = State::default();
        for command in commands {
            apply(&mut state, command);
        }
        state
    }

    fn apply(state: &mut State, command: Command) {
        let index = LogIndex(state.applied.0 + 1);
        state.apply(index, &Proposal { at: Timestamp(1), request: None, command }).unwrap();
    }

    #[test]
    fn no_node_takes_the_address_of_another() {
        let state = state();
        let ids: Vec<NodeId> = state.nodes.keys().copied().collect();
        let (first, second) = (Some(ids[0]), Some(ids[1]));
        for (node, from, control, vtep, addresses, wrong) in [
            // Its own, and one more that nobody has.
            (first, "192.0.2.1", "192.0.2.1:2377", "192.0.2.1", &["198.51.100.1"][..], None),
            (None, "192.0.2.9", "192.0.2.9:2377", "203.0.113.9", &[], None),
            (None, "192.0.2.9", "192.0.2.1:2377", "192.0.2.9", &[], Some("control_addr")),
            (None, "192.0.2.9", "192.0.2.9:2377", "192.0.2.1", &[], Some("vtep")),
            (second, "192.0.2.2", "192.0.2.2:2377", "192.0.2.2", &["2001:db8::1"], Some("addresses")),
            (second, "192.0.2.2", "192.0.2.2:2377", "192.0.2.2", &["::ffff:192.0.2.1"], Some("addresses")),
            // The same host joins again, with all that it had; no other does.
            (None, "192.0.2.2", "192.0.2.2:2377", "192.0.2.2", &[], None),
            (None, "192.0.2.1", "192.0.2.1:2377", "192.0.2.1", &["2001:db8::1"], None),
            (None, "192.0.2.9", "192.0.2.9:2377", "192.0.2.2", &[], Some("vtep")),
            (None, "192.0.2.9", "0.0.0.0:2377", "192.0.2.9", &[], Some("control_addr")),
            (None, "192.0.2.9", "192.0.2.9:2377", "239.1.1.1", &[], Some("vtep")),
            (None, "192.0.2.9", "127.0.0.1:2377", "192.0.2.9", &[], Some("control_addr")),
            (None, "127.0.0.1", "127.0.0.1:2377", "127.0.0.1", &[], None),
        ] {
            let checked = check(&state, node, from.parse().unwrap(), &described(control, vtep, addresses));
            assert_eq!(checked.map_err(|e| e.field).err().as_deref(), wrong, "{node:?} {from} {control} {vtep}");
        }
    }
}
