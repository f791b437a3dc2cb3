//! Networks as a user asks for them, and their subnets as they were settled.

use crate::pb;
use shoal_common::{Invalid, Mtu, Subnet, network::NetworkSpec, subnet::SubnetSpec};
use std::{collections::BTreeMap, net::IpAddr};

use super::field::{A_SUBNET, AN_ADDRESS, Inside, address, labels, parsed, read_unless_empty, subnet, text};

fn aux(addresses: BTreeMap<String, String>) -> Result<BTreeMap<String, IpAddr>, Invalid> {
    addresses
        .into_iter()
        .map(|(name, ip)| {
            let ip = address(format!("aux_addresses.{name}"), &ip)?;
            Ok((name, ip))
        })
        .collect()
}

fn aux_text(addresses: BTreeMap<String, IpAddr>) -> BTreeMap<String, String> {
    addresses.into_iter().map(|(name, ip)| (name, ip.to_string())).collect()
}

impl TryFrom<pb::SubnetSpec> for SubnetSpec {
    type Error = Invalid;

    fn try_from(s: pb::SubnetSpec) -> Result<Self, Invalid> {
        let spec = Self {
            net: subnet("subnet", &s.subnet)?,
            gateway: read_unless_empty("gateway", &s.gateway, AN_ADDRESS)?,
            ip_range: read_unless_empty("ip_range", &s.ip_range, A_SUBNET)?,
            aux: aux(s.aux_addresses)?,
        };
        spec.settle()?;
        Ok(spec)
    }
}

impl From<SubnetSpec> for pb::SubnetSpec {
    fn from(s: SubnetSpec) -> Self {
        Self {
            subnet: s.net.to_string(),
            gateway: text(s.gateway),
            ip_range: text(s.ip_range),
            aux_addresses: aux_text(s.aux),
        }
    }
}

impl TryFrom<pb::SettledSubnet> for Subnet {
    type Error = Invalid;

    fn try_from(s: pb::SettledSubnet) -> Result<Self, Invalid> {
        SubnetSpec {
            net: subnet("subnet", &s.subnet)?,
            gateway: Some(address("gateway", &s.gateway)?),
            ip_range: read_unless_empty("ip_range", &s.ip_range, A_SUBNET)?,
            aux: aux(s.aux_addresses)?,
        }
        .settle()
    }
}

impl From<Subnet> for pb::SettledSubnet {
    fn from(s: Subnet) -> Self {
        Self {
            subnet: s.net.to_string(),
            gateway: s.gateway.to_string(),
            ip_range: text(s.ip_range),
            aux_addresses: aux_text(s.aux),
        }
    }
}

/// 0 on the wire: automatic.
pub(super) fn mtu(field: &str, n: u32) -> Result<Option<Mtu>, Invalid> {
    match n {
        0 => Ok(None),
        n => Mtu::try_from(n).map(Some).map_err(|e| e.at(field)),
    }
}

impl TryFrom<pb::NetworkSpec> for NetworkSpec {
    type Error = Invalid;

    fn try_from(n: pb::NetworkSpec) -> Result<Self, Invalid> {
        let mut subnets: Vec<SubnetSpec> = Vec::new();
        for (i, s) in n.subnets.into_iter().enumerate() {
            let path = format!("subnets[{i}]");
            let spec = SubnetSpec::try_from(s).inside(&path)?;
            if let Some(other) = subnets.iter().find(|o| o.net.addr().is_ipv4() == spec.net.addr().is_ipv4()) {
                let expected = format!("at most one subnet per address family, and {} is listed already", other.net);
                return Err(Invalid::new("subnet", spec.net, expected).inside(&path));
            }
            subnets.push(spec);
        }
        Ok(Self {
            name: parsed("name", &n.name)?,
            driver: parsed("driver", &n.driver)?,
            subnets,
            ipv6: n.ipv6,
            internal: n.internal,
            attachable: n.attachable,
            allow_overlap: n.allow_overlap,
            mtu: mtu("mtu", n.mtu)?,
            labels: labels("labels", n.labels)?,
        })
    }
}

impl From<NetworkSpec> for pb::NetworkSpec {
    fn from(n: NetworkSpec) -> Self {
        Self {
            name: n.name.into(),
            driver: n.driver.to_string(),
            subnets: n.subnets.into_iter().map(Into::into).collect(),
            ipv6: n.ipv6,
            internal: n.internal,
            attachable: n.attachable,
            allow_overlap: n.allow_overlap,
            mtu: n.mtu.map_or(0, Mtu::get),
            labels: n.labels,
        }
    }
}
