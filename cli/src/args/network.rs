//! `network …`.

use clap::{Args, Subcommand};
use ipnet::IpNet;
use std::net::IpAddr;

use super::{Format, Listing};
use crate::units::{KeyValue, key_value};

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Create a network
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show all there is to know of networks
    Inspect(Inspect),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// overlay
    #[arg(short, long, default_value = "overlay")]
    pub(crate) driver: String,
    /// Such as 10.0.1.0/24 or fd00:1::/64; repeatable, one per address family
    #[arg(long)]
    pub(crate) subnet: Vec<IpNet>,
    /// Of the subnet that contains it (default: its first address); repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<IpAddr>,
    /// Hand out addresses from this part of the subnet only; repeatable
    #[arg(long, value_name = "SUBNET")]
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
    /// mtu=BYTES; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) opt: Vec<KeyValue>,
    /// cluster: an overlay has no other
    #[arg(long, default_value = "swarm", value_parser = ["swarm", "global", "cluster"], hide = true)]
    pub(crate) scope: String,
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
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// No complaint about one that is not there
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}
