//! Containers that were run by hand, as Docker shows them.

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value, json};
use shoal_proto::pb;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{listed, nanos, some_id, time};
use crate::units::approximately;

/// A row of `ps`: Docker's names for `--format`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) command: String,
    pub(crate) created_at: String,
    pub(crate) running_for: String,
    pub(crate) status: String,
    pub(crate) state: String,
    pub(crate) ports: String,
    pub(crate) names: String,
    pub(crate) networks: String,
    pub(crate) node: String,
    #[serde(serialize_with = "in_a_row")]
    pub(crate) labels: BTreeMap<String, String>,
    /// starting, healthy, unhealthy or none.
    #[serde(skip)]
    pub(crate) health: String,
}

fn in_a_row<S: serde::Serializer>(labels: &BTreeMap<String, String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&listed(labels))
}

pub(crate) fn row(c: &pb::Container, now_ms: u64) -> Row {
    let spec = c.spec.clone().unwrap_or_default();
    let container = spec.container.unwrap_or_default();
    let ago = |ms: u64| approximately(Duration::from_millis(now_ms.saturating_sub(ms)));
    let words: Vec<String> = container.entrypoint.iter().chain(&container.args).cloned().collect();
    Row {
        id: some_id("task", c.id),
        image: container.image,
        command: words.join(" "),
        created_at: time(c.created_ms),
        running_for: format!("{} ago", ago(c.created_ms)),
        status: status(c, ago),
        state: c.status.clone().unwrap_or_default().phase,
        health: health(&c.status.clone().unwrap_or_default()).to_owned(),
        ports: ports(&c.ports).join(", "),
        names: spec.name,
        networks: match spec.stack.as_str() {
            "own" => c.networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(","),
            stack => stack.to_owned(),
        },
        node: c.node_name.clone(),
        labels: container.labels,
    }
}

fn health(status: &pb::RunStatus) -> &str {
    if status.health.is_empty() { "none" } else { &status.health }
}

fn status(c: &pb::Container, ago: impl Fn(u64) -> String) -> String {
    let s = c.status.clone().unwrap_or_default();
    let code = s.exit_code.map(|code| format!(" ({code})")).unwrap_or_default();
    match (c.wanted.as_str(), s.phase.as_str()) {
        ("removed", _) => "Removal In Progress".to_owned(),
        (_, "running" | "restarting") if c.host_down => "Unknown (its host is down)".to_owned(),
        (_, "running") => match s.health.as_str() {
            "" => format!("Up {}", ago(s.since_ms)),
            "starting" => format!("Up {} (health: starting)", ago(s.since_ms)),
            health => format!("Up {} ({health})", ago(s.since_ms)),
        },
        (_, "restarting") => format!("Restarting{code} {} ago", ago(s.since_ms)),
        (_, "exited") if s.exit_code.is_none() && s.message.is_empty() => "Created".to_owned(),
        (_, "exited") => format!("Exited{code} {} ago", ago(s.since_ms)),
        ("running", _) => "Starting".to_owned(),
        (_, _) => "Created".to_owned(),
    }
}

/// `0.0.0.0:8000->80/tcp`, and the same of IPv6 where no address was named.
pub(crate) fn ports(ports: &[pb::PortSpec]) -> Vec<String> {
    ports
        .iter()
        .flat_map(|p| hosts(p).into_iter().map(|h| format!("{h}->{}/{}", p.container_port, p.protocol)))
        .collect()
}

/// Where a published port is found on its host.
pub(crate) fn hosts(p: &pb::PortSpec) -> Vec<String> {
    match p.host_ip.as_str() {
        "" => vec![format!("0.0.0.0:{}", p.host_port), format!("[::]:{}", p.host_port)],
        ip if ip.contains(':') => vec![format!("[{ip}]:{}", p.host_port)],
        ip => vec![format!("{ip}:{}", p.host_port)],
    }
}

/// What `inspect` shows, in Docker's shape.
pub(crate) fn inspected(c: &pb::Container) -> Value {
    let spec = c.spec.clone().unwrap_or_default();
    let status = c.status.clone().unwrap_or_default();
    let container = spec.container.unwrap_or_default();
    let mut bound = Map::new();
    for p in &c.ports {
        let all = bound.entry(format!("{}/{}", p.container_port, p.protocol)).or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(json!({ "HostIp": p.host_ip, "HostPort": p.host_port.to_string() }));
        }
    }
    let mut networks = Map::new();
    for (n, endpoint) in c.endpoints.iter().enumerate() {
        let wish = spec.networks.get(n).cloned().unwrap_or_default();
        let attached = c.networks.get(n).cloned().unwrap_or_default();
        let (prefix_len, gateway) = way_out(&attached, &endpoint.v4);
        let (prefix_len_v6, gateway_v6) = way_out(&attached, &endpoint.v6);
        let seen = json!({
            "NetworkID": some_id("net", endpoint.network),
            "IPAddress": endpoint.v4,
            "IPPrefixLen": prefix_len,
            "Gateway": gateway,
            "GlobalIPv6Address": endpoint.v6,
            "GlobalIPv6PrefixLen": prefix_len_v6,
            "IPv6Gateway": gateway_v6,
            "MacAddress": endpoint.mac,
            "Link": format!("eth{}", endpoint.link),
            "Aliases": wish.aliases,
            "Links": wish.links.iter().map(|l| format!("{}:{}", l.container, l.alias)).collect::<Vec<_>>(),
            "GwPriority": wish.gw_priority,
        });
        networks.insert(attached.name, seen);
    }
    let env: Vec<String> = container.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let extra_hosts: Vec<String> = container.extra_hosts.iter().map(|h| format!("{}:{}", h.name, h.address)).collect();
    let (restart, most) = spec.restart.split_once(':').unwrap_or((&spec.restart, "0"));
    let limits = spec.resources.unwrap_or_default().limits.unwrap_or_default();
    json!({
        "Id": some_id("task", c.id),
        "Name": format!("/{}", spec.name),
        "Created": time(c.created_ms),
        "Node": { "ID": some_id("node", c.node), "Name": c.node_name },
        "Image": container.image,
        "RestartCount": status.restarts,
        "State": {
            "Status": status.phase,
            "Running": status.phase == "running",
            "Restarting": status.phase == "restarting",
            "ExitCode": status.exit_code.unwrap_or(0),
            // Of one that runs it is its health check's.
            "Error": if status.phase == "running" { "" } else { &status.message },
            "Since": time(status.since_ms),
            "Health": { "Status": health(&status), "Log": checked(&status) },
        },
        "Config": {
            "Hostname": container.hostname.clone().unwrap_or_else(|| spec.name.clone()),
            "User": container.user.clone().unwrap_or_default(),
            "Tty": container.tty,
            "OpenStdin": container.stdin,
            "Env": env,
            "Cmd": container.args,
            "Entrypoint": container.entrypoint,
            "Image": container.image,
            "WorkingDir": container.workdir.clone().unwrap_or_default(),
            "Labels": container.labels,
            "Healthcheck": healthcheck(container.health.as_ref()),
            "StopSignal": container.stop_signal,
            "StopTimeout": container.stop_grace_ms / 1000,
        },
        "HostConfig": {
            "NetworkMode": match spec.stack.as_str() {
                "own" => c.networks.first().map(|n| n.name.clone()).unwrap_or_default(),
                stack => stack.to_owned(),
            },
            "RestartPolicy": { "Name": restart, "MaximumRetryCount": most.parse::<u32>().unwrap_or(0) },
            "AutoRemove": spec.auto_remove,
            "Binds": container.mounts.iter().filter(|m| m.r#type == "bind")
                .map(|m| format!("{}:{}{}", m.source, m.target, if m.read_only { ":ro" } else { "" })).collect::<Vec<_>>(),
            "Dns": container.dns_servers,
            "DnsSearch": container.dns_search,
            "DnsOptions": container.dns_options,
            "ExtraHosts": extra_hosts,
            "CapAdd": container.cap_add,
            "CapDrop": container.cap_drop,
            "Privileged": container.privileged,
            "ReadonlyRootfs": container.read_only,
            "NanoCpus": limits.nano_cpus,
            "Memory": limits.memory_bytes,
            "Links": spec.links.iter().map(|l| format!("/{}:/{}/{}", l.container, spec.name, l.alias)).collect::<Vec<_>>(),
        },
        "Mounts": container.mounts.iter().map(|m| json!({
            "Type": m.r#type, "Source": m.source, "Destination": m.target, "RW": !m.read_only,
        })).collect::<Vec<_>>(),
        "NetworkSettings": { "Ports": bound, "Networks": networks },
    })
}

/// What made it unhealthy; Docker has the last five, Shoal's managers hear of changes only.
fn checked(status: &pb::RunStatus) -> Value {
    match (status.phase.as_str(), status.message.as_str()) {
        ("running", message) if !message.is_empty() => json!([{ "Output": message }]),
        _ => json!([]),
    }
}

/// Docker counts in nanoseconds. What is 0 is as the image says.
pub(super) fn healthcheck(check: Option<&pb::HealthCheck>) -> Value {
    let check = check.cloned().unwrap_or_default();
    json!({
        "Test": check.test,
        "Interval": nanos(check.interval_ms),
        "Timeout": nanos(check.timeout_ms),
        "StartPeriod": nanos(check.start_period_ms),
        "StartInterval": nanos(check.start_interval_ms),
        "Retries": check.retries,
    })
}

/// Of the subnet that an address is from: its prefix length and its gateway; 0 and empty for no address.
fn way_out(attached: &pb::Attached, address: &str) -> (u8, String) {
    let Ok(address) = address.parse::<IpAddr>() else { return (0, String::new()) };
    let mut subnets = attached.subnets.iter().filter_map(|s| Some((s.subnet.parse::<IpNet>().ok()?, s)));
    let found = subnets.find(|(net, _)| net.contains(&address));
    found.map(|(net, subnet)| (net.prefix_len(), subnet.gateway.clone())).unwrap_or_default()
}
