//! The command line, as Docker Swarm users know it. Values are parsed here; what they mean is [`crate::spec`]'s.

pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod daemon;
pub(crate) mod health;
pub(crate) mod image;
pub(crate) mod lab;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod unbuilt;

use clap::{Args, Parser, Subcommand};
use std::{any::TypeId, path::PathBuf, time::Duration};

use crate::view::Form;

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/shoal/shoal.sock";

#[derive(Debug, Parser)]
#[command(name = "shoal", version, about = "Containers and networks over many hosts", propagate_version = false)]
pub(crate) struct Cli {
    /// The daemon's socket: a path, or unix:///PATH; else as SHOAL_HOST of the environment says
    // Not by clap's `env`: clap would show it as typed in the usage of every mistake.
    #[arg(
        short = 'H',
        long = "host",
        visible_alias = "socket",
        default_value_os_t = default_socket(),
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
    /// Make a container and start it
    Run(Box<container::Run>),
    /// Make a container
    Create(Box<container::Create>),
    /// List containers
    Ps(container::Ps),
    /// Show all there is to know of containers, networks, services, nodes and tasks
    Inspect(container::Inspect),
    /// Start containers
    Start(container::Start),
    /// Stop containers
    Stop(container::Stop),
    /// Stop and start containers
    Restart(container::Stop),
    /// Send a signal to containers
    Kill(container::Kill),
    /// Remove containers
    Rm(container::Rm),
    /// Run a program in a container
    Exec(container::Exec),
    /// Join a container's first process
    Attach(container::Attach),
    /// Show what a container wrote
    Logs(container::Logs),
    /// Wait until containers end, and print their exit codes
    Wait(container::Named),
    /// Show published ports
    Port(container::Port),
    /// Show what containers use
    Stats(container::Stats),
    /// Show the processes of a container
    Top(container::One),
    /// Give a container another name
    Rename(container::Rename),
    /// The same verbs, where Docker has them too
    #[command(subcommand)]
    Container(container::Container),
    /// Images on this host
    #[command(subcommand)]
    Image(image::Image),
    /// Several hosts on this machine, to try things out
    Lab(lab::Lab),
}

/// How rows that can be chosen from are printed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Rows {
    /// KEY=VALUE; repeatable
    #[arg(short, long, value_parser = crate::units::key_value)]
    pub(crate) filter: Vec<crate::units::KeyValue>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// How a listing is printed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Listing {
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// json, or a template such as '{{.Name}}' or 'table {{.ID}}\t{{.Name}}'
    #[arg(long)]
    pub(crate) format: Option<Form>,
    /// Accepted for Docker's sake: nothing is ever truncated
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// How one thing is printed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Format {
    /// json, or a template such as '{{.Name}}'
    #[arg(short, long)]
    pub(crate) format: Option<Form>,
}

/// `--replicas -1` is a bad number of replicas, not an unknown flag; so is `-1s` a bad duration, and `-5m` a bad size.
pub(crate) fn with_negatives(command: clap::Command) -> clap::Command {
    let quantities = [TypeId::of::<Duration>(), TypeId::of::<u64>()];
    let command = command.mut_args(|arg| {
        let is_quantity = quantities.iter().any(|kind| arg.get_value_parser().type_id() == *kind);
        if is_quantity || arg.get_id() == "publish" { arg.allow_hyphen_values(true) } else { arg }
    });
    command.allow_negative_numbers(true).mut_subcommands(with_negatives)
}

fn default_socket() -> PathBuf {
    std::env::var_os("SHOAL_HOST").map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

fn socket(s: &str) -> Result<PathBuf, String> {
    match s.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("unix", _)) => Err("unix:// is followed by an absolute path: unix:///run/shoal/shoal.sock".to_owned()),
        Some((scheme, _)) => Err(format!("{scheme}:// is not built yet: give the path of a local socket")),
        None if s.is_empty() => Err("the path of the daemon's socket".to_owned()),
        // Docker's `service create --host NAME:IP`, which would end in "no such file".
        None if s.contains(':') && !s.contains('/') => Err(
            "the path of the daemon's socket. For NAME:IP, as Docker's service create has it: extra hosts of services are \
             not built yet; give the service an alias with --network name=…,alias=…"
                .to_owned(),
        ),
        None => Ok(s.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn an_extra_host_of_a_service_is_not_taken_for_the_daemons_socket() {
        for given in ["db:10.0.0.5", "db:::1", "db.example:192.0.2.1"] {
            let e =
                Cli::try_parse_from(["shoal", "service", "create", "--host", given, "web:1"]).expect_err("no socket");
            assert!(e.to_string().contains("extra hosts of services are not built yet"), "{e}");
        }
        for given in ["/run/a:b.sock", "unix:///run/s.sock", "s.sock"] {
            assert!(Cli::try_parse_from(["shoal", "--host", given, "info"]).is_ok(), "{given}");
        }
    }

    #[test]
    fn a_negative_value_is_a_bad_value_and_no_flag() {
        for line in [
            "run --memory -5 x",
            "run --memory -5m x",
            "run --cpus -0.5 x",
            "run --health-interval -1s x",
            "run --stop-timeout -1 x",
            "service create --replicas -1 x",
            "service create --update-delay -1s x",
        ] {
            let words = std::iter::once("shoal").chain(line.split(' '));
            let e = with_negatives(Cli::command()).try_get_matches_from(words).expect_err(line);
            assert_eq!(e.kind(), clap::error::ErrorKind::ValueValidation, "{line}: {e}");
        }
        // What comes after the image is the container's.
        let words = "shoal run -p -1:80 x sleep -5s".split(' ');
        assert!(with_negatives(Cli::command()).try_get_matches_from(words).is_ok());
    }
}
