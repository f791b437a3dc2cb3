//! Networks.

use serde::Serialize;
use shoal_proto::pb;
use std::collections::BTreeMap;

use super::{some_id, time};

#[derive(Debug, Serialize)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    /// Always cluster.
    pub(crate) scope: &'static str,
    pub(crate) vni: u32,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) ipv6: bool,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) allow_overlap: bool,
    /// 0: the underlay's less VXLAN's overhead
    pub(crate) mtu: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: String,
    pub(crate) users: Vec<User>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Subnet {
    pub(crate) subnet: String,
    pub(crate) gateway: String,
    /// Empty: the whole subnet.
    pub(crate) ip_range: String,
    pub(crate) aux_addresses: BTreeMap<String, String>,
    /// How many can be handed out; text, because an IPv6 subnet has more than JSON's numbers hold.
    pub(crate) addresses: String,
    pub(crate) used: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct User {
    pub(crate) name: String,
    /// task or vip
    pub(crate) kind: String,
    pub(crate) node: String,
    pub(crate) mac: String,
    pub(crate) v4: String,
    pub(crate) v6: String,
}

impl From<pb::Network> for Network {
    fn from(n: pb::Network) -> Self {
        let spec = n.spec.unwrap_or_default();
        Self {
            id: some_id("net", n.id),
            name: spec.name,
            driver: spec.driver,
            scope: "cluster",
            vni: n.vni,
            subnets: n.subnets.into_iter().map(Into::into).collect(),
            ipv6: spec.ipv6,
            internal: spec.internal,
            attachable: spec.attachable,
            allow_overlap: spec.allow_overlap,
            mtu: spec.mtu,
            labels: spec.labels,
            created: time(n.created_ms),
            users: n.users.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<pb::Subnet> for Subnet {
    fn from(s: pb::Subnet) -> Self {
        Self {
            subnet: s.subnet,
            gateway: s.gateway,
            ip_range: s.ip_range,
            aux_addresses: s.aux_addresses,
            addresses: s.addresses,
            used: s.used,
        }
    }
}

impl From<pb::NetworkUser> for User {
    fn from(u: pb::NetworkUser) -> Self {
        Self { name: u.name, kind: u.kind, node: u.node, mac: u.mac, v4: u.v4, v6: u.v6 }
    }
}
