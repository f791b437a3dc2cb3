//! The command line, as Docker Swarm users know it. Values are parsed here; what they mean is [`crate::spec`]'s.

pub(crate) mod cluster;
pub(crate) mod daemon;
pub(crate) mod image;
pub(crate) mod lab;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod unbuilt;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/shoal/shoal.sock";

#[derive(Debug, Parser)]
#[command(name = "shoal", version, about = "Containers and networks over many hosts", propagate_version = false)]
pub(crate) struct Cli {
    /// The daemon's socket: a path, or unix:///PATH
    #[arg(
        short = 'H',
        long = "host",
        visible_alias = "socket",
        env = "SHOAL_HOST",
        default_value = DEFAULT_SOCKET,
        value_parser = socket,
        global = true
    )]
    pub(crate) host: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run this host's daemon
    Daemon(daemon::Daemon),
    /// Make this host the first manager of a new cluster
    Init(cluster::Init),
    /// Join this host to a cluster
    Join(cluster::Join),
    /// Print the command that joins a host
    JoinToken(cluster::JoinToken),
    /// Leave the cluster
    Leave(cluster::Leave),
    /// The same four verbs, where Docker has them
    #[command(subcommand)]
    Swarm(cluster::Swarm),
    /// Show this host and its cluster
    Info(Format),
    /// Show versions
    Version(Format),
    /// Hosts
    #[command(subcommand)]
    Node(node::Node),
    /// Networks
    #[command(subcommand)]
    Network(network::Network),
    /// Services
    #[command(subcommand)]
    Service(service::Service),
    /// Images on this host
    #[command(subcommand)]
    Image(image::Image),
    /// Several hosts on this machine, to try things out
    Lab(lab::Lab),
}

/// How a listing is printed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Listing {
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) format: Format,
    /// Accepted for Docker's sake: nothing is ever truncated
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Format {
    /// json: one object per line
    #[arg(long, value_parser = format)]
    pub(crate) format: Option<Json>,
}

impl Format {
    pub(crate) fn json(&self) -> bool {
        self.format.is_some()
    }
}

/// The one format besides a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Json;

fn format(s: &str) -> Result<Json, String> {
    match s {
        "json" => Ok(Json),
        _ => Err("templates are not built yet: use --format json, or nothing for a table".to_owned()),
    }
}

fn socket(s: &str) -> Result<PathBuf, String> {
    match s.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("unix", _)) => Err("unix:// is followed by an absolute path: unix:///run/shoal/shoal.sock".to_owned()),
        Some((scheme, _)) => Err(format!("{scheme}:// is not built yet: give the path of a local socket")),
        None if s.is_empty() => Err("the path of the daemon's socket".to_owned()),
        None => Ok(s.into()),
    }
}
