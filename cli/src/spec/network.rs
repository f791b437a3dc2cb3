//! `network create` as a spec.

use ipnet::IpNet;
use shoal_common::network::NetworkSpec;
use shoal_proto::pb;

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
            Failure::usage(format!("aux-address: {value:?} is not accepted: NAME=ADDRESS, such as nas=10.0.1.9"))
        })?;
        let subnet = owner(&mut subnets, "aux-address", &ip, |net| net.contains(&ip))?;
        subnet.aux_addresses.insert(key.clone(), ip.to_string());
    }
    let spec = pb::NetworkSpec {
        name: c.name.clone(),
        driver: c.driver.clone(),
        subnets: subnets.into_iter().map(|(_, s)| s).collect(),
        ipv6: c.ipv6,
        internal: c.internal,
        attachable: c.attachable,
        allow_overlap: c.allow_overlap,
        mtu: mtu(&c.opt)?,
        labels: map(&c.label),
    };
    NetworkSpec::try_from(spec.clone())?;
    Ok(spec)
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

fn mtu(options: &[KeyValue]) -> Result<u32, Failure> {
    let mut mtu = 0;
    for KeyValue { key, value } in options {
        match key.as_str() {
            "mtu" | "com.docker.network.driver.mtu" => {
                mtu = value.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                    Failure::usage(format!("opt {key}: {value:?} is not accepted: a number from 1280 to 65535"))
                })?;
            }
            "encrypted" => return Err(Failure::usage("opt encrypted: encrypted overlays are not built yet")),
            other => {
                return Err(Failure::usage(format!(
                    "opt {other}: not an option of overlay networks: there is mtu=BYTES"
                )));
            }
        }
    }
    Ok(mtu)
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
    fn what_fits_nowhere_is_refused_by_name() {
        for (line, part) in [
            ("--gateway 10.0.2.1 --subnet 10.0.1.0/24 n", "gateway: no --subnet contains 10.0.2.1"),
            ("--ip-range 10.0.0.0/16 --subnet 10.0.1.0/24 n", "ip-range: no --subnet contains"),
            ("--aux-address a=10.0.2.1 --subnet 10.0.1.0/24 n", "aux-address"),
            ("--aux-address a=x --subnet 10.0.1.0/24 n", "aux-address"),
            ("-o encrypted n", "encrypted overlays are not built yet"),
            ("-o encrypted=true n", "encrypted overlays are not built yet"),
            ("-o parent=eth0 n", "opt parent"),
            ("-o mtu=big n", "opt mtu"),
            ("-o mtu=100 n", "mtu"),
            ("-d bridge n", "driver"),
            ("--subnet 10.0.1.7/24 n", "subnets[0].subnet"),
            ("--subnet 10.0.1.0/24 --subnet 10.0.2.0/24 n", "subnets[1].subnet"),
            ("Blue", "name"),
        ] {
            let f = parse(line).expect_err(line);
            assert!(f.message.contains(part), "{line}: {f}");
        }
    }
}
