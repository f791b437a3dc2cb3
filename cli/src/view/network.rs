//! Networks.

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value, json};
use shoal_proto::pb;
use std::{collections::BTreeMap, net::IpAddr};

use super::{listed, some_id, time};

/// A row of `network ls`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    pub(crate) created_at: String,
    pub(crate) driver: String,
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "IPv6")]
    pub(crate) ipv6: String,
    pub(crate) internal: String,
    pub(crate) labels: String,
    pub(crate) name: String,
    /// swarm or local
    pub(crate) scope: String,
    /// Of a local one: its host.
    pub(crate) node: String,
    pub(crate) subnets: String,
}

pub(crate) fn row(n: &pb::Network) -> Row {
    let spec = n.spec.clone().unwrap_or_default();
    Row {
        created_at: time(n.created_ms),
        driver: spec.driver,
        id: some_id("net", n.id),
        ipv6: spec.ipv6.to_string(),
        internal: spec.internal.to_string(),
        labels: listed(&spec.labels),
        name: spec.name,
        scope: scope(n).to_owned(),
        node: n.node_name.clone(),
        subnets: n.subnets.iter().map(|s| s.subnet.as_str()).collect::<Vec<_>>().join(","),
    }
}

/// Docker's word for what is the cluster's.
fn scope(n: &pb::Network) -> &str {
    if n.scope == "cluster" { "swarm" } else { &n.scope }
}

/// A network that every host has, and that holds nothing.
pub(crate) fn predefined(name: &str, driver: &str) -> pb::Network {
    let spec = pb::NetworkSpec { name: name.to_owned(), driver: driver.to_owned(), ..Default::default() };
    pb::Network { spec: Some(spec), scope: "local".to_owned(), ..Default::default() }
}

/// A host's word on whether its kernel is as the network needs it, or why there is none.
pub(crate) type Heard = BTreeMap<String, Result<pb::CheckNetworkReply, String>>;

fn hosts(heard: &Heard) -> Value {
    let word = |heard: &Result<pb::CheckNetworkReply, String>| match heard {
        Ok(checked) => json!({
            "KernelAgrees": checked.differences.is_empty(),
            "Differences": checked.differences,
            "Generation": checked.generation,
        }),
        Err(why) => json!({ "KernelAgrees": null, "Error": why }),
    };
    heard.iter().map(|(name, heard)| (name.clone(), word(heard))).collect::<Map<_, _>>().into()
}

pub(crate) fn inspected(n: &pb::Network, heard: &Heard) -> Value {
    let spec = n.spec.clone().unwrap_or_default();
    let has_v4 = n.subnets.iter().any(|s| s.subnet.parse::<IpNet>().is_ok_and(|net| net.addr().is_ipv4()));
    let vips = n.users.iter().filter(|u| u.kind == "vip");
    let containers = n.users.iter().filter(|u| u.kind != "vip");
    json!({
        "Name": spec.name,
        "Id": some_id("net", n.id),
        "Created": time(n.created_ms),
        "Scope": scope(n),
        "Driver": spec.driver,
        "EnableIPv4": has_v4 || n.subnets.is_empty(),
        "EnableIPv6": spec.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": n.subnets.iter().map(subnet).collect::<Vec<_>>(),
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers.map(|u| (some_id("task", u.id), container(n, u))).collect::<Map<_, _>>(),
        "Options": options(&spec),
        "Labels": spec.labels,
        // Ours.
        "Node": n.node_name,
        "VNI": n.vni,
        "MTU": n.mtu,
        "AllowOverlap": spec.allow_overlap,
        "Hosts": hosts(heard),
        "Services": vips.map(|u| (u.name.clone(), json!({ "VIPv4": u.v4, "VIPv6": u.v6 }))).collect::<Map<_, _>>(),
    })
}

fn subnet(s: &pb::Subnet) -> Value {
    let mut out = json!({
        "Subnet": s.subnet,
        // How many can be handed out; text, because an IPv6 subnet has more than JSON's numbers hold.
        "Addresses": s.addresses,
        "Used": s.used,
    });
    // Docker has these where they are.
    if let Some(out) = out.as_object_mut() {
        for (key, value) in [("Gateway", &s.gateway), ("IPRange", &s.ip_range)] {
            if !value.is_empty() {
                out.insert(key.to_owned(), json!(value));
            }
        }
        if !s.aux_addresses.is_empty() {
            out.insert("AuxiliaryAddresses".to_owned(), json!(s.aux_addresses));
        }
    }
    out
}

fn container(n: &pb::Network, u: &pb::NetworkUser) -> Value {
    json!({
        "Name": u.name,
        "MacAddress": u.mac,
        "IPv4Address": with_length(n, &u.v4),
        "IPv6Address": with_length(n, &u.v6),
        "Node": u.node,
    })
}

/// `10.0.0.2/24`, as its subnet says.
fn with_length(n: &pb::Network, address: &str) -> String {
    let Ok(ip) = address.parse::<IpAddr>() else { return address.to_owned() };
    let mut subnets = n.subnets.iter().filter_map(|s| s.subnet.parse::<IpNet>().ok());
    let found = subnets.find(|net| net.contains(&ip));
    found.map_or_else(|| address.to_owned(), |net| format!("{address}/{}", net.prefix_len()))
}

/// In the words of `--opt`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn blue() -> pb::Network {
        let user = |id, name: &str, kind: &str, v4: &str, v6: &str| pb::NetworkUser {
            id,
            name: name.into(),
            kind: kind.into(),
            v4: v4.into(),
            v6: v6.into(),
            ..Default::default()
        };
        let aux = BTreeMap::from([("router".to_owned(), "10.0.1.5".to_owned())]);
        let v4 = pb::Subnet {
            subnet: "10.0.1.0/24".into(),
            gateway: "10.0.1.1".into(),
            aux_addresses: aux,
            addresses: "252".into(),
            used: 3,
            ..Default::default()
        };
        let v6 = pb::Subnet { subnet: "fd00::/64".into(), ip_range: "fd00::/80".into(), ..Default::default() };
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let spec =
            pb::NetworkSpec { name: "blue".into(), driver: "overlay".into(), ipv6: true, labels, ..Default::default() };
        pb::Network {
            id: 4,
            spec: Some(spec),
            vni: 4096,
            subnets: vec![v4, v6],
            created_ms: 1_000,
            users: vec![
                user(9, "web", "vip", "10.0.1.2", "fd00::2"),
                user(13, "web.1", "task", "10.0.1.3", "fd00::3"),
                user(14, "by-hand", "container", "10.0.1.4", ""),
                // Of another host: names of containers are each host's own.
                user(15, "by-hand", "container", "10.0.1.6", ""),
            ],
            scope: "cluster".into(),
            node_name: String::new(),
            hosts: Vec::new(),
            mtu: 1450,
        }
    }

    #[test]
    fn a_row_has_dockers_names_and_text_only() {
        let want = json!({
            "CreatedAt": "1970-01-01T00:00:01.000Z", "Driver": "overlay", "ID": "net-4", "IPv6": "true",
            "Internal": "false", "Labels": "a=1,b=2", "Name": "blue", "Scope": "swarm", "Node": "",
            "Subnets": "10.0.1.0/24,fd00::/64",
        });
        assert_eq!(super::super::value(&row(&blue())), want);
    }

    #[test]
    fn an_inspected_one_has_dockers_shape_and_ours_beside_it() {
        let lacks = pb::CheckNetworkReply { generation: 7, differences: vec!["ip netns add net-4".to_owned()] };
        let heard = Heard::from([
            ("m1".to_owned(), Ok(pb::CheckNetworkReply { generation: 7, differences: Vec::new() })),
            ("w1".to_owned(), Ok(lacks)),
            ("w2".to_owned(), Err("no answer".to_owned())),
        ]);
        let want = json!({
            "Name": "blue", "Id": "net-4", "Created": "1970-01-01T00:00:01.000Z", "Scope": "swarm",
            "Driver": "overlay", "EnableIPv4": true, "EnableIPv6": true,
            "IPAM": { "Driver": "default", "Options": {}, "Config": [
                { "Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1", "AuxiliaryAddresses": { "router": "10.0.1.5" },
                  "Addresses": "252", "Used": 3 },
                { "Subnet": "fd00::/64", "IPRange": "fd00::/80", "Addresses": "", "Used": 0 },
            ] },
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": { "Network": "" },
            "ConfigOnly": false,
            "Containers": {
                "task-13": { "Name": "web.1", "MacAddress": "", "IPv4Address": "10.0.1.3/24",
                             "IPv6Address": "fd00::3/64", "Node": "" },
                "task-14": { "Name": "by-hand", "MacAddress": "", "IPv4Address": "10.0.1.4/24",
                             "IPv6Address": "", "Node": "" },
                "task-15": { "Name": "by-hand", "MacAddress": "", "IPv4Address": "10.0.1.6/24",
                             "IPv6Address": "", "Node": "" },
            },
            "Options": {}, "Labels": { "a": "1", "b": "2" },
            "Node": "", "VNI": 4096, "MTU": 1450, "AllowOverlap": false,
            "Services": { "web": { "VIPv4": "10.0.1.2", "VIPv6": "fd00::2" } },
            "Hosts": {
                "m1": { "KernelAgrees": true, "Differences": [], "Generation": 7 },
                "w1": { "KernelAgrees": false, "Differences": ["ip netns add net-4"], "Generation": 7 },
                "w2": { "KernelAgrees": null, "Error": "no answer" },
            },
        });
        assert_eq!(inspected(&blue(), &heard), want);
    }

    #[test]
    fn what_every_host_has_is_shown_without_an_id() {
        let none = predefined("none", "null");
        assert_eq!((row(&none).id, row(&none).scope), (String::new(), "local".to_owned()));
        assert_eq!(inspected(&none, &Heard::new())["IPAM"]["Config"], json!([]));
    }
}
