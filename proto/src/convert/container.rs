//! What runs.

use crate::pb;
use shoal_common::{
    Invalid,
    service::{ContainerSpec, NamedPort},
};
use std::{collections::BTreeSet, time::Duration};

use super::field::{Inside, labels, millis, not_empty, parsed, port, without_nul};

impl TryFrom<pb::NamedPort> for NamedPort {
    type Error = Invalid;

    fn try_from(p: pb::NamedPort) -> Result<Self, Invalid> {
        Ok(Self {
            name: parsed("name", &p.name)?,
            port: port("port", p.port)?,
            protocol: parsed("protocol", &p.protocol)?,
        })
    }
}

impl From<NamedPort> for pb::NamedPort {
    fn from(p: NamedPort) -> Self {
        Self { name: p.name.into(), port: p.port.into(), protocol: p.protocol.to_string() }
    }
}

pub(super) fn ports(field: &str, ports: Vec<pb::NamedPort>) -> Result<Vec<NamedPort>, Invalid> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (i, p) in ports.into_iter().enumerate() {
        let path = format!("{field}[{i}]");
        let p = NamedPort::try_from(p).inside(&path)?;
        if !seen.insert((p.name.clone(), p.protocol)) {
            let expected = format!("a name that no other {} port of the service has", p.protocol);
            return Err(Invalid::new("name", &p.name, expected).inside(&path));
        }
        out.push(p);
    }
    Ok(out)
}

/// `HOST_NAME_MAX` of Linux.
const HOSTNAME_MAX_BYTES: usize = 64;

fn hostname(h: String) -> Result<String, Invalid> {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if h.len() <= HOSTNAME_MAX_BYTES && h.split('.').all(label) {
        Ok(h)
    } else {
        Err(Invalid::new("hostname", h, "DNS labels joined by dots, 64 bytes at most"))
    }
}

fn words(field: &str, words: Vec<String>) -> Result<Vec<String>, Invalid> {
    for (i, w) in words.iter().enumerate() {
        without_nul(format!("{field}[{i}]"), w)?;
    }
    Ok(words)
}

impl TryFrom<pb::ContainerSpec> for ContainerSpec {
    type Error = Invalid;

    fn try_from(c: pb::ContainerSpec) -> Result<Self, Invalid> {
        if c.image.is_empty() || c.image.chars().any(|ch| ch.is_whitespace() || ch.is_control()) {
            return Err(Invalid::new(
                "image",
                c.image,
                "an image reference such as nginx or registry:5000/team/app:v2",
            ));
        }
        if !c.has_entrypoint && !c.entrypoint.is_empty() {
            return Err(Invalid::new("entrypoint", c.entrypoint.join(" "), "nothing, unless has_entrypoint is set"));
        }
        for (key, value) in &c.env {
            if key.is_empty() || key.contains('=') {
                return Err(Invalid::new("env", key, "a variable's name: not empty, and without '='"));
            }
            without_nul(format!("env.{key}"), key)?;
            without_nul(format!("env.{key}"), value)?;
        }
        let workdir = match c.workdir {
            Some(w) if w.starts_with('/') && !w.contains('\0') => Some(w),
            Some(w) => return Err(Invalid::new("workdir", w, "an absolute path")),
            None => None,
        };
        let user = c.user.map(|u| not_empty("user", u, "UID[:GID] or USER[:GROUP]")).transpose()?;
        if let Some(u) = &user {
            without_nul("user", u)?;
        }
        Ok(Self {
            image: c.image,
            entrypoint: c.has_entrypoint.then(|| words("entrypoint", c.entrypoint)).transpose()?,
            args: words("args", c.args)?,
            env: c.env,
            hostname: c.hostname.map(hostname).transpose()?,
            workdir,
            user,
            labels: labels("labels", c.labels)?,
            stop_grace: Duration::from_millis(c.stop_grace_ms),
            ports: ports("ports", c.ports)?,
        })
    }
}

impl From<ContainerSpec> for pb::ContainerSpec {
    fn from(c: ContainerSpec) -> Self {
        Self {
            image: c.image,
            has_entrypoint: c.entrypoint.is_some(),
            entrypoint: c.entrypoint.unwrap_or_default(),
            args: c.args,
            env: c.env,
            hostname: c.hostname,
            workdir: c.workdir,
            user: c.user,
            labels: c.labels,
            stop_grace_ms: millis(c.stop_grace),
            ports: c.ports.into_iter().map(Into::into).collect(),
        }
    }
}
