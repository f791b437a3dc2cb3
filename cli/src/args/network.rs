//! `network …`.

use clap::{Args, Subcommand};
use ipnet::IpNet;
use std::net::IpAddr;

use super::{
    Format, Rows,
    container::{Connect, Disconnect, On},
};
use crate::units::{KeyValue, ip, key_value, subnet};

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Create a network
    Create(Create),
    /// List networks: the cluster's, and this host's own
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Connect a container to a network, also while it runs
    Connect(Connect),
    /// Disconnect a container from a network, also while it runs
    Disconnect(Disconnect),
    /// Remove the networks that nobody uses
    Prune(Prune),
    /// Show all there is to know of networks
    Inspect(Inspect),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// bridge (of this host), overlay or macvlan (of the whole cluster)
    #[arg(short, long, default_value = "bridge")]
    pub(crate) driver: String,
    /// Such as 10.0.1.0/24 or fd00:1::/64; repeatable, one per address family
    #[arg(long, value_parser = subnet)]
    pub(crate) subnet: Vec<IpNet>,
    /// Of the subnet that contains it (default: its first address); repeatable
    #[arg(long, value_name = "ADDRESS", value_parser = ip)]
    pub(crate) gateway: Vec<IpAddr>,
    /// Hand out addresses from this part of the subnet only; repeatable
    #[arg(long, value_name = "SUBNET", value_parser = subnet)]
    pub(crate) ip_range: Vec<IpNet>,
    /// An address never to hand out; repeatable
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = key_value)]
    pub(crate) aux_address: Vec<KeyValue>,
    /// An IPv6 subnet too
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Containers that belong to no service may join
    #[arg(long)]
    pub(crate) attachable: bool,
    /// No way out
    #[arg(long)]
    pub(crate) internal: bool,
    /// The subnet may overlap that of another network: the two never meet
    #[arg(long)]
    pub(crate) allow_overlap: bool,
    /// KEY or KEY=VALUE; repeatable
    #[arg(long, value_parser = key_value)]
    pub(crate) label: Vec<KeyValue>,
    /// mtu=BYTES; parent=LINK, parent@HOST=LINK and macvlan_mode=MODE of macvlan; com.docker.network.bridge.… of bridge:
    /// name, enable_icc, enable_ip_masquerade, host_binding_ipv4; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) opt: Vec<KeyValue>,
    /// It follows from the driver
    #[arg(long, value_parser = ["swarm", "global", "cluster", "local"], hide = true)]
    pub(crate) scope: Option<String>,
    /// Where a bridge is to be: this host, or the name or id of another
    #[arg(long, default_value = "")]
    pub(crate) node: String,
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// Accepted for Docker's sake: everything is shown
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) rows: Rows,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// label=KEY[=VALUE]; repeatable
    #[arg(long, value_parser = key_value)]
    pub(crate) filter: Vec<KeyValue>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// No complaint about one that is not there
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) on: On,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}
