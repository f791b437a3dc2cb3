//! `network create` as a spec.

use ipnet::IpNet;
use shoal_common::{Invalid, NodeId};
use shoal_proto::{convert::network_spec, pb};

use super::map;
use crate::{args::network::Create, failure::Failure, units::KeyValue};

pub(crate) fn spec(c: &Create) -> Result<pb::NetworkSpec, Failure> {
    let mut subnets: Vec<(IpNet, pb::SubnetSpec)> =
        c.subnet.iter().map(|net| (*net, pb::SubnetSpec { subnet: net.to_string(), ..Default::default() })).collect();
    // Each belongs to the subnet that contains it.
    for gateway in &c.gateway {
        let subnet = owner(&mut subnets, "gateway", gateway, |net| net.contains(gateway))?;
        if !subnet.gateway.is_empty() {
            return Err(Failure::usage(format!("gateway: {gateway} is the second one of subnet {}", subnet.subnet)));
        }
        subnet.gateway = gateway.to_string();
    }
    for range in &c.ip_range {
        let subnet = owner(&mut subnets, "ip-range", range, |net| net.contains(range))?;
        if !subnet.ip_range.is_empty() {
            return Err(Failure::usage(format!("ip-range: {range} is the second one of subnet {}", subnet.subnet)));
        }
        subnet.ip_range = range.to_string();
    }
    for KeyValue { key, value } in &c.aux_address {
        let ip: std::net::IpAddr = value.parse().map_err(|_| {
            let given = if value.is_empty() { key.clone() } else { format!("{key}={value}") };
            Failure::usage(format!("aux-address: {given:?} is not accepted: NAME=ADDRESS, such as nas=10.0.1.9"))
        })?;
        let subnet = owner(&mut subnets, "aux-address", &ip, |net| net.contains(&ip))?;
        subnet.aux_addresses.insert(key.clone(), ip.to_string());
    }
    if let Some(scope) = &c.scope {
        check_scope(&c.driver, scope)?;
    }
    let options = options(&c.driver, &c.node, &c.opt)?;
    let spec = pb::NetworkSpec {
        name: c.name.clone(),
        driver: c.driver.clone(),
        subnets: subnets.into_iter().map(|(_, s)| s).collect(),
        ipv6: c.ipv6,
        internal: c.internal,
        attachable: c.attachable,
        allow_overlap: c.allow_overlap,
        mtu: options.mtu,
        bridge: options.bridge,
        macvlan: options.macvlan,
        labels: map(&c.label),
    };
    // As the managers will read it; which nodes are meant is not known here.
    network_spec(spec.clone(), |_| Ok::<_, Invalid>(NodeId(1)))?;
    Ok(spec)
}

/// The scope follows from the driver; another one that was asked for is not ignored.
fn check_scope(driver: &str, scope: &str) -> Result<(), Failure> {
    let why = match (driver, scope) {
        ("bridge", "local") | ("overlay", "swarm" | "global" | "cluster") => return Ok(()),
        ("bridge", _) => {
            "a bridge is of one host alone (local); for a network of the whole cluster add --driver overlay"
        }
        ("overlay", _) => {
            "an overlay is of the whole cluster (swarm); for a network of this host alone add --driver bridge"
        }
        // Docker's scripts say local, since Docker has a macvlan on each host.
        _ => return Ok(()),
    };
    Err(Failure::usage(format!("scope: {scope:?} is not accepted for driver {driver}: {why}")))
}

fn owner<'a>(
    subnets: &'a mut [(IpNet, pb::SubnetSpec)],
    flag: &str,
    value: &impl ToString,
    contains: impl Fn(&IpNet) -> bool,
) -> Result<&'a mut pb::SubnetSpec, Failure> {
    subnets
        .iter_mut()
        .find(|(net, _)| contains(net))
        .map(|(_, s)| s)
        .ok_or_else(|| Failure::usage(format!("{flag}: no --subnet contains {}", value.to_string())))
}

/// What is particular to the driver, out of `--opt`.
struct Options {
    mtu: u32,
    bridge: Option<pb::BridgeOptions>,
    macvlan: Option<pb::MacvlanOptions>,
}

const BRIDGE: &str = "com.docker.network.bridge.";

fn options(driver: &str, node: &str, options: &[KeyValue]) -> Result<Options, Failure> {
    let mut out = Options {
        mtu: 0,
        bridge: (driver == "bridge").then(|| pb::BridgeOptions { node: node.to_owned(), ..Default::default() }),
        macvlan: (driver == "macvlan").then(pb::MacvlanOptions::default),
    };
    for KeyValue { key, value } in options {
        let bad = |expected: &str| Failure::usage(format!("opt {key}: {value:?} is not accepted: {expected}"));
        let yes = || match value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(bad("true or false")),
        };
        match (key.as_str(), &mut out) {
            ("mtu" | "com.docker.network.driver.mtu", out) => {
                out.mtu = value.parse().ok().filter(|n| *n > 0).ok_or_else(|| bad("a number from 1280 to 65535"))?;
            }
            ("encrypted", _) => return Err(Failure::usage("opt encrypted: encrypted overlays are not built yet")),
            ("parent", Options { macvlan: Some(macvlan), .. }) => value.clone_into(&mut macvlan.parent),
            ("macvlan_mode", Options { macvlan: Some(macvlan), .. }) => value.clone_into(&mut macvlan.mode),
            (key, Options { macvlan: Some(macvlan), .. }) if key.starts_with("parent@") => {
                macvlan.parents.insert(key["parent@".len()..].to_owned(), value.clone());
            }
            (key, Options { bridge: Some(bridge), .. }) => match key.strip_prefix(BRIDGE).unwrap_or_default() {
                "name" => value.clone_into(&mut bridge.link),
                "enable_icc" => bridge.no_icc = !yes()?,
                "enable_ip_masquerade" => bridge.no_masquerade = !yes()?,
                "host_binding_ipv4" => value.clone_into(&mut bridge.host_binding),
                _ => return Err(unknown(key, driver)),
            },
            (key, _) => return Err(unknown(key, driver)),
        }
    }
    Ok(out)
}

fn unknown(key: &str, driver: &str) -> Failure {
    let known = match driver {
        "bridge" => {
            "mtu, and com.docker.network.bridge.name, .enable_icc, .enable_ip_masquerade and .host_binding_ipv4"
        }
        "macvlan" => "mtu, parent, parent@HOST and macvlan_mode",
        _ => "mtu",
    };
    Failure::usage(format!("opt {key}: not an option of {driver} networks: there is {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, network::Network};
    use clap::Parser;

    fn parse(line: &str) -> Result<pb::NetworkSpec, Failure> {
        let line = format!("shoal network create {line}");
        match Cli::try_parse_from(line.split(' ')).expect("parses").command {
            Command::Network(Network::Create(c)) => spec(&c),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_gateway_and_range_goes_to_the_subnet_that_contains_it() {
        let s = parse(
            "-d overlay --gateway fd00:1::9 --subnet 10.0.1.0/24 --subnet=fd00:1::/64 --ipv6 --gateway 10.0.1.254 \
             --ip-range 10.0.1.128/25 --aux-address nas=10.0.1.9 --attachable --internal --allow-overlap \
             --label a=b --opt com.docker.network.driver.mtu=1400 blue"
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .as_str(),
        )
        .expect("accepted");
        assert_eq!(s.subnets.len(), 2);
        assert_eq!((s.subnets[0].gateway.as_str(), s.subnets[0].ip_range.as_str()), ("10.0.1.254", "10.0.1.128/25"));
        assert_eq!(s.subnets[0].aux_addresses.get("nas").map(String::as_str), Some("10.0.1.9"));
        assert_eq!(s.subnets[1].gateway, "fd00:1::9");
        assert!(s.ipv6 && s.attachable && s.internal && s.allow_overlap);
        assert_eq!((s.mtu, s.name.as_str(), s.driver.as_str()), (1400, "blue", "overlay"));
        assert_eq!(s.labels.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn a_scope_that_the_driver_has_not_is_refused_and_not_ignored() {
        for line in ["--scope swarm n", "--scope global -d bridge n", "--scope local -d overlay n"] {
            let f = parse(line).expect_err("another scope");
            assert!(f.message.starts_with("scope: ") && f.message.contains("--driver"), "{}", f.message);
        }
        for line in [
            "--scope local n",
            "--scope swarm -d overlay n",
            "--scope local -d macvlan -o parent=eth0 --subnet 10.9.0.0/24 n",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_macvlan_may_be_of_some_hosts_alone() {
        let macvlan = parse("-d macvlan -o parent@w1=eth0.50 n").expect("accepted").macvlan.expect("its options");
        assert_eq!((macvlan.parent.as_str(), macvlan.parents["w1"].as_str()), ("", "eth0.50"));
    }

    #[test]
    fn a_parent_may_have_a_dot_that_is_no_vlans() {
        let spec = parse("-d macvlan -o parent=eth0.foo n").expect("accepted");
        assert_eq!(spec.macvlan.expect("its options").parent, "eth0.foo");
        assert!(parse("-o com.docker.network.bridge.name=shop n").is_ok());
    }

    #[test]
    fn what_fits_nowhere_is_refused_by_name() {
        for (line, part) in [
            ("--gateway 10.0.2.1 --subnet 10.0.1.0/24 n", "gateway: no --subnet contains 10.0.2.1"),
            ("--ip-range 10.0.0.0/16 --subnet 10.0.1.0/24 n", "ip-range: no --subnet contains"),
            ("--aux-address a=10.0.2.1 --subnet 10.0.1.0/24 n", "aux-address"),
            ("--aux-address a=10.0.1.1 --subnet 10.0.1.0/24 n", "aux-address: \"a=10.0.1.1\" is not accepted"),
            ("--aux-address a=x --subnet 10.0.1.0/24 n", "aux-address"),
            ("-d overlay -o encrypted n", "encrypted overlays are not built yet"),
            ("-d overlay -o encrypted=true n", "encrypted overlays are not built yet"),
            ("-o parent=eth0 n", "opt parent"),
            ("-d overlay -o com.docker.network.bridge.name=x n", "there is mtu"),
            ("-d macvlan n", "parent@HOST"),
            ("-d macvlan -o parent@w1=a/b n", "parent@w1"),
            ("-d macvlan -o parent=eth0 -o macvlan_mode=x n", "macvlan_mode"),
            ("-o com.docker.network.bridge.enable_icc=perhaps n", "true or false"),
            ("-o com.docker.network.bridge.name=much-too-long-for-a-link n", "bridge.name"),
            ("-o com.docker.network.bridge.name=shb11 n", "opt com.docker.network.bridge.name: \"shb11\""),
            ("-o com.docker.network.bridge.name=shp9-0 n", "begin with shb, shp or shx"),
            ("-o com.docker.network.bridge.name=shx1000 n", "begin with shb, shp or shx"),
            ("-o com.docker.network.bridge.name=shx~1 n", "begin with shb, shp or shx"),
            ("-d macvlan -o parent=eth0.5000 n", "opt parent: \"eth0.5000\" is not accepted: a VLAN id from 1 to 4094"),
            ("-d macvlan -o parent=eth0.0 n", "1 to 4094"),
            ("-d macvlan -o parent@w1=eth0.4095 n", "opt parent@w1"),
            ("-o mtu=big n", "opt mtu"),
            ("-o mtu=100 n", "mtu"),
            ("-d token-ring n", "driver"),
            ("--subnet 10.0.1.7/24 n", "subnet: \"10.0.1.7/24\""),
            ("--subnet 10.0.1.0/24 --subnet 10.0.2.0/24 n", "subnet: \"10.0.2.0/24\""),
            ("Blue", "name"),
        ] {
            let f = parse(line).expect_err(line);
            assert!(f.message.contains(part), "{line}: {f}");
        }
    }
}
