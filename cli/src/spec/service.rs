//! `service create` as a spec, and `service update` as a change to one.

use shoal_common::{
    NetworkId,
    service::{ContainerSpec, EndpointMode, RestartPolicy, UpdatePolicy},
};
use shoal_proto::{
    convert::service_spec,
    pb::{self, service_spec::Mode},
};
use std::{cell::Cell, time::Duration};

use super::{env, health, map, name, ports};
use crate::{
    args::service::{Create, Settings, Update},
    failure::Failure,
    units::{Attachment, Port},
};

pub(crate) fn create(c: &Create, random: u64) -> Result<pb::ServiceSpec, Failure> {
    let global = c.mode == "global";
    if global && c.settings.replicas.is_some() {
        return Err(Failure::usage(
            "replicas: a global service has one task on every host: leave out --replicas, or --mode",
        ));
    }
    let mut spec = pb::ServiceSpec {
        name: c.name.as_ref().map_or_else(|| name::name(random), ToString::to_string),
        labels: map(&c.label),
        mode: Some(if global { Mode::Global(true) } else { Mode::Replicas(1) }),
        endpoint_mode: EndpointMode::default().to_string(),
        networks: c.network.iter().map(network).collect(),
        container: Some(pb::ContainerSpec {
            image: c.image.clone(),
            args: c.command.clone(),
            env: env::collect(&c.env_file, &c.env)?,
            labels: map(&c.container_label),
            stop_grace_ms: millis(ContainerSpec::DEFAULT_STOP_GRACE),
            ports: c.service_port.iter().map(port).collect(),
            ..Default::default()
        }),
        resources: Some(pb::Resources::default()),
        restart: Some(RestartPolicy::default().into()),
        placement: Some(pb::Placement {
            constraints: c.constraint.iter().map(ToString::to_string).collect(),
            max_replicas_per_node: 0,
        }),
        update: Some(UpdatePolicy::default().into()),
        publish: published(&c.publish)?,
    };
    settle(&mut spec, &c.settings)?;
    check(&spec)?;
    Ok(spec)
}

/// Applies an update's flags to the spec as it is. `networks_gone` are ids, as the spec has them.
pub(crate) fn update(spec: &mut pb::ServiceSpec, u: &Update, networks_gone: &[String]) -> Result<(), Failure> {
    settle(spec, &u.settings)?;

    let missing = |flag: &str, what: &str| Failure::usage(format!("{flag}: the service has no {what}"));
    for gone in networks_gone {
        spec.networks.retain(|n| n.network != *gone);
    }
    spec.networks.extend(u.network_add.iter().map(network));
    for key in &u.label_rm {
        spec.labels.remove(key).ok_or_else(|| missing("label-rm", key))?;
    }
    spec.labels.extend(map(&u.label_add));

    let placement = spec.placement.get_or_insert_default();
    for constraint in u.constraint_rm.iter().map(ToString::to_string) {
        let before = placement.constraints.len();
        placement.constraints.retain(|c| *c != constraint);
        if placement.constraints.len() == before {
            return Err(missing("constraint-rm", &constraint));
        }
    }
    for constraint in u.constraint_add.iter().map(ToString::to_string) {
        if !placement.constraints.contains(&constraint) {
            placement.constraints.push(constraint);
        }
    }

    let container = spec.container.get_or_insert_default();
    if let Some(image) = &u.image {
        container.image.clone_from(image);
    }
    if let Some(args) = &u.args {
        container.args.clone_from(&args.0);
    }
    // One that is not there is already as wanted, as with Docker.
    container.env.retain(|k, _| !u.env_rm.contains(k));
    container.env.extend(env::collect(&[], &u.env_add)?);
    for key in &u.container_label_rm {
        container.labels.remove(key).ok_or_else(|| missing("container-label-rm", key))?;
    }
    container.labels.extend(map(&u.container_label_add));
    for name in &u.service_port_rm {
        let before = container.ports.len();
        container.ports.retain(|p| p.name != *name);
        if container.ports.len() == before {
            return Err(missing("service-port-rm", name));
        }
    }
    container.ports.extend(u.service_port_add.iter().map(port));
    unpublish(spec, &u.publish_rm)?;
    for publish in published(&u.publish_add)? {
        if !spec.publish.contains(&publish) {
            spec.publish.push(publish);
        }
    }
    check(spec)
}

fn published(texts: &[String]) -> Result<Vec<pb::Publish>, Failure> {
    let all: Result<Vec<_>, _> = texts.iter().map(|text| ports::of_service(text)).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// By the tasks' own port, as with Docker; a published one that is named, too, must be the same.
fn unpublish(spec: &mut pb::ServiceSpec, texts: &[String]) -> Result<(), Failure> {
    for text in texts {
        for gone in ports::of_service(text)? {
            let is = |p: &pb::Publish| {
                let published = [0, p.published].contains(&gone.published);
                published && (p.target, &p.protocol) == (gone.target, &gone.protocol)
            };
            let before = spec.publish.len();
            spec.publish.retain(|p| !is(p));
            if spec.publish.len() == before {
                return Err(Failure::usage(format!("publish-rm: the service does not publish {text}")));
            }
        }
    }
    Ok(())
}

pub(crate) fn scale(spec: &mut pb::ServiceSpec, replicas: u32) -> Result<(), Failure> {
    match spec.mode {
        Some(Mode::Global(_)) => Err(Failure::usage(format!(
            "service {} is global: it has one task on every host, and no replicas",
            spec.name
        ))),
        Some(Mode::Replicas(_)) | None => {
            spec.mode = Some(Mode::Replicas(replicas));
            check(spec)
        }
    }
}

fn settle(spec: &mut pb::ServiceSpec, s: &Settings) -> Result<(), Failure> {
    if let Some(n) = s.replicas {
        scale(spec, n)?;
    }
    if let Some(mode) = s.endpoint_mode {
        spec.endpoint_mode = mode.to_string();
    }

    let container = spec.container.get_or_insert_default();
    if let Some(Words(entrypoint)) = &s.entrypoint {
        // As with Docker, an empty one gives the image's own back.
        container.has_entrypoint = !entrypoint.is_empty();
        container.entrypoint.clone_from(entrypoint);
    }
    text(&mut container.hostname, s.hostname.as_ref());
    text(&mut container.workdir, s.workdir.as_ref());
    text(&mut container.user, s.user.as_ref());
    set(&mut container.stop_grace_ms, s.stop_grace_period.map(millis));
    health::settle(&mut container.health, &s.health)?;

    let resources = spec.resources.get_or_insert_default();
    set(&mut resources.limits.get_or_insert_default().nano_cpus, s.limit_cpu);
    set(&mut resources.limits.get_or_insert_default().memory_bytes, s.limit_memory);
    set(&mut resources.reservations.get_or_insert_default().nano_cpus, s.reserve_cpu);
    set(&mut resources.reservations.get_or_insert_default().memory_bytes, s.reserve_memory);
    set(&mut resources.pids_limit, s.limit_pids);

    let restart = spec.restart.get_or_insert_with(|| RestartPolicy::default().into());
    set(&mut restart.condition, s.restart_condition.map(|c| c.to_string()));
    set(&mut restart.delay_ms, s.restart_delay.map(millis));
    set(&mut restart.max_attempts, s.restart_max_attempts);
    set(&mut restart.window_ms, s.restart_window.map(millis));

    set(&mut spec.placement.get_or_insert_default().max_replicas_per_node, s.replicas_max_per_node);

    let update = spec.update.get_or_insert_with(|| UpdatePolicy::default().into());
    set(&mut update.parallelism, s.update_parallelism);
    set(&mut update.delay_ms, s.update_delay.map(millis));
    Ok(())
}

use crate::units::Words;

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(v) = value {
        *field = v;
    }
}

/// An empty text gives the image's own back.
fn text(field: &mut Option<String>, value: Option<&String>) {
    if let Some(v) = value {
        *field = (!v.is_empty()).then(|| v.clone());
    }
}

fn network(a: &Attachment) -> pb::NetworkAttachment {
    pb::NetworkAttachment { network: a.network.clone(), aliases: a.aliases.clone() }
}

fn port(p: &Port) -> pb::NamedPort {
    pb::NamedPort { name: p.name.clone(), port: p.port.into(), protocol: p.protocol.to_string() }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Everything that can be said without knowing the cluster. Which networks there are cannot, so each is another.
fn check(spec: &pb::ServiceSpec) -> Result<(), Failure> {
    let next = Cell::new(0);
    service_spec::<Failure>(spec.clone(), |_| {
        next.set(next.get() + 1);
        Ok(NetworkId(next.get()))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
