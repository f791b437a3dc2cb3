//! `node …`.

use clap::{Args, Subcommand};
use shoal_common::node::{Availability, Role};

use super::{Format, Listing};
use crate::units::{KeyValue, key_value};

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List hosts
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show all there is to know of hosts
    Inspect(Inspect),
    /// Make hosts managers
    Promote(Names),
    /// Make managers workers
    Demote(Names),
    /// Change a host
    Update(Update),
    /// Forget hosts
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// List the tasks of hosts
    Ps(Ps),
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Ids, host names, or self
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) names: Names,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// active, pause or drain
    #[arg(long)]
    pub(crate) availability: Option<Availability>,
    /// worker or manager
    #[arg(long)]
    pub(crate) role: Option<Role>,
    /// KEY or KEY=VALUE; repeatable
    #[arg(long, value_parser = key_value)]
    pub(crate) label_add: Vec<KeyValue>,
    /// KEY; repeatable
    #[arg(long)]
    pub(crate) label_rm: Vec<String>,
    /// Id, host name, or self
    pub(crate) node: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Even if it is not down
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) names: Names,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// Ids, host names, or self (which is the default)
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}
