//! A subnet from which addresses are handed out.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

use crate::Invalid;

/// One subnet of a network as it was settled: base address, gateway inside it, and which part is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Truncated: `10.0.1.0/24`, never `10.0.1.7/24`.
    pub net: IpNet,
    /// The address of the bridge on every host of the network.
    pub gateway: IpAddr,
    /// Addresses are taken from here only (`--ip-range`); the whole subnet if none was given.
    pub ip_range: Option<IpNet>,
    /// Named addresses that are never handed out (`--aux-address`).
    #[serde(default)]
    pub aux: BTreeMap<String, IpAddr>,
}

/// A subnet as the user asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetSpec {
    pub net: IpNet,
    pub gateway: Option<IpAddr>,
    pub ip_range: Option<IpNet>,
    #[serde(default)]
    pub aux: BTreeMap<String, IpAddr>,
}

impl SubnetSpec {
    /// Checks that everything lies where it must, and settles the gateway (the first address, if none was given).
    pub fn settle(&self) -> Result<Subnet, Invalid> {
        let net = self.net;
        if net.trunc() != net {
            return Err(Invalid::new("subnet", net, format!("a base address: {}", net.trunc())));
        }
        let (longest, hint) = match net {
            // The gateway's, and one more.
            IpNet::V4(_) => (30, "a prefix of at most /30"),
            IpNet::V6(_) => (126, "a prefix of at most /126"),
        };
        if net.prefix_len() > longest || net.prefix_len() == 0 {
            return Err(Invalid::new("subnet", net, hint));
        }
        let link_local = match net {
            IpNet::V4(net) => net.addr().is_link_local(),
            IpNet::V6(net) => net.addr().is_unicast_link_local(),
        };
        if net.addr().is_multicast() || net.addr().is_loopback() || link_local {
            return Err(Invalid::new("subnet", net, "a unicast subnet, neither loopback nor link-local"));
        }
        // Not `hosts()`: for IPv6 that begins at the subnet-router anycast address (RFC 4291 §2.6.1).
        let first = nth(net, 1).ok_or_else(|| Invalid::new("subnet", net, hint))?;
        let gateway = self.gateway.unwrap_or(first);
        let usable = |field: &str, ip: IpAddr| {
            if net.contains(&ip) && ip != net.network() && !(ip.is_ipv4() && ip == net.broadcast()) {
                Ok(())
            } else {
                Err(Invalid::new(field, ip, format!("a host address inside of {net}")))
            }
        };
        usable("gateway", gateway)?;
        if let Some(range) = self.ip_range
            && (!net.contains(&range) || range.trunc() != range)
        {
            return Err(Invalid::new("ip-range", range, format!("a subnet inside of {net}")));
        }
        let mut holders = BTreeMap::from([(gateway, "the gateway".to_owned())]);
        for (name, ip) in &self.aux {
            let wrong = |expected: String| Invalid::new("aux-address", format!("{name}={ip}"), expected);
            usable("aux-address", *ip).map_err(|e| wrong(e.expected))?;
            if let Some(holder) = holders.insert(*ip, format!("aux-address {name}")) {
                return Err(wrong(format!("another address of {net}: this one is {holder}'s")));
            }
        }
        Ok(Subnet { net, gateway, ip_range: self.ip_range, aux: self.aux.clone() })
    }
}

/// The `n`th address of a subnet, counted from its base; `None` beyond its end.
pub fn nth(net: IpNet, n: u128) -> Option<IpAddr> {
    let ip = match net {
        IpNet::V4(v4) => {
            let base = u32::from(v4.network());
            IpAddr::V4(base.checked_add(u32::try_from(n).ok()?)?.into())
        }
        IpNet::V6(v6) => IpAddr::V6(u128::from(v6.network()).checked_add(n)?.into()),
    };
    net.contains(&ip).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auxiliary_address_is_nobody_elses() {
        let with = |aux: &[(&str, &str)]| SubnetSpec {
            aux: aux.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().expect("ip"))).collect(),
            ..spec("10.0.1.0/24")
        };
        assert!(with(&[("nas", "10.0.1.9"), ("tv", "10.0.1.8")]).settle().is_ok());
        for (aux, holder) in [
            (&[("x", "10.0.1.1")][..], "the gateway's"),
            (&[("nas", "10.0.1.9"), ("x", "10.0.1.9")], "aux-address nas's"),
            (&[("x", "10.0.1.0")], "a host address"),
            (&[("x", "10.0.1.255")], "a host address"),
            (&[("x", "10.0.2.1")], "a host address"),
        ] {
            let refused = with(aux).settle().expect_err("refused");
            assert!(
                refused.field == "aux-address" && refused.value.starts_with("x=") && refused.expected.contains(holder),
                "{refused}"
            );
        }
    }

    fn spec(net: &str) -> SubnetSpec {
        SubnetSpec { net: net.parse().expect("a subnet"), gateway: None, ip_range: None, aux: BTreeMap::new() }
    }

    #[test]
    fn the_first_address_is_the_gateway_unless_said_otherwise() {
        assert_eq!(spec("10.0.1.0/24").settle().map(|s| s.gateway.to_string()), Ok("10.0.1.1".into()));
        assert_eq!(spec("fd00:9::/64").settle().map(|s| s.gateway.to_string()), Ok("fd00:9::1".into()));
    }

    #[test]
    fn what_lies_outside_is_refused_by_name() {
        let cases: &[(SubnetSpec, &str)] = &[
            (spec("10.0.1.7/24"), "subnet"),
            (spec("10.0.1.0/31"), "subnet"),
            (spec("fd00:9::/127"), "subnet"),
            (spec("224.0.0.0/24"), "subnet"),
            (spec("169.254.0.0/24"), "subnet"),
            (spec("fe80::/64"), "subnet"),
            (SubnetSpec { gateway: Some("10.0.2.1".parse().expect("ip")), ..spec("10.0.1.0/24") }, "gateway"),
            (SubnetSpec { gateway: Some("10.0.1.255".parse().expect("ip")), ..spec("10.0.1.0/24") }, "gateway"),
            (SubnetSpec { gateway: Some("fd00::1".parse().expect("ip")), ..spec("10.0.1.0/24") }, "gateway"),
            (SubnetSpec { ip_range: Some("10.0.2.0/28".parse().expect("net")), ..spec("10.0.1.0/24") }, "ip-range"),
        ];
        for (spec, field) in cases {
            assert_eq!(spec.settle().expect_err("refused").field, *field, "{spec:?}");
        }
    }
}
