//! Services.

use serde::Serialize;
use serde_json::{Map, Value, json};
use shoal_common::service::PublishMode;
use shoal_proto::pb;

use super::{container::healthcheck, nanos, some_id, time};

/// A row of `service ls`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    /// replicated or global
    pub(crate) mode: String,
    /// 3/3
    pub(crate) replicas: String,
    pub(crate) image: String,
    /// Those of every host: `*:8080->80/tcp`.
    pub(crate) ports: String,
}

pub(crate) fn row(s: &pb::Service) -> Row {
    let spec = s.spec.clone().unwrap_or_default();
    let ingress = s.ports.iter().filter(|p| p.mode == PublishMode::Ingress.to_string());
    let ports: Vec<String> = ingress.map(|p| format!("*:{}->{}/{}", p.published, p.target, p.protocol)).collect();
    Row {
        id: some_id("svc", s.id),
        name: spec.name,
        mode: match spec.mode {
            Some(pb::service_spec::Mode::Global(_)) => "global",
            Some(pb::service_spec::Mode::Replicas(_)) | None => "replicated",
        }
        .to_owned(),
        replicas: format!("{}/{}", s.running, s.wanted),
        image: spec.container.unwrap_or_default().image,
        ports: ports.join(", "),
    }
}

pub(crate) fn inspected(s: &pb::Service) -> Value {
    let spec = s.spec.clone().unwrap_or_default();
    let endpoint = json!({ "Mode": spec.endpoint_mode, "Ports": ports(&spec.publish) });
    let mode = match spec.mode {
        Some(pb::service_spec::Mode::Global(_)) => json!({ "Global": {} }),
        Some(pb::service_spec::Mode::Replicas(n)) => json!({ "Replicated": { "Replicas": n } }),
        None => json!({ "Replicated": {} }),
    };
    let update = spec.update.unwrap_or_default();
    let vips = s.vips.iter().map(
        |v| json!({ "NetworkID": some_id("net", v.network), "Network": v.network_name, "Addr": v.v4, "IPv6": v.v6 }),
    );
    json!({
        "ID": some_id("svc", s.id),
        "Version": { "Index": s.version },
        "CreatedAt": time(s.created_ms),
        "UpdatedAt": time(s.updated_ms),
        "Spec": {
            "Name": spec.name,
            "Labels": spec.labels,
            "TaskTemplate": {
                "ContainerSpec": container(&spec.container.unwrap_or_default()),
                "Resources": resources(&spec.resources.unwrap_or_default()),
                "RestartPolicy": restart(&spec.restart.unwrap_or_default()),
                "Placement": placement(&spec.placement.unwrap_or_default()),
                "Networks": spec.networks.iter()
                    .map(|n| json!({ "Target": n.network, "Aliases": n.aliases })).collect::<Vec<_>>(),
            },
            "Mode": mode,
            "UpdateConfig": { "Parallelism": update.parallelism, "Delay": nanos(update.delay_ms) },
            "EndpointSpec": endpoint,
        },
        "Endpoint": { "Spec": endpoint, "Ports": ports(&s.ports), "VirtualIPs": vips.collect::<Vec<_>>() },
        // Ours. What tasks are made from has a version of its own: ports change without new ones.
        "SpecVersion": { "Index": s.spec_version },
        "Running": s.running,
        "Wanted": s.wanted,
    })
}

/// Published 0: one of each host's that is free.
fn ports(ports: &[pb::Publish]) -> Vec<Value> {
    let port = |p: &pb::Publish| {
        json!({
            "Protocol": p.protocol, "TargetPort": p.target, "PublishedPort": p.published, "PublishMode": p.mode,
        })
    };
    ports.iter().map(port).collect()
}

fn container(c: &pb::ContainerSpec) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("Image", json!(c.image));
    put("Args", json!(c.args));
    put("Env", json!(c.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()));
    put("Labels", json!(c.labels));
    put("StopGracePeriod", json!(nanos(c.stop_grace_ms)));
    // What is not there is the image's.
    if c.has_entrypoint {
        put("Command", json!(c.entrypoint));
    }
    for (key, value) in [("Hostname", &c.hostname), ("Dir", &c.workdir), ("User", &c.user)] {
        if let Some(value) = value {
            put(key, json!(value));
        }
    }
    if c.health.is_some() {
        put("Healthcheck", healthcheck(c.health.as_ref()));
    }
    let named = |p: &pb::NamedPort| json!({ "Name": p.name, "Port": p.port, "Protocol": p.protocol });
    put("ServicePorts", c.ports.iter().map(named).collect());
    Value::Object(out)
}

/// 0: no limit, nothing set aside; of processes the default limit, and -1 none.
fn resources(r: &pb::Resources) -> Value {
    let (limits, reservations) = (r.limits.unwrap_or_default(), r.reservations.unwrap_or_default());
    let pids = if r.pids_limit == shoal_common::service::Resources::PIDS_UNLIMITED {
        -1
    } else {
        i64::try_from(r.pids_limit).unwrap_or(-1)
    };
    json!({
        "Limits": { "NanoCPUs": limits.nano_cpus, "MemoryBytes": limits.memory_bytes, "Pids": pids },
        "Reservations": { "NanoCPUs": reservations.nano_cpus, "MemoryBytes": reservations.memory_bytes },
    })
}

fn restart(r: &pb::RestartPolicy) -> Value {
    json!({
        "Condition": r.condition,
        "Delay": nanos(r.delay_ms),
        "MaxAttempts": r.max_attempts,
        "Window": nanos(r.window_ms),
    })
}

fn placement(p: &pb::Placement) -> Value {
    json!({ "Constraints": p.constraints, "MaxReplicas": p.max_replicas_per_node })
}

#[cfg(test)]
mod tests;
