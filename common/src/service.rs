//! Services: what a user asks for.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, time::Duration};

use crate::{Invalid, Name, NetworkId, health::HealthCheck, name::Labels};

/// `shoal service create`, parsed. Networks are ids here: whoever parses resolves the names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    pub name: Name,
    pub labels: Labels,
    pub mode: Mode,
    pub endpoint_mode: EndpointMode,
    pub networks: Vec<NetworkAttachment>,
    pub container: ContainerSpec,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    pub update: UpdatePolicy,
    #[serde(default)]
    pub publish: Vec<Publish>,
}

impl ServiceSpec {
    /// Whether going from `self` to `next` means new tasks. Scaling, placement, policies and ports of the cluster do
    /// not.
    pub fn needs_new_tasks(&self, next: &ServiceSpec) -> bool {
        self.container != next.container
            || self.networks != next.networks
            || self.resources != next.resources
            || !self.published(PublishMode::Host).eq(next.published(PublishMode::Host))
    }

    pub fn published(&self, mode: PublishMode) -> impl Iterator<Item = &Publish> {
        self.publish.iter().filter(move |publish| publish.mode == mode)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Mode {
    /// So many tasks, spread over the nodes.
    Replicated { replicas: u32 },
    /// One task on every node that fits.
    Global,
}

impl Mode {
    /// Beyond this a service is refused: a task costs memory on every manager.
    pub const MAX_REPLICAS: u32 = 50_000;
}

/// What a service's name resolves to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// One virtual address, from which connections are spread over the tasks.
    #[default]
    Vip,
    /// The addresses of the tasks.
    DnsRr,
}

impl FromStr for EndpointMode {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "vip" => Ok(Self::Vip),
            "dnsrr" => Ok(Self::DnsRr),
            _ => Err(Invalid::new("endpoint-mode", s, "vip or dnsrr")),
        }
    }
}

impl fmt::Display for EndpointMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vip => "vip",
            Self::DnsRr => "dnsrr",
        })
    }
}

/// One network that the tasks of a service join, and the further names they answer to there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAttachment {
    pub network: NetworkId,
    pub aliases: Vec<Name>,
}

/// What runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// As the user wrote it: `nginx`, `registry:5000/team/app:v2`, `web@sha256:…`.
    pub image: String,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; empty keeps it.
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Default: the task's name.
    pub hostname: Option<String>,
    /// Working directory; default the image's.
    pub workdir: Option<String>,
    /// `uid[:gid]` or names out of the image's `/etc/passwd`; default the image's.
    pub user: Option<String>,
    pub labels: Labels,
    /// Between SIGTERM (or the image's stop signal) and SIGKILL.
    pub stop_grace: Duration,
    /// Ports of `_PORT._PROTO.SERVICE` SRV records: `EXPOSE` of the image is not known to the managers.
    pub ports: Vec<NamedPort>,
    #[serde(default)]
    pub terminal: Terminal,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub dns: Dns,
    /// Further lines of `/etc/hosts`.
    #[serde(default)]
    pub extra_hosts: Vec<(String, HostAddress)>,
    #[serde(default)]
    pub privileges: Privileges,
    /// A number or a name such as `SIGTERM`; default the image's.
    #[serde(default)]
    pub stop_signal: Option<String>,
    #[serde(default)]
    pub health: HealthCheck,
}

/// Where a name of `--add-host` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<IpAddr>", into = "Option<IpAddr>")]
pub enum HostAddress {
    At(IpAddr),
    /// `host-gateway`: to the container's host, at the addresses of its default bridge.
    Gateway,
}

impl From<Option<IpAddr>> for HostAddress {
    fn from(at: Option<IpAddr>) -> Self {
        at.map_or(Self::Gateway, Self::At)
    }
}

impl From<HostAddress> for Option<IpAddr> {
    fn from(address: HostAddress) -> Self {
        match address {
            HostAddress::At(ip) => Some(ip),
            HostAddress::Gateway => None,
        }
    }
}

impl FromStr for HostAddress {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "host-gateway" => Ok(Self::Gateway),
            _ => s
                .parse()
                .map(Self::At)
                .map_err(|_| Invalid::new("add-host", s, "an IP address such as 10.0.1.3 or fd00::3, or host-gateway")),
        }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(ip) => fmt::Display::fmt(ip, f),
            Self::Gateway => f.pad("host-gateway"),
        }
    }
}

/// What its first process reads and writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// `-t`: a terminal.
    pub tty: bool,
    /// `-i`: its input stays open.
    pub stdin: bool,
}

/// A directory or a file that is not of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute.
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the host.
    Bind(String),
    /// A named volume of the host, made when first used.
    Volume(Name),
    /// Memory.
    Tmpfs,
    /// A volume without a name of a user's, which goes with its container.
    Anonymous(Name),
}

impl MountSource {
    /// What was anonymous stays when its container goes.
    pub fn name_it(&mut self) {
        if let Self::Anonymous(name) = self {
            *self = Self::Volume(name.clone());
        }
    }
}

/// `--dns`, `--dns-search`, `--dns-opt`: who answers what is no name of ours, and how the container asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Empty: the host's own resolvers.
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// What the kernel lets a container do, as far as it differs from what every container may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privileges {
    pub privileged: bool,
    /// Without `CAP_`; `ALL` for all.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// The root file system.
    pub read_only: bool,
}

impl ContainerSpec {
    pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);
}

/// A port that a service offers inside its networks. (Publishing on hosts is another thing.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPort {
    pub name: Name,
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Invalid::new("protocol", s, "tcp, udp or sctp")),
        }
    }
}

/// `--publish`: a port of hosts that leads to the service's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// None: one that is free.
    pub published: Option<u16>,
    /// The tasks' own.
    pub target: u16,
    pub protocol: Protocol,
    pub mode: PublishMode,
}

impl Publish {
    /// Where ports of the cluster are from that nobody names. Docker's.
    pub const FREE: std::ops::RangeInclusive<u16> = 30_000..=32_767;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishMode {
    /// The same port on every host, wherever the tasks are.
    #[default]
    Ingress,
    /// On each task's own host, to that task.
    Host,
}

impl FromStr for PublishMode {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "ingress" => Ok(Self::Ingress),
            "host" => Ok(Self::Host),
            _ => Err(Invalid::new("mode", s, "ingress or host")),
        }
    }
}

impl fmt::Display for PublishMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Host => "host",
        })
    }
}

/// A port that every host of the cluster has, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressPort {
    pub port: u16,
    pub target: u16,
    pub protocol: Protocol,
}

impl IngressPort {
    /// As a port of each single host.
    pub fn on_a_host(self) -> crate::container::PublishedPort {
        crate::container::PublishedPort {
            host_ip: None,
            host_port: self.port,
            container_port: self.target,
            protocol: self.protocol,
        }
    }
}

impl fmt::Display for IngressPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*:{}->{}/{}", self.port, self.target, self.protocol)
    }
}

/// CPU in billionths of a core, memory in bytes. 0 means unlimited (limit) or nothing set aside (reservation).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    pub nano_cpus: u64,
    pub memory_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Enforced by the kernel on the host.
    pub limits: Amount,
    /// Counted by the scheduler.
    pub reservations: Amount,
    /// Processes and threads; 0 means that nobody said and the host's default counts, see [`Self::PIDS_UNLIMITED`].
    pub pids_limit: u64,
}

impl Resources {
    /// As a `pids_limit`: none.
    pub const PIDS_UNLIMITED: u64 = u64::MAX;

    /// In less no process starts; Docker's limit.
    pub const LEAST_MEMORY_BYTES: u64 = 6 << 20;

    /// Of a wish: limits that something can run in. `field` is the memory limit's.
    pub fn check(&self, field: &str) -> Result<(), Invalid> {
        match self.limits.memory_bytes {
            0 | Self::LEAST_MEMORY_BYTES.. => Ok(()),
            few => Err(Invalid::new(field, few, "at least 6m (6291456 bytes), or 0 for no limit")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    pub delay: Duration,
    /// Restarts per slot inside `window`; 0 means without end.
    pub max_attempts: u32,
    /// 0 means since ever.
    pub window: Duration,
}

impl RestartPolicy {
    /// The most restarts that are counted: the count is taken from the tasks on record, and each costs memory on every
    /// manager.
    pub const MOST_ATTEMPTS: u32 = 100;

    /// Refuses a limit that could never be reached, so that a service which keeps failing would be restarted for ever.
    pub fn holds(&self) -> Result<(), Invalid> {
        if self.max_attempts > Self::MOST_ATTEMPTS {
            let expected = format!("1 to {}, or 0 for no limit", Self::MOST_ATTEMPTS);
            return Err(Invalid::new("max_attempts", self.max_attempts, expected));
        }
        // Ends are at least one delay apart: so many of them need more than so many delays.
        let least = self.delay.saturating_mul(self.max_attempts);
        if self.max_attempts != 0 && !self.window.is_zero() && self.window <= least {
            let expected = format!(
                "more than {least:?}, which {} restarts take with a delay of {:?}; or 0, to count all restarts",
                self.max_attempts, self.delay
            );
            return Err(Invalid::new("window", format!("{:?}", self.window), expected));
        }
        Ok(())
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    None,
    OnFailure,
    Any,
}

impl FromStr for RestartCondition {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "none" => Ok(Self::None),
            "on-failure" => Ok(Self::OnFailure),
            "any" => Ok(Self::Any),
            _ => Err(Invalid::new("restart-condition", s, "none, on-failure or any")),
        }
    }
}

impl fmt::Display for RestartCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::OnFailure => "on-failure",
            Self::Any => "any",
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub constraints: Vec<Constraint>,
    /// 0 means no limit.
    pub max_replicas_per_node: u32,
}

/// `node.labels.disk==ssd`: what must hold of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    pub key: ConstraintKey,
    pub equal: bool,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConstraintKey {
    NodeId,
    Hostname,
    Role,
    PlatformOs,
    PlatformArch,
    Label(String),
}

impl FromStr for Constraint {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || {
            Invalid::new(
                "constraint",
                s,
                "KEY==VALUE or KEY!=VALUE, where KEY is node.id, node.hostname, node.role, node.platform.os, \
                 node.platform.arch or node.labels.NAME",
            )
        };
        let (key, equal, value) = match (s.split_once("=="), s.split_once("!=")) {
            (Some((k, v)), None) => (k, true, v),
            (None, Some((k, v))) => (k, false, v),
            (Some(_), Some(_)) | (None, None) => return Err(bad()),
        };
        let key = match key.trim() {
            "node.id" => ConstraintKey::NodeId,
            "node.hostname" => ConstraintKey::Hostname,
            "node.role" => ConstraintKey::Role,
            "node.platform.os" => ConstraintKey::PlatformOs,
            "node.platform.arch" => ConstraintKey::PlatformArch,
            other => match other.strip_prefix("node.labels.") {
                Some(label) if !label.is_empty() => ConstraintKey::Label(label.to_owned()),
                Some(_) | None => return Err(bad()),
            },
        };
        let value = value.trim();
        if value.is_empty() { Err(bad()) } else { Ok(Self { key, equal, value: value.to_owned() }) }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = if self.equal { "==" } else { "!=" };
        match &self.key {
            ConstraintKey::NodeId => write!(f, "node.id"),
            ConstraintKey::Hostname => write!(f, "node.hostname"),
            ConstraintKey::Role => write!(f, "node.role"),
            ConstraintKey::PlatformOs => write!(f, "node.platform.os"),
            ConstraintKey::PlatformArch => write!(f, "node.platform.arch"),
            ConstraintKey::Label(l) => write!(f, "node.labels.{l}"),
        }?;
        write!(f, "{op}{}", self.value)
    }
}

/// How new tasks replace old ones: stop the old one first, so many slots at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdatePolicy {
    /// Slots at a time; 0 means all at once.
    pub parallelism: u32,
    /// Between one batch running and the next.
    pub delay: Duration,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self { parallelism: 1, delay: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_reads_back_what_it_prints() {
        for s in ["node.labels.disk==ssd", "node.role!=manager", "node.hostname==w1", "node.id==node-3"] {
            assert_eq!(s.parse::<Constraint>().map(|c| c.to_string()), Ok(s.to_owned()));
        }
        for s in ["", "node.role", "node.role==", "nope==x", "node.labels.==x", "a==b!=c"] {
            assert!(s.parse::<Constraint>().is_err(), "{s}");
        }
    }
}
