//! Containers that were run by hand, as Docker shows them.

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value, json};
use shoal_common::network::BridgeOptions;
use shoal_proto::pb;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{listed, made::Made, nanos, some_id, time};
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

/// `described`: what its host alone knows of it.
pub(crate) fn row(c: &pb::Container, described: Option<&pb::Description>, now_ms: u64) -> Row {
    let spec = c.spec.clone().unwrap_or_default();
    let container = spec.container.unwrap_or_default();
    let made = Made::of(&container, described.and_then(|d| d.image.as_ref()));
    let ago = |ms: u64| approximately(Duration::from_millis(now_ms.saturating_sub(ms)));
    let words: Vec<&str> = made.command().map(String::as_str).collect();
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
        labels: made.labels,
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

/// What `inspect` shows, in Docker's shape. `described`: what its host alone knows; `running`: what it says of it now.
pub(crate) fn inspected(
    c: &pb::Container,
    described: Option<&pb::Description>,
    running: Option<&pb::ContainerStats>,
) -> Value {
    let spec = c.spec.clone().unwrap_or_default();
    let status = c.status.clone().unwrap_or_default();
    let container = spec.container.unwrap_or_default();
    let made = Made::of(&container, described.and_then(|d| d.image.as_ref()));
    let exposed: Map<String, Value> = made.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect();
    let bound = container_ports(&c.ports, |p| p.host_port.to_string());
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
    if spec.stack != "own" {
        networks.insert(spec.stack.clone(), json!({ "NetworkID": "", "IPAddress": "" }));
    }
    let wished = container_ports(&spec.ports, |p| match (p.host_port, p.host_port_last) {
        (0, _) => String::new(),
        (port, 0) => port.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    let extra_hosts: Vec<String> = container.extra_hosts.iter().map(|h| format!("{}:{}", h.name, h.address)).collect();
    let (restart, most) = spec.restart.split_once(':').unwrap_or((&spec.restart, "0"));
    let limits = spec.resources.unwrap_or_default().limits.unwrap_or_default();
    let default = networks.get(BridgeOptions::DEFAULT_NAME).cloned();
    let of_default = |key: &str| default.as_ref().map_or_else(|| json!(""), |seen| seen[key].clone());
    let mut all = json!({
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
            "User": made.user,
            "Tty": container.tty,
            "OpenStdin": container.stdin,
            "Env": made.env,
            "Cmd": made.cmd,
            "Entrypoint": made.entrypoint,
            "Image": container.image,
            "ExposedPorts": exposed,
            "WorkingDir": made.workdir,
            "Labels": made.labels,
            "Healthcheck": healthcheck(Some(&made.health)),
            "StopSignal": made.stop_signal,
            "StopTimeout": container.stop_grace_ms / 1000,
        },
        "HostConfig": {
            "NetworkMode": match spec.stack.as_str() {
                "own" => c.networks.first().map(|n| n.name.clone()).unwrap_or_default(),
                stack => stack.to_owned(),
            },
            "RestartPolicy": { "Name": restart, "MaximumRetryCount": most.parse::<u32>().unwrap_or(0) },
            "PortBindings": wished,
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
        "NetworkSettings": {
            "Ports": bound,
            "IPAddress": of_default("IPAddress"),
            "Gateway": of_default("Gateway"),
            "MacAddress": of_default("MacAddress"),
            "GlobalIPv6Address": of_default("GlobalIPv6Address"),
            "Networks": networks,
        },
    });
    // What is not known is left out: a host that is down does not say what the image adds, and nobody when one began
    // that has ended.
    let words: Vec<&String> = made.command().collect();
    if let Some((path, args)) = words.split_first().filter(|_| made.is_whole) {
        (all["Path"], all["Args"]) = (json!(path), json!(args));
    }
    if let Some(described) = described {
        all["State"]["OOMKilled"] = json!(described.oom_killed);
    }
    match running {
        Some(now) => {
            all["State"]["Pid"] = json!(now.pid);
            all["NetworkSettings"]["SandboxKey"] = json!(now.netns);
        }
        None if status.phase == "running" => {}
        None => {
            all["State"]["Pid"] = json!(0);
            all["NetworkSettings"]["SandboxKey"] = json!("");
        }
    }
    match status.phase.as_str() {
        "running" => {
            all["State"]["StartedAt"] = json!(time(status.since_ms));
            // When it ended an earlier time nobody knows any more.
            if c.start <= 1 && status.restarts == 0 {
                all["State"]["FinishedAt"] = json!(NEVER);
            }
        }
        "created" => (all["State"]["StartedAt"], all["State"]["FinishedAt"]) = (json!(NEVER), json!(NEVER)),
        _ => all["State"]["FinishedAt"] = json!(time(status.since_ms)),
    }
    all
}

/// Docker's word for it.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `{"80/tcp": [{"HostIp": "", "HostPort": "8000"}]}`
fn container_ports(ports: &[pb::PortSpec], host_port: impl Fn(&pb::PortSpec) -> String) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for p in ports {
        let bound = json!({ "HostIp": p.host_ip, "HostPort": host_port(p) });
        all.entry(format!("{}/{}", p.container_port, p.protocol)).or_default().push(bound);
    }
    json!(all)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> pb::Container {
        let port = |host_port, container_port, host_port_last| pb::PortSpec {
            host_port,
            container_port,
            protocol: "tcp".into(),
            host_port_last,
            ..Default::default()
        };
        let container = pb::ContainerSpec {
            entrypoint: vec!["/bin/sh".into(), "-c".into()],
            has_entrypoint: true,
            args: vec!["serve".into()],
            ..Default::default()
        };
        let spec = pb::RunSpec {
            name: "web".into(),
            container: Some(container),
            stack: "own".into(),
            ports: vec![port(8000, 80, 0), port(0, 81, 0), port(7000, 80, 7003)],
            ..Default::default()
        };
        let subnet = pb::Subnet { subnet: "172.17.0.0/16".into(), gateway: "172.17.0.1".into(), ..Default::default() };
        pb::Container {
            id: 9,
            spec: Some(spec),
            status: Some(pb::RunStatus { phase: "running".into(), since_ms: 1_000, ..Default::default() }),
            endpoints: vec![pb::Endpoint {
                network: 2,
                v4: "172.17.0.2".into(),
                mac: "02:42:ac:11:00:02".into(),
                ..Default::default()
            }],
            networks: vec![pb::Attached { name: "bridge".into(), subnets: vec![subnet] }],
            ..Default::default()
        }
    }

    #[test]
    fn what_scripts_ask_an_inspected_one_for_is_where_docker_has_it() {
        let shown = inspected(&web(), None, None);
        let settings = &shown["NetworkSettings"];
        assert_eq!((&settings["IPAddress"], &settings["Gateway"]), (&json!("172.17.0.2"), &json!("172.17.0.1")));
        let others = (&settings["MacAddress"], &settings["GlobalIPv6Address"]);
        assert_eq!(others, (&json!("02:42:ac:11:00:02"), &json!("")));
        assert_eq!(shown["State"]["StartedAt"], json!("1970-01-01T00:00:01.000Z"));
        assert_eq!((&shown["Path"], &shown["Args"]), (&json!("/bin/sh"), &json!(["-c", "serve"])));
        let wished = json!({
            "80/tcp": [{ "HostIp": "", "HostPort": "8000" }, { "HostIp": "", "HostPort": "7000-7003" }],
            "81/tcp": [{ "HostIp": "", "HostPort": "" }],
        });
        assert_eq!(shown["HostConfig"]["PortBindings"], wished);
    }

    #[test]
    fn what_its_host_knows_of_the_image_and_of_its_end_is_shown() {
        let mut other = web();
        let container = other.spec.as_mut().and_then(|s| s.container.as_mut()).expect("there is one");
        (container.has_entrypoint, container.entrypoint) = (false, Vec::new());
        let image = pb::InspectImageReply {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            exposed_ports: vec!["80/tcp".into()],
            ..Default::default()
        };
        let described = pb::Description { container: 9, image: Some(image), oom_killed: true };
        let shown = inspected(&other, Some(&described), None);
        assert_eq!((&shown["Path"], &shown["Args"]), (&json!("/entry"), &json!(["serve"])));
        assert_eq!(shown["Config"]["ExposedPorts"], json!({ "80/tcp": {} }));
        assert_eq!(shown["State"]["OOMKilled"], json!(true));
        assert_eq!(row(&other, Some(&described), 0).command, "/entry serve");
    }

    #[test]
    fn what_is_not_known_of_an_inspected_one_is_left_out() {
        let mut other = web();
        other.networks[0].name = "blue".into();
        other.status = Some(pb::RunStatus { phase: "exited".into(), ..Default::default() });
        let created = pb::RunStatus { phase: "created".into(), since_ms: 1_000, ..Default::default() };
        assert_eq!(
            inspected(&pb::Container { status: Some(created), ..web() }, None, None)["State"]["StartedAt"],
            json!(NEVER)
        );
        let container = other.spec.as_mut().and_then(|s| s.container.as_mut()).expect("there is one");
        (container.has_entrypoint, container.entrypoint) = (false, Vec::new());
        let shown = inspected(&other, None, None);
        assert_eq!(shown["NetworkSettings"]["IPAddress"], json!(""), "that is the default bridge's");
        assert_eq!(shown["NetworkSettings"]["Networks"]["blue"]["IPAddress"], json!("172.17.0.2"));
        assert_eq!((&shown["State"]["Pid"], &shown["NetworkSettings"]["SandboxKey"]), (&json!(0), &json!("")));
        assert!(inspected(&web(), None, None)["State"].get("Pid").is_none(), "its host did not say");
        for (part, key) in
            [(&shown, "Path"), (&shown, "Args"), (&shown["State"], "StartedAt"), (&shown["State"], "OOMKilled")]
        {
            assert!(part.get(key).is_none(), "{key}");
        }
    }
}
