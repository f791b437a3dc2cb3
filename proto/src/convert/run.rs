//! Containers that users run by hand.

use crate::pb;
use shoal_common::{
    Invalid, NetworkId, TaskId,
    container::{
        Attachment, ContainerLink, ExposedPort, Networking, Phase, PortSpec, PublishedPort, RunSpec, RunStatus,
    },
    health::Health,
    service::Resources,
};
use std::collections::BTreeSet;

use super::field::{
    AN_ADDRESS, AN_IPV4_ADDRESS, AN_IPV6_ADDRESS, Inside, id, message, parsed, port, read_unless_empty, report_message,
    text,
};

/// What a user asks for. Its networks are names or ids as the user wrote them: `resolve` knows which is which.
pub fn run_spec<E: From<Invalid>>(
    r: pb::RunSpec,
    resolve: impl Fn(&str) -> Result<NetworkId, E>,
) -> Result<RunSpec, E> {
    let mut attachments = Vec::new();
    for a in r.networks {
        attachments.push(attachment(a, &resolve)?);
    }
    let networking = match r.stack.as_str() {
        "own" => Networking::Own(attachments),
        stack @ ("none" | "host") if !attachments.is_empty() => {
            return Err(Invalid::new("networks", stack, format!("no other networks beside {stack}")).into());
        }
        "none" => Networking::None,
        "host" => Networking::Host,
        other => return Err(Invalid::new("stack", other, "none, host or own").into()),
    };
    let links = links(r.links)?;
    if let Some(link) = links.first().filter(|_| !matches!(networking, Networking::Own(_))) {
        let expected = format!("no links on the network {}: there containers have no addresses to lead to", r.stack);
        return Err(Invalid::new("link", &link.container, &expected).into());
    }
    let ports = r.ports.into_iter().enumerate();
    let resources: Resources = r.resources.unwrap_or_default().try_into().inside("resources")?;
    resources.check("memory")?;
    Ok(RunSpec {
        name: parsed("name", &r.name)?,
        container: message("container", r.container)?,
        resources,
        networking,
        ports: ports
            .map(|(n, p)| PortSpec::try_from(p).inside(format!("ports[{n}]")))
            .collect::<Result<_, Invalid>>()?,
        restart: parsed("restart", &r.restart)?,
        auto_remove: r.auto_remove,
        exposed: exposed(&r.exposed)?,
        links,
    })
}

/// `--link`; an alias leads to one container.
fn links(links: Vec<pb::ContainerLink>) -> Result<Vec<ContainerLink>, Invalid> {
    let mut out: Vec<ContainerLink> = Vec::new();
    for l in links {
        let link = ContainerLink { container: parsed("link", &l.container)?, alias: parsed("link", &l.alias)? };
        if let Some(other) = out.iter().find(|other| other.alias == link.alias) {
            let text = format!("{}:{}", link.container, link.alias);
            let expected = format!("each alias once: {} leads to {} already", other.alias, other.container);
            return Err(Invalid::new("link", text, &expected));
        }
        out.push(link);
    }
    Ok(out)
}

pub(super) fn exposed(ports: &[String]) -> Result<BTreeSet<ExposedPort>, Invalid> {
    ports.iter().map(|port| parsed("expose", port)).collect()
}

fn link_on_the_wire(l: ContainerLink) -> pb::ContainerLink {
    pb::ContainerLink { container: l.container.into(), alias: l.alias.into() }
}

/// One wish for a place in a network.
pub fn attachment<E: From<Invalid>>(
    a: pb::Attachment,
    resolve: impl Fn(&str) -> Result<NetworkId, E>,
) -> Result<Attachment, E> {
    let aliases = a.aliases.iter().enumerate();
    Ok(Attachment {
        network: resolve(&a.network)?,
        aliases: aliases
            .map(|(n, alias)| parsed(format!("network-alias[{n}]"), alias))
            .collect::<Result<_, Invalid>>()?,
        v4: read_unless_empty("ip", &a.v4, AN_IPV4_ADDRESS)?,
        v6: read_unless_empty("ip6", &a.v6, AN_IPV6_ADDRESS)?,
        mac: if a.mac.is_empty() { None } else { Some(parsed("mac-address", &a.mac)?) },
        gw_priority: a.gw_priority,
        links: links(a.links)?,
    })
}

impl From<Attachment> for pb::Attachment {
    fn from(a: Attachment) -> Self {
        Self {
            network: a.network.to_string(),
            aliases: a.aliases.into_iter().map(Into::into).collect(),
            v4: text(a.v4),
            v6: text(a.v6),
            mac: text(a.mac),
            gw_priority: a.gw_priority,
            links: a.links.into_iter().map(link_on_the_wire).collect(),
        }
    }
}

impl From<RunSpec> for pb::RunSpec {
    fn from(r: RunSpec) -> Self {
        let (stack, networks) = match r.networking {
            Networking::None => ("none", Vec::new()),
            Networking::Host => ("host", Vec::new()),
            Networking::Own(attachments) => ("own", attachments),
        };
        Self {
            name: r.name.into(),
            container: Some(r.container.into()),
            resources: Some(r.resources.into()),
            stack: stack.to_owned(),
            networks: networks.into_iter().map(Into::into).collect(),
            ports: r.ports.into_iter().map(Into::into).collect(),
            restart: r.restart.to_string(),
            auto_remove: r.auto_remove,
            links: r.links.into_iter().map(link_on_the_wire).collect(),
            exposed: r.exposed.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<pb::PortSpec> for PortSpec {
    type Error = Invalid;

    fn try_from(p: pb::PortSpec) -> Result<Self, Invalid> {
        let unless_zero = |n: u32| if n == 0 { Ok(None) } else { port("host_port", n).map(Some) };
        let (host_port, host_port_last) = (unless_zero(p.host_port)?, unless_zero(p.host_port_last)?);
        if host_port_last.is_some() && host_port_last < host_port {
            let range = format!("{}-{}", p.host_port, p.host_port_last);
            return Err(Invalid::new("host_port", range, "a range whose last port is not below its first"));
        }
        Ok(Self {
            host_ip: read_unless_empty("host_ip", &p.host_ip, AN_ADDRESS)?,
            host_port,
            container_port: port("container_port", p.container_port)?,
            protocol: parsed("protocol", &p.protocol)?,
            host_port_last,
        })
    }
}

impl From<PortSpec> for pb::PortSpec {
    fn from(p: PortSpec) -> Self {
        Self {
            host_ip: text(p.host_ip),
            host_port: p.host_port.unwrap_or(0).into(),
            container_port: p.container_port.into(),
            protocol: p.protocol.to_string(),
            host_port_last: p.host_port_last.unwrap_or(0).into(),
        }
    }
}

impl TryFrom<pb::PortSpec> for PublishedPort {
    type Error = Invalid;

    fn try_from(p: pb::PortSpec) -> Result<Self, Invalid> {
        Ok(Self {
            host_ip: read_unless_empty("host_ip", &p.host_ip, AN_ADDRESS)?,
            host_port: port("host_port", p.host_port)?,
            container_port: port("container_port", p.container_port)?,
            protocol: parsed("protocol", &p.protocol)?,
        })
    }
}

impl From<PublishedPort> for pb::PortSpec {
    fn from(p: PublishedPort) -> Self {
        PortSpec {
            host_ip: p.host_ip,
            host_port: Some(p.host_port),
            container_port: p.container_port,
            protocol: p.protocol,
            host_port_last: None,
        }
        .into()
    }
}

impl TryFrom<pb::RunStatus> for RunStatus {
    type Error = Invalid;

    fn try_from(s: pb::RunStatus) -> Result<Self, Invalid> {
        Ok(Self {
            phase: parsed("phase", &s.phase)?,
            start: s.start,
            since: shoal_common::Timestamp(s.since_ms),
            message: s.message,
            exit_code: s.exit_code,
            restarts: s.restarts,
            health: health(&s.health)?,
            unstarted: s.unstarted,
        })
    }
}

impl From<RunStatus> for pb::RunStatus {
    fn from(s: RunStatus) -> Self {
        Self {
            phase: s.phase.to_string(),
            start: s.start,
            since_ms: s.since.0,
            message: s.message,
            exit_code: s.exit_code,
            restarts: s.restarts,
            health: text(s.health),
            unstarted: s.unstarted,
        }
    }
}

fn health(text: &str) -> Result<Option<Health>, Invalid> {
    if text.is_empty() { Ok(None) } else { parsed("health", text).map(Some) }
}

/// What a host says of a container on it; the host is known by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    pub container: TaskId,
    pub start: u64,
    pub phase: Phase,
    pub message: String,
    pub exit_code: Option<i32>,
    pub restarts: u32,
    pub health: Option<Health>,
    /// It could not be started, for the reason that the message tells.
    pub unstarted: bool,
}

impl TryFrom<pb::ContainerReport> for RunReport {
    type Error = Invalid;

    fn try_from(r: pb::ContainerReport) -> Result<Self, Invalid> {
        Ok(Self {
            container: id("container", r.container, TaskId)?,
            start: r.start,
            phase: parsed("phase", &r.phase)?,
            message: report_message(r.message),
            exit_code: r.exit_code,
            restarts: r.restarts,
            health: health(&r.health)?,
            unstarted: r.unstarted,
        })
    }
}

impl From<RunReport> for pb::ContainerReport {
    fn from(r: RunReport) -> Self {
        Self {
            container: r.container.0,
            start: r.start,
            phase: r.phase.to_string(),
            message: report_message(r.message),
            exit_code: r.exit_code,
            restarts: r.restarts,
            health: text(r.health),
            unstarted: r.unstarted,
        }
    }
}
