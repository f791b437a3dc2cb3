//! Services.

use serde::Serialize;
use shoal_common::service::PublishMode;
use shoal_proto::pb;
use std::collections::BTreeMap;

use super::{some_id, time};

#[derive(Debug, Serialize)]
pub(crate) struct Service {
    pub(crate) id: String,
    pub(crate) name: String,
    /// replicated or global
    pub(crate) mode: &'static str,
    /// Absent for a global service.
    pub(crate) replicas: Option<u32>,
    pub(crate) running: u32,
    pub(crate) wanted: u32,
    pub(crate) version: u64,
    pub(crate) spec_version: u64,
    pub(crate) created: String,
    pub(crate) updated: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// vip or dnsrr
    pub(crate) endpoint_mode: String,
    pub(crate) vips: Vec<Vip>,
    pub(crate) ports: Vec<Published>,
    pub(crate) networks: Vec<Attachment>,
    pub(crate) container: Container,
    pub(crate) resources: Resources,
    pub(crate) restart: Restart,
    pub(crate) placement: Placement,
    pub(crate) update: Update,
}

#[derive(Debug, Serialize)]
pub(crate) struct Vip {
    pub(crate) network: String,
    pub(crate) network_name: String,
    pub(crate) v4: String,
    pub(crate) v6: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Published {
    /// 0: one of each host's that is free.
    pub(crate) published: u32,
    pub(crate) target: u32,
    pub(crate) protocol: String,
    /// ingress or host
    pub(crate) mode: String,
}

impl Service {
    /// Those of every host, as Docker shows them.
    pub(crate) fn ports_shown(&self) -> String {
        let ingress = self.ports.iter().filter(|p| p.mode == PublishMode::Ingress.to_string());
        ingress.map(|p| format!("*:{}->{}/{}", p.published, p.target, p.protocol)).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Attachment {
    pub(crate) network: String,
    pub(crate) aliases: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Container {
    pub(crate) image: String,
    /// Absent: the image's.
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) hostname: Option<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_grace_ms: u64,
    /// Absent: the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health_check: Option<HealthCheck>,
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u32,
    pub(crate) protocol: String,
}

/// 0: no limit, nothing set aside.
#[derive(Debug, Serialize)]
pub(crate) struct Resources {
    pub(crate) limit_nano_cpus: u64,
    pub(crate) limit_memory_bytes: u64,
    pub(crate) limit_pids: u64,
    pub(crate) reserve_nano_cpus: u64,
    pub(crate) reserve_memory_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Restart {
    /// none, on-failure or any
    pub(crate) condition: String,
    pub(crate) delay_ms: u64,
    pub(crate) max_attempts: u32,
    pub(crate) window_ms: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Placement {
    pub(crate) constraints: Vec<String>,
    pub(crate) max_replicas_per_node: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Update {
    pub(crate) parallelism: u32,
    pub(crate) delay_ms: u64,
}

impl From<pb::Service> for Service {
    fn from(s: pb::Service) -> Self {
        let spec = s.spec.unwrap_or_default();
        let resources = spec.resources.unwrap_or_default();
        let (limits, reservations) = (resources.limits.unwrap_or_default(), resources.reservations.unwrap_or_default());
        let restart = spec.restart.unwrap_or_default();
        let placement = spec.placement.unwrap_or_default();
        let update = spec.update.unwrap_or_default();
        let (mode, replicas) = match spec.mode {
            Some(pb::service_spec::Mode::Global(_)) => ("global", None),
            Some(pb::service_spec::Mode::Replicas(n)) => ("replicated", Some(n)),
            None => ("replicated", None),
        };
        Self {
            id: some_id("svc", s.id),
            name: spec.name,
            mode,
            replicas,
            running: s.running,
            wanted: s.wanted,
            version: s.version,
            spec_version: s.spec_version,
            created: time(s.created_ms),
            updated: time(s.updated_ms),
            labels: spec.labels,
            endpoint_mode: spec.endpoint_mode,
            vips: s
                .vips
                .into_iter()
                .map(|v| Vip { network: some_id("net", v.network), network_name: v.network_name, v4: v.v4, v6: v.v6 })
                .collect(),
            ports: s
                .ports
                .into_iter()
                .map(|p| Published { published: p.published, target: p.target, protocol: p.protocol, mode: p.mode })
                .collect(),
            networks: spec
                .networks
                .into_iter()
                .map(|n| Attachment { network: n.network, aliases: n.aliases })
                .collect(),
            container: spec.container.unwrap_or_default().into(),
            resources: Resources {
                limit_nano_cpus: limits.nano_cpus,
                limit_memory_bytes: limits.memory_bytes,
                limit_pids: resources.pids_limit,
                reserve_nano_cpus: reservations.nano_cpus,
                reserve_memory_bytes: reservations.memory_bytes,
            },
            restart: Restart {
                condition: restart.condition,
                delay_ms: restart.delay_ms,
                max_attempts: restart.max_attempts,
                window_ms: restart.window_ms,
            },
            placement: Placement {
                constraints: placement.constraints,
                max_replicas_per_node: placement.max_replicas_per_node,
            },
            update: Update { parallelism: update.parallelism, delay_ms: update.delay_ms },
        }
    }
}

/// What is empty or 0 is as the image says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HealthCheck {
    pub(crate) test: Vec<String>,
    pub(crate) interval_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) start_period_ms: u64,
    pub(crate) start_interval_ms: u64,
    pub(crate) retries: u32,
}

impl From<pb::HealthCheck> for HealthCheck {
    fn from(h: pb::HealthCheck) -> Self {
        Self {
            test: h.test,
            interval_ms: h.interval_ms,
            timeout_ms: h.timeout_ms,
            start_period_ms: h.start_period_ms,
            start_interval_ms: h.start_interval_ms,
            retries: h.retries,
        }
    }
}

impl From<pb::ContainerSpec> for Container {
    fn from(c: pb::ContainerSpec) -> Self {
        Self {
            image: c.image,
            entrypoint: c.has_entrypoint.then_some(c.entrypoint),
            args: c.args,
            env: c.env,
            hostname: c.hostname,
            workdir: c.workdir,
            user: c.user,
            labels: c.labels,
            stop_grace_ms: c.stop_grace_ms,
            health_check: c.health.map(HealthCheck::from),
            ports: c.ports.into_iter().map(|p| Port { name: p.name, port: p.port, protocol: p.protocol }).collect(),
        }
    }
}
