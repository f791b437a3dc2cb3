//! What runs.

use crate::pb;
use shoal_common::{
    Invalid, Reference,
    health::{HealthCheck, HealthTest},
    service::{ContainerSpec, Dns, HostAddress, Mount, MountSource, NamedPort, Privileges, Terminal},
};
use std::{collections::BTreeSet, time::Duration};

use super::field::{AN_ADDRESS, Inside, labels, millis, not_empty, parsed, port, read, without_nul};

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

/// A list, each with its place for its field.
fn each<M, C>(field: &str, items: Vec<M>, read: impl Fn(String, M) -> Result<C, Invalid>) -> Result<Vec<C>, Invalid> {
    items.into_iter().enumerate().map(|(n, item)| read(format!("{field}[{n}]"), item)).collect()
}

fn mounts(mounts: Vec<pb::Mount>) -> Result<Vec<Mount>, Invalid> {
    let mut targets = BTreeSet::new();
    let found: Vec<Mount> = each("mounts", mounts, |field, m| {
        let absolute = |what: &str, path: &str| {
            without_nul(format!("{field}.{what}"), path)?;
            if path.starts_with('/') {
                Ok(path.to_owned())
            } else {
                Err(Invalid::new(format!("{field}.{what}"), path, "an absolute path"))
            }
        };
        let source = match m.r#type.as_str() {
            "bind" => MountSource::Bind(absolute("source", &m.source)?),
            "volume" => {
                let name = parsed(format!("{field}.source"), &m.source)?;
                if m.anonymous { MountSource::Anonymous(name) } else { MountSource::Volume(name) }
            }
            "tmpfs" => MountSource::Tmpfs,
            other => return Err(Invalid::new(format!("{field}.type"), other, "bind, volume or tmpfs")),
        };
        Ok(Mount { source, target: absolute("target", &m.target)?, read_only: m.read_only })
    })?;
    match found.iter().find(|m| !targets.insert(m.target.as_str())) {
        Some(twice) => Err(Invalid::new("mounts.target", &twice.target, "each target once")),
        None => Ok(found),
    }
}

impl From<Mount> for pb::Mount {
    fn from(m: Mount) -> Self {
        let anonymous = matches!(m.source, MountSource::Anonymous(_));
        let (r#type, source) = match m.source {
            MountSource::Bind(path) => ("bind", path),
            MountSource::Volume(name) | MountSource::Anonymous(name) => ("volume", name.into()),
            MountSource::Tmpfs => ("tmpfs", String::new()),
        };
        Self { r#type: r#type.to_owned(), source, target: m.target, read_only: m.read_only, anonymous }
    }
}

/// A line of resolv.conf is cut at blanks.
fn resolv_conf_word(field: String, word: String) -> Result<String, Invalid> {
    if word.is_empty() || word.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Invalid::new(field, word, "one word without blanks"));
    }
    Ok(word)
}

fn extra_host(field: String, host: pb::ExtraHost) -> Result<(String, HostAddress), Invalid> {
    Ok((resolv_conf_word(field.clone(), host.name)?, parsed(field, &host.address)?))
}

fn capability(field: String, name: String) -> Result<String, Invalid> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if !bare.is_empty() && bare.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
        Ok(bare.to_owned())
    } else {
        Err(Invalid::new(field, name, "a capability such as NET_ADMIN, or ALL"))
    }
}

impl TryFrom<pb::HealthCheck> for HealthCheck {
    type Error = Invalid;

    fn try_from(h: pb::HealthCheck) -> Result<Self, Invalid> {
        let given = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        Ok(Self {
            test: HealthTest::of_words(&words("health-cmd", h.test)?)?,
            interval: given(h.interval_ms),
            timeout: given(h.timeout_ms),
            start_period: given(h.start_period_ms),
            start_interval: given(h.start_interval_ms),
            retries: Some(h.retries).filter(|n| *n > 0),
        })
    }
}

impl From<HealthCheck> for pb::HealthCheck {
    fn from(h: HealthCheck) -> Self {
        let millis = |d: Option<Duration>| d.map_or(0, millis);
        Self {
            test: h.test.map(|test| test.words()).unwrap_or_default(),
            interval_ms: millis(h.interval),
            timeout_ms: millis(h.timeout),
            start_period_ms: millis(h.start_period),
            start_interval_ms: millis(h.start_interval),
            retries: h.retries.unwrap_or(0),
        }
    }
}

impl TryFrom<pb::ContainerSpec> for ContainerSpec {
    type Error = Invalid;

    fn try_from(c: pb::ContainerSpec) -> Result<Self, Invalid> {
        c.image.parse::<Reference>()?;
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
            terminal: Terminal { tty: c.tty, stdin: c.stdin },
            mounts: mounts(c.mounts)?,
            dns: Dns {
                servers: each("dns", c.dns_servers, |field, ip| read(field, &ip, AN_ADDRESS))?,
                search: each("dns-search", c.dns_search, resolv_conf_word)?,
                options: each("dns-option", c.dns_options, resolv_conf_word)?,
            },
            extra_hosts: each("add-host", c.extra_hosts, extra_host)?,
            privileges: Privileges {
                privileged: c.privileged,
                cap_add: each("cap-add", c.cap_add, capability)?,
                cap_drop: each("cap-drop", c.cap_drop, capability)?,
                read_only: c.read_only,
            },
            stop_signal: Some(c.stop_signal).filter(|s| !s.is_empty()),
            health: c.health.unwrap_or_default().try_into()?,
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
            tty: c.terminal.tty,
            stdin: c.terminal.stdin,
            mounts: c.mounts.into_iter().map(Into::into).collect(),
            dns_servers: c.dns.servers.iter().map(ToString::to_string).collect(),
            dns_search: c.dns.search,
            dns_options: c.dns.options,
            extra_hosts: c
                .extra_hosts
                .into_iter()
                .map(|(name, address)| pb::ExtraHost { name, address: address.to_string() })
                .collect(),
            privileged: c.privileges.privileged,
            cap_add: c.privileges.cap_add,
            cap_drop: c.privileges.cap_drop,
            read_only: c.privileges.read_only,
            stop_signal: c.stop_signal.unwrap_or_default(),
            health: (c.health != HealthCheck::default()).then(|| c.health.into()),
        }
    }
}
