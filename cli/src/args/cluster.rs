//! `init`, `join`, `join-token`, `leave`.

use clap::{Args, Subcommand};
use ipnet::IpNet;
use shoal_common::node::{Availability, Role};

use crate::units::subnet;

#[derive(Debug, Subcommand)]
pub(crate) enum Swarm {
    /// Make this host the first manager of a new cluster
    Init(Init),
    /// Join this host to a cluster
    Join(Join),
    /// Print the command that joins a host
    JoinToken(JoinToken),
    /// Leave the cluster
    Leave(Leave),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The address that other hosts reach this one at: IP or IP:PORT (default: that of the default route's link)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) advertise_addr: String,
    /// A subnet from which networks without --subnet are cut; repeatable
    #[arg(long, value_name = "SUBNET", value_delimiter = ',', value_parser = subnet)]
    pub(crate) default_addr_pool: Vec<IpNet>,
    /// How large a subnet is cut from the pool
    #[arg(long, value_name = "LENGTH", default_value_t = 24, value_parser = clap::value_parser!(u32).range(8..=29))]
    pub(crate) default_addr_pool_mask_length: u32,
    /// UDP port of VXLAN on every host
    #[arg(long, value_name = "PORT", default_value_t = 4789, value_parser = clap::value_parser!(u32).range(1024..=49151))]
    pub(crate) data_path_port: u32,
    /// active, pause or drain
    #[arg(long, default_value_t = Availability::Active)]
    pub(crate) availability: Availability,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// What 'shoal join-token' printed on a manager
    #[arg(long)]
    pub(crate) token: String,
    /// The address that other hosts reach this one at: IP or IP:PORT (default: that of the default route's link)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) advertise_addr: String,
    /// active, pause or drain
    #[arg(long, default_value_t = Availability::Active)]
    pub(crate) availability: Availability,
    /// A manager
    #[arg(value_name = "HOST:PORT")]
    pub(crate) remote: String,
}

#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// worker or manager
    pub(crate) role: Role,
    /// Make a new token; the old one ends
    #[arg(long)]
    pub(crate) rotate: bool,
    /// Only the token
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// Leave even as a manager, whatever that does to the quorum
    #[arg(short, long)]
    pub(crate) force: bool,
}
