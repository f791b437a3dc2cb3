//! Containers that a user runs by hand (`shoal run`): each lives on the host that was asked for it, and no service
//! stands behind it.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use crate::{
    Invalid, MacAddr, Name, NetworkId, Timestamp,
    health::Health,
    service::{ContainerSpec, Protocol, Resources},
};

/// `shoal create`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    pub name: Name,
    pub container: ContainerSpec,
    pub resources: Resources,
    pub networking: Networking,
    pub ports: Vec<PortSpec>,
    /// `--expose`: ports that containers linked to it are told of, besides those above and the image's.
    #[serde(default)]
    pub exposed: BTreeSet<ExposedPort>,
    pub restart: RestartMode,
    /// `--rm`: it goes with its end.
    pub auto_remove: bool,
    /// `--link`: other containers of the same host, under names of this one's own.
    pub links: Vec<ContainerLink>,
}

impl RunSpec {
    pub fn attachments(&self) -> &[Attachment] {
        match &self.networking {
            Networking::Own(attachments) => attachments,
            Networking::None | Networking::Host => &[],
        }
    }
}

/// Which network stack a container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Networking {
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
    /// One of its own, on these networks; later ones may come and go.
    Own(Vec<Attachment>),
}

/// A container's wish for its place in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    pub network: NetworkId,
    pub aliases: Vec<Name>,
    /// Else the next that is free.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub mac: Option<MacAddr>,
    /// The way out leads over the network with the highest; among equals over the one that was joined first.
    pub gw_priority: i32,
    /// Containers of the network, under names that only this one knows; some may come later.
    #[serde(default)]
    pub links: Vec<ContainerLink>,
}

impl Attachment {
    pub fn to(network: NetworkId) -> Self {
        Self { network, aliases: Vec::new(), v4: None, v6: None, mac: None, gw_priority: 0, links: Vec::new() }
    }
}

/// `--link CONTAINER:ALIAS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerLink {
    pub container: Name,
    pub alias: Name,
}

/// `-p [IP:][HOST:]CONTAINER[/PROTOCOL]`: one port of the container; a range of those is several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// An address of the host; none: all of them.
    pub host_ip: Option<IpAddr>,
    /// None: one that is free, from [`PortSpec::EPHEMERAL`].
    pub host_port: Option<u16>,
    pub container_port: u16,
    pub protocol: Protocol,
    /// The last of a range that begins at `host_port`, of which the first is meant that is free.
    #[serde(default)]
    pub host_port_last: Option<u16>,
}

impl PortSpec {
    /// Linux' default of `net.ipv4.ip_local_port_range`.
    pub const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

    /// Those of the host's that will do.
    pub fn host_ports(&self) -> RangeInclusive<u16> {
        match self.host_port {
            Some(first) => first..=self.host_port_last.unwrap_or(first),
            None => Self::EPHEMERAL,
        }
    }
}

/// A port of a container, said to be listened at: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposedPort {
    pub number: u16,
    pub protocol: Protocol,
}

impl FromStr for ExposedPort {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("expose", s, "PORT[/tcp|udp|sctp]");
        let (number, protocol) = s.split_once('/').unwrap_or((s, "tcp"));
        let number = number.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        Ok(Self { number, protocol: protocol.parse().map_err(|_| bad())? })
    }
}

impl fmt::Display for ExposedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.number, self.protocol))
    }
}

/// A port of the host that leads to a port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl PublishedPort {
    /// Whether both cannot be had at once.
    pub fn clashes(&self, other: &PublishedPort) -> bool {
        let same_family = |a: IpAddr, b: IpAddr| a.is_ipv4() == b.is_ipv4();
        let ips = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => a == b || (same_family(a, b) && (a.is_unspecified() || b.is_unspecified())),
            (None, _) | (_, None) => true,
        };
        ips && self.host_port == other.host_port && self.protocol == other.protocol
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}->{}/{}", self.host_port, self.container_port, self.protocol)
    }
}

/// When a container that has ended is started again, by its own host and without asking anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum RestartMode {
    #[default]
    No,
    /// After an exit code other than 0; at most so often in a row, 0 means without end.
    OnFailure {
        most: u32,
    },
    Always,
    /// As `always`: one that was stopped by hand is not wanted any more, here as there.
    UnlessStopped,
}

impl FromStr for RestartMode {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("restart", s, "no, always, unless-stopped or on-failure[:MOST]");
        match s.split_once(':') {
            Some(("on-failure", most)) => most.parse().map(|most| Self::OnFailure { most }).map_err(|_| bad()),
            Some(_) => Err(bad()),
            None => match s {
                "no" | "" => Ok(Self::No),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                "on-failure" => Ok(Self::OnFailure { most: 0 }),
                _ => Err(bad()),
            },
        }
    }
}

impl fmt::Display for RestartMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.pad("no"),
            Self::OnFailure { most: 0 } => f.pad("on-failure"),
            Self::OnFailure { most } => f.pad(&format!("on-failure:{most}")),
            Self::Always => f.pad("always"),
            Self::UnlessStopped => f.pad("unless-stopped"),
        }
    }
}

/// What its user wants of a container now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wanted {
    /// Made, and never started.
    Created,
    Running,
    Stopped,
    /// Its host ends and removes it, and says so.
    Removed,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Removed => "removed",
        })
    }
}

impl FromStr for Wanted {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "created" => Ok(Self::Created),
            "running" => Ok(Self::Running),
            "stopped" => Ok(Self::Stopped),
            "removed" => Ok(Self::Removed),
            _ => Err(Invalid::new("wanted", s, "created, running, stopped or removed")),
        }
    }
}

/// What its host says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    Created,
    Running,
    /// It ended, and is started again in a moment.
    Restarting,
    Exited,
    Removed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removed => "removed",
        })
    }
}

impl FromStr for Phase {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "created" => Ok(Self::Created),
            "running" => Ok(Self::Running),
            "restarting" => Ok(Self::Restarting),
            "exited" => Ok(Self::Exited),
            "removed" => Ok(Self::Removed),
            _ => Err(Invalid::new("phase", s, "created, running, restarting, exited or removed")),
        }
    }
}

/// What is known of a container, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStatus {
    pub phase: Phase,
    /// Which of the user's starts this is about; 0 before the first.
    pub start: u64,
    pub since: Timestamp,
    /// Why, for people; of one that runs, what its last health check said. Empty when there is nothing to say.
    pub message: String,
    pub exit_code: Option<i32>,
    /// Starts by its restart policy, since the user's last.
    pub restarts: u32,
    /// Of one that runs and has a health check.
    #[serde(default)]
    pub health: Option<Health>,
    /// It could not be started: the message says why, the exit code what kind of reason.
    #[serde(default)]
    pub unstarted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(text: &str, host_port: u16) -> PublishedPort {
        let host_ip = (!text.is_empty()).then(|| text.parse().expect("an address"));
        PublishedPort { host_ip, host_port, container_port: 80, protocol: Protocol::Tcp }
    }

    #[test]
    fn ports_clash_where_a_socket_would() {
        for (a, b, clash) in [
            ("", "", true),
            ("", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0", "192.0.2.2", true),
            ("0.0.0.0", "::", false),
            ("::", "fd00::1", true),
        ] {
            assert_eq!(published(a, 80).clashes(&published(b, 80)), clash, "{a} {b}");
        }
        assert!(!published("", 80).clashes(&published("", 81)));
        let udp = PublishedPort { protocol: Protocol::Udp, ..published("", 80) };
        assert!(!udp.clashes(&published("", 80)));
    }

    #[test]
    fn an_exposed_port_reads_back_what_it_prints() {
        for s in ["80/tcp", "53/udp", "9/sctp"] {
            assert_eq!(s.parse::<ExposedPort>().map(|p| p.to_string()), Ok(s.to_owned()));
        }
        assert_eq!("80".parse::<ExposedPort>().map(|p| p.to_string()), Ok("80/tcp".to_owned()));
        for s in ["", "0", "80/icmp", "70000", "80-81"] {
            assert!(s.parse::<ExposedPort>().is_err(), "{s}");
        }
    }

    #[test]
    fn a_restart_policy_reads_back_what_it_prints() {
        for s in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert_eq!(s.parse::<RestartMode>().map(|m| m.to_string()), Ok(s.to_owned()));
        }
        for s in ["never", "always:3", "on-failure:x"] {
            assert!(s.parse::<RestartMode>().is_err(), "{s}");
        }
    }
}
