//! Hosts of the cluster.

use crate::pb;
use shoal_common::{
    Invalid, Mtu,
    node::{Availability, DefaultBridge, Liveness, NodeDescription, Role},
};

use super::{
    field::{
        A_SOCKET_ADDRESS, A_SUBNET, Inside, address, enumeration, not_empty, read, read_unless_empty, required, subnet,
        text,
    },
    network::mtu,
};

enumeration!(Role, pb::Role, "role", [Worker, Manager]);
enumeration!(Availability, pb::Availability, "availability", [Active, Pause, Drain]);
enumeration!(Liveness, pb::Liveness, "liveness", [Unknown, Ready, Down]);

impl TryFrom<pb::NodeDescription> for NodeDescription {
    type Error = Invalid;

    fn try_from(d: pb::NodeDescription) -> Result<Self, Invalid> {
        Ok(Self {
            hostname: not_empty("hostname", d.hostname, "the host's name")?,
            control_addr: read("control_addr", &d.control_addr, A_SOCKET_ADDRESS)?,
            vtep: address("vtep", &d.vtep)?,
            underlay_mtu: Mtu::try_from(d.underlay_mtu).map_err(|e| e.at("underlay_mtu"))?,
            underlay: d
                .underlay
                .iter()
                .enumerate()
                .map(|(i, s)| subnet(format!("underlay[{i}]"), s))
                .collect::<Result<_, _>>()?,
            capacity: required("capacity", d.capacity).and_then(|a| a.try_into().inside("capacity"))?,
            os: d.os,
            arch: d.arch,
            version: d.version,
            addresses: d
                .addresses
                .iter()
                .enumerate()
                .map(|(i, ip)| address(format!("addresses[{i}]"), ip))
                .collect::<Result<_, _>>()?,
            default_bridge: d.default_bridge.map(|b| b.try_into().inside("default_bridge")).transpose()?,
        })
    }
}

impl From<NodeDescription> for pb::NodeDescription {
    fn from(d: NodeDescription) -> Self {
        Self {
            hostname: d.hostname,
            control_addr: d.control_addr.to_string(),
            vtep: d.vtep.to_string(),
            underlay_mtu: d.underlay_mtu.get(),
            underlay: d.underlay.iter().map(ToString::to_string).collect(),
            capacity: Some(d.capacity.into()),
            os: d.os,
            arch: d.arch,
            version: d.version,
            addresses: d.addresses.iter().map(ToString::to_string).collect(),
            default_bridge: d.default_bridge.map(Into::into),
        }
    }
}

impl TryFrom<pb::DefaultBridge> for DefaultBridge {
    type Error = Invalid;

    fn try_from(b: pb::DefaultBridge) -> Result<Self, Invalid> {
        Ok(Self {
            bip: read_unless_empty("bip", &b.bip, A_SUBNET)?,
            fixed_cidr: read_unless_empty("fixed_cidr", &b.fixed_cidr, A_SUBNET)?,
            ipv6: b.ipv6,
            fixed_cidr_v6: read_unless_empty("fixed_cidr_v6", &b.fixed_cidr_v6, A_SUBNET)?,
            mtu: mtu("mtu", b.mtu)?,
        })
    }
}

impl From<DefaultBridge> for pb::DefaultBridge {
    fn from(b: DefaultBridge) -> Self {
        Self {
            bip: text(b.bip),
            fixed_cidr: text(b.fixed_cidr),
            ipv6: b.ipv6,
            fixed_cidr_v6: text(b.fixed_cidr_v6),
            mtu: b.mtu.map_or(0, Mtu::get),
        }
    }
}
