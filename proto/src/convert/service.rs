//! Services as a user asks for them.

use crate::pb;
use shoal_common::{
    Invalid, NetworkId,
    service::{
        EndpointMode, IngressPort, Mode, NetworkAttachment, Publish, PublishMode, Resources, RestartPolicy,
        ServiceSpec, UpdatePolicy,
    },
};

use super::field::{Inside, labels, message, parsed, port};

/// A service's spec. Its networks are names or ids as the user wrote them: `resolve` knows which is which.
pub fn service_spec<E: From<Invalid>>(
    s: pb::ServiceSpec,
    resolve: impl Fn(&str) -> Result<NetworkId, E>,
) -> Result<ServiceSpec, E> {
    let mut networks: Vec<NetworkAttachment> = Vec::new();
    for (i, n) in s.networks.into_iter().enumerate() {
        let path = format!("networks[{i}]");
        let network = resolve(&n.network)?;
        if networks.iter().any(|other| other.network == network) {
            return Err(Invalid::new("network", n.network, "each network once").inside(path).into());
        }
        let aliases = n
            .aliases
            .iter()
            .enumerate()
            .map(|(j, a)| parsed(format!("{path}.aliases[{j}]"), a))
            .collect::<Result<_, _>>()?;
        networks.push(NetworkAttachment { network, aliases });
    }
    let resources: Resources = s.resources.unwrap_or_default().try_into().inside("resources")?;
    resources.check("limit-memory")?;
    Ok(ServiceSpec {
        name: parsed("name", &s.name)?,
        labels: labels("labels", s.labels)?,
        mode: mode(s.mode)?,
        endpoint_mode: match s.endpoint_mode.as_str() {
            "" => EndpointMode::default(),
            given => parsed("endpoint_mode", given)?,
        },
        networks,
        container: message("container", s.container)?,
        resources,
        restart: match s.restart {
            Some(p) => p.try_into().inside("restart")?,
            None => RestartPolicy::default(),
        },
        placement: s.placement.unwrap_or_default().try_into().inside("placement")?,
        update: match s.update {
            Some(p) => p.try_into().inside("update")?,
            None => UpdatePolicy::default(),
        },
        publish: s
            .publish
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.try_into().inside(format!("publish[{i}]")))
            .collect::<Result<_, _>>()?,
    })
}

impl TryFrom<pb::Publish> for Publish {
    type Error = Invalid;

    fn try_from(p: pb::Publish) -> Result<Self, Invalid> {
        Ok(Self {
            published: if p.published == 0 { None } else { Some(port("published", p.published)?) },
            target: port("target", p.target)?,
            protocol: parsed("protocol", &p.protocol)?,
            mode: match p.mode.as_str() {
                "" => PublishMode::default(),
                given => parsed("mode", given)?,
            },
        })
    }
}

impl From<Publish> for pb::Publish {
    fn from(p: Publish) -> Self {
        Self {
            published: p.published.unwrap_or(0).into(),
            target: p.target.into(),
            protocol: p.protocol.to_string(),
            mode: p.mode.to_string(),
        }
    }
}

impl TryFrom<pb::Publish> for IngressPort {
    type Error = Invalid;

    fn try_from(p: pb::Publish) -> Result<Self, Invalid> {
        Ok(Self {
            port: port("published", p.published)?,
            target: port("target", p.target)?,
            protocol: parsed("protocol", &p.protocol)?,
        })
    }
}

impl From<IngressPort> for pb::Publish {
    fn from(p: IngressPort) -> Self {
        Publish { published: Some(p.port), target: p.target, protocol: p.protocol, mode: PublishMode::Ingress }.into()
    }
}

fn mode(m: Option<pb::service_spec::Mode>) -> Result<Mode, Invalid> {
    match m {
        Some(pb::service_spec::Mode::Replicas(n)) if n > Mode::MAX_REPLICAS => {
            Err(Invalid::new("replicas", n, format!("at most {}", Mode::MAX_REPLICAS)))
        }
        Some(pb::service_spec::Mode::Replicas(replicas)) => Ok(Mode::Replicated { replicas }),
        Some(pb::service_spec::Mode::Global(true)) => Ok(Mode::Global),
        Some(pb::service_spec::Mode::Global(false)) => {
            Err(Invalid::new("global", false, "true, or a number of replicas in its stead"))
        }
        None => Err(Invalid::new("mode", "", "a number of replicas, or global")),
    }
}

impl From<NetworkAttachment> for pb::NetworkAttachment {
    fn from(n: NetworkAttachment) -> Self {
        Self { network: n.network.to_string(), aliases: n.aliases.into_iter().map(Into::into).collect() }
    }
}

impl From<ServiceSpec> for pb::ServiceSpec {
    fn from(s: ServiceSpec) -> Self {
        Self {
            name: s.name.into(),
            labels: s.labels,
            mode: Some(match s.mode {
                Mode::Replicated { replicas } => pb::service_spec::Mode::Replicas(replicas),
                Mode::Global => pb::service_spec::Mode::Global(true),
            }),
            endpoint_mode: s.endpoint_mode.to_string(),
            networks: s.networks.into_iter().map(Into::into).collect(),
            container: Some(s.container.into()),
            resources: Some(s.resources.into()),
            restart: Some(s.restart.into()),
            placement: Some(s.placement.into()),
            update: Some(s.update.into()),
            publish: s.publish.into_iter().map(Into::into).collect(),
        }
    }
}
