//! Networks as a user asks for them, and their subnets as they were settled.

use crate::pb;
use shoal_common::{
    Invalid, LinkName, Mtu, NodeId, Subnet,
    network::{BridgeOptions, Driver, MacvlanOptions, NetworkSpec},
    subnet::SubnetSpec,
};
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

/// How full it is, its managers know.
impl From<Subnet> for pb::Subnet {
    fn from(s: Subnet) -> Self {
        Self {
            subnet: s.net.to_string(),
            gateway: s.gateway.to_string(),
            ip_range: text(s.ip_range),
            aux_addresses: aux_text(s.aux),
            addresses: String::new(),
            used: 0,
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

/// A network's spec. Nodes in its options are names or ids as the user wrote them: `node` knows which is which.
pub fn network_spec<E: From<Invalid>>(
    n: pb::NetworkSpec,
    node: impl Fn(&str) -> Result<NodeId, E>,
) -> Result<NetworkSpec, E> {
    let driver = driver(&n.driver, n.bridge.clone(), n.macvlan.clone(), node)?;
    Ok(whole(n, driver)?)
}

fn driver<E: From<Invalid>>(
    driver: &str,
    bridge: Option<pb::BridgeOptions>,
    macvlan: Option<pb::MacvlanOptions>,
    node: impl Fn(&str) -> Result<NodeId, E>,
) -> Result<Driver, E> {
    let odd = |field| Invalid::new(field, "", format!("nothing, for the driver is {driver}")).into();
    match driver {
        "overlay" if bridge.is_some() => Err(odd("bridge")),
        "overlay" | "bridge" if macvlan.is_some() => Err(odd("macvlan")),
        "macvlan" if bridge.is_some() => Err(odd("bridge")),
        "overlay" => Ok(Driver::Overlay),
        "bridge" => {
            let options = bridge.unwrap_or_default();
            let id = node(&options.node)?;
            let options = bridge_options(options, id).inside("bridge")?;
            match options.link.as_ref().filter(|link| link.is_reserved()) {
                Some(link) => {
                    let expected = "another name: Shoal's own links have those that begin with shb, shp or shx";
                    Err(Invalid::new(BRIDGE_NAME, link, expected).inside("bridge").into())
                }
                None => Ok(Driver::Bridge(options)),
            }
        }
        "macvlan" => {
            let options = macvlan.unwrap_or_default();
            let expected = "the link of the host on which it is made, such as eth0 or eth0.50: -o parent=LINK, or \
                            -o parent@HOST=LINK for that host alone";
            if options.parent.is_empty() && options.parents.is_empty() {
                return Err(Invalid::new("parent", "", expected).into());
            }
            let mut parents = BTreeMap::new();
            for (at, link) in &options.parents {
                parents.insert(node(at)?, parent(&format!("parent@{at}"), link)?);
            }
            Ok(Driver::Macvlan(MacvlanOptions {
                parent: if options.parent.is_empty() { None } else { Some(parent("parent", &options.parent)?) },
                parents,
                mode: parsed("macvlan_mode", &options.mode)?,
            }))
        }
        other => Err(Invalid::new("driver", other, "bridge, overlay or macvlan").into()),
    }
}

/// A link of a host, or a VLAN on one.
fn parent(field: &str, text: &str) -> Result<LinkName, Invalid> {
    let link: LinkName = parsed(field, text)?;
    link.vlan().map_err(|e| e.at(field))?;
    Ok(link)
}

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

pub(super) fn bridge_options(b: pb::BridgeOptions, node: NodeId) -> Result<BridgeOptions, Invalid> {
    Ok(BridgeOptions {
        node,
        link: if b.link.is_empty() { None } else { Some(parsed(BRIDGE_NAME, &b.link)?) },
        icc: !b.no_icc,
        masquerade: !b.no_masquerade,
        host_binding: read_unless_empty("com.docker.network.bridge.host_binding_ipv4", &b.host_binding, AN_ADDRESS)?,
        is_default: b.is_default,
    })
}

impl From<BridgeOptions> for pb::BridgeOptions {
    fn from(b: BridgeOptions) -> Self {
        Self {
            node: b.node.to_string(),
            link: text(b.link),
            no_icc: !b.icc,
            no_masquerade: !b.masquerade,
            host_binding: text(b.host_binding),
            is_default: b.is_default,
        }
    }
}

fn whole(n: pb::NetworkSpec, driver: Driver) -> Result<NetworkSpec, Invalid> {
    {
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
        Ok(NetworkSpec {
            name: parsed("name", &n.name)?,
            driver,
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
        let driver = n.driver.to_string();
        let (bridge, macvlan) = match n.driver {
            Driver::Overlay => (None, None),
            Driver::Bridge(options) => (Some(options.into()), None),
            Driver::Macvlan(options) => {
                let parents = options.parents.into_iter().map(|(node, link)| (node.to_string(), link.into()));
                let options = pb::MacvlanOptions {
                    parent: text(options.parent),
                    parents: parents.collect(),
                    mode: options.mode.to_string(),
                };
                (None, Some(options))
            }
        };
        Self {
            name: n.name.into(),
            driver,
            bridge,
            macvlan,
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
