//! `shoal daemon`. Every flag may stand in the configuration file instead, under the same name.

use clap::Args;
use ipnet::IpNet;
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::units::{ip, subnet};

/// Read when it is there and no other is named.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/shoal/daemon.toml";

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Daemon {
    /// A TOML file with these settings by the same names [default: /etc/shoal/daemon.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where the local socket is; as a flag it is --socket, or the environment's SHOAL_HOST
    #[arg(skip)]
    pub(crate) socket: Option<PathBuf>,
    /// Cluster state, images, containers [default: /var/lib/shoal]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What a reboot may empty: network namespaces, locks [default: /run/shoal]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Where other hosts are listened to, once this one is in a cluster [default: 0.0.0.0:2377]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen_addr: Option<SocketAddr>,
    /// The address that other hosts reach this one at [default: that of the default route's link]
    #[arg(long, value_name = "IP", value_parser = ip)]
    pub(crate) advertise_addr: Option<IpAddr>,
    /// UDP port of VXLAN in a cluster that is made here [default: 4789]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=49151))]
    pub(crate) data_path_port: Option<u16>,
    /// The cgroup above those of the containers [default: /shoal]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_parent: Option<String>,
    /// none: this host has no default bridge; what follows is about that bridge
    #[arg(long, value_name = "none", value_parser = ["none"])]
    pub(crate) bridge: Option<String>,
    /// Its own address and prefix length [default: the first subnet that is free, from 172.17.0.0/16 on]
    #[arg(long, value_name = "IP/LENGTH", value_parser = subnet)]
    pub(crate) bip: Option<IpNet>,
    /// Hand out addresses from this part of its subnet only
    #[arg(long, value_name = "SUBNET", value_parser = subnet)]
    pub(crate) fixed_cidr: Option<IpNet>,
    /// IPv6 on it too
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) ipv6: Option<bool>,
    /// Its IPv6 subnet [default: one of the cluster's]
    #[arg(long, value_name = "SUBNET", value_parser = subnet)]
    pub(crate) fixed_cidr_v6: Option<IpNet>,
    /// Of its links [default: the underlay's]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
}
