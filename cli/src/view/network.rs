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
    /// cluster, or local
    pub(crate) scope: String,
    /// Of a local one: its host.
    pub(crate) node: String,
    /// In the words of `--opt`.
    pub(crate) options: BTreeMap<String, String>,
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
    /// task, container or vip
    pub(crate) kind: String,
    pub(crate) node: String,
    pub(crate) mac: String,
    pub(crate) v4: String,
    pub(crate) v6: String,
}

impl From<pb::Network> for Network {
    fn from(n: pb::Network) -> Self {
        let spec = n.spec.unwrap_or_default();
        let options = options(&spec);
        Self {
            id: some_id("net", n.id),
            name: spec.name,
            driver: spec.driver,
            scope: n.scope,
            node: n.node_name,
            options,
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

fn options(spec: &pb::NetworkSpec) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut option = |key: &str, value: &str| {
        if !value.is_empty() {
            out.insert(key.to_owned(), value.to_owned());
        }
    };
    if let Some(bridge) = &spec.bridge {
        let yes = |yes: bool| if yes { "true" } else { "false" };
        option("com.docker.network.bridge.name", &bridge.link);
        option("com.docker.network.bridge.enable_icc", yes(!bridge.no_icc));
        option("com.docker.network.bridge.enable_ip_masquerade", yes(!bridge.no_masquerade));
        option("com.docker.network.bridge.host_binding_ipv4", &bridge.host_binding);
        option("com.docker.network.bridge.default_bridge", if bridge.is_default { "true" } else { "" });
    }
    if let Some(macvlan) = &spec.macvlan {
        option("parent", &macvlan.parent);
        option("macvlan_mode", &macvlan.mode);
        for (node, parent) in &macvlan.parents {
            option(&format!("parent@{node}"), parent);
        }
    }
    out
}

impl Network {
    /// A network that every host has, and that holds nothing.
    pub(crate) fn predefined(name: &str, driver: &str) -> Self {
        let spec = pb::NetworkSpec { name: name.to_owned(), driver: driver.to_owned(), ..Default::default() };
        pb::Network { spec: Some(spec), scope: "local".to_owned(), ..Default::default() }.into()
    }

    /// For templates, which are written with Docker's names, and with ours.
    pub(crate) fn fields(&self) -> serde_json::Value {
        let mut fields = serde_json::to_value(self).unwrap_or_default();
        let ipam: Vec<_> = self.subnets.iter().map(|s| {
            serde_json::json!({ "Subnet": s.subnet, "Gateway": s.gateway, "IPRange": s.ip_range, "AuxiliaryAddresses": s.aux_addresses })
        }).collect();
        let containers: BTreeMap<&str, _> = self
            .users
            .iter()
            .filter(|u| u.kind != "vip")
            .map(|u| {
                (
                    u.name.as_str(),
                    serde_json::json!({
                        "Name": u.name, "MacAddress": u.mac, "IPv4Address": u.v4, "IPv6Address": u.v6, "Node": u.node,
                    }),
                )
            })
            .collect();
        if let Some(fields) = fields.as_object_mut() {
            for (name, value) in [
                ("Id", serde_json::json!(self.id)),
                ("ID", serde_json::json!(self.id)),
                ("Name", serde_json::json!(self.name)),
                ("Driver", serde_json::json!(self.driver)),
                ("Scope", serde_json::json!(self.scope)),
                ("Created", serde_json::json!(self.created)),
                ("EnableIPv6", serde_json::json!(self.ipv6)),
                ("Internal", serde_json::json!(self.internal)),
                ("Attachable", serde_json::json!(self.attachable)),
                ("Labels", serde_json::json!(self.labels)),
                ("Options", serde_json::json!(self.options)),
                ("IPAM", serde_json::json!({ "Driver": "default", "Config": ipam })),
                ("Containers", serde_json::json!(containers)),
            ] {
                fields.insert(name.to_owned(), value);
            }
        }
        fields
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
