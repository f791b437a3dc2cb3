//! `run`, `ps`, `exec` and the other verbs of containers that are run by hand.
#![allow(rustdoc::broken_intra_doc_links, reason = "what stands in brackets in a help text is no link")]

use clap::{ArgAction, Args, Subcommand};
use shoal_common::{Name, container::RestartMode};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use super::{Format, Rows, health::Health, service::Tail};
use crate::units::{KeyValue, Since, Words, bytes, cpus, ip, ip4, ip6, key_value, pids, seconds, since, words};

/// The same verbs, where Docker has them too.
#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    /// Make a container and start it
    Run(Box<Run>),
    /// Make a container
    Create(Box<Create>),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(Ps),
    /// Show all there is to know of containers
    Inspect(Inspect),
    /// Start containers
    Start(Start),
    /// Stop containers
    Stop(Stop),
    /// Stop and start containers
    Restart(Stop),
    /// Send a signal
    Kill(Kill),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Run a program in a container
    Exec(Exec),
    /// Join a container's first process
    Attach(Attach),
    /// Show what a container wrote
    Logs(Logs),
    /// Wait until containers end, and print their exit codes
    Wait(Named),
    /// Show published ports
    Port(Port),
    /// Show what containers use
    Stats(Stats),
    /// Show the processes of a container
    Top(One),
    /// Give a container another name
    Rename(Rename),
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Run {
    /// In the background: print the id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The keys that leave a terminal
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// Pass signals on to it; not where it has a terminal
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    #[command(flatten)]
    pub(crate) create: Create,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Create {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Default: one is made up
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Keep its input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove it when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// no, always, unless-stopped or on-failure[:MOST]
    #[arg(long, default_value = "no")]
    pub(crate) restart: RestartMode,
    /// Default: its name
    #[arg(short = 'h', long)]
    pub(crate) hostname: Option<String>,
    /// NAME=VALUE, or NAME to take it from here; repeatable
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// A file of such lines; repeatable
    #[arg(long)]
    pub(crate) env_file: Vec<PathBuf>,
    /// KEY or KEY=VALUE; repeatable
    #[arg(short, long, value_parser = key_value)]
    pub(crate) label: Vec<KeyValue>,
    /// SOURCE:TARGET[:ro], with a path of the host's or a volume's name, or TARGET alone; repeatable
    #[arg(short, long)]
    pub(crate) volume: Vec<String>,
    /// type=bind|volume|tmpfs,source=…,target=…[,readonly]; repeatable
    #[arg(long)]
    pub(crate) mount: Vec<String>,
    /// A directory in memory; repeatable
    #[arg(long, value_name = "TARGET")]
    pub(crate) tmpfs: Vec<String>,
    /// UID, UID:GID, USER or USER:GROUP
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// In place of the image's entrypoint
    #[arg(long, value_parser = words)]
    pub(crate) entrypoint: Option<Words>,
    /// Such as 0.5
    #[arg(long, value_parser = cpus)]
    pub(crate) cpus: Option<u64>,
    /// Such as 512m
    #[arg(short, long, value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Processes and threads; -1 or 0: no limit [default: 4096]
    #[arg(long, value_parser = pids)]
    pub(crate) pids_limit: Option<u64>,
    /// NAME, or name=NAME,alias=…,ip=…,ip6=…,mac-address=…,gw-priority=…; host, none; repeatable
    #[arg(long, visible_alias = "net")]
    pub(crate) network: Vec<String>,
    /// A further name on its network; repeatable
    #[arg(long, visible_alias = "net-alias")]
    pub(crate) network_alias: Vec<Name>,
    /// Its address on its network
    #[arg(long, value_parser = ip4)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Its IPv6 address on its network
    #[arg(long, value_parser = ip6)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Its MAC address on its network
    #[arg(long)]
    pub(crate) mac_address: Option<shoal_common::MacAddr>,
    /// CONTAINER[:ALIAS]: deprecated, use a network; repeatable
    #[arg(long)]
    pub(crate) link: Vec<String>,
    /// [IP:][HOST:]CONTAINER[/tcp|udp|sctp], each a port or a range; repeatable
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    /// Publish every port that is exposed, each on a free one
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// A port or a range that --publish-all publishes too, and --link tells of; repeatable
    #[arg(long)]
    pub(crate) expose: Vec<String>,
    /// A server for names that are not Shoal's; repeatable
    #[arg(long, value_parser = ip)]
    pub(crate) dns: Vec<IpAddr>,
    /// A domain to look for names in; repeatable
    #[arg(long)]
    pub(crate) dns_search: Vec<String>,
    /// An option of resolv.conf; repeatable
    #[arg(long, visible_alias = "dns-opt")]
    pub(crate) dns_option: Vec<String>,
    /// NAME:ADDRESS, for /etc/hosts, or NAME:host-gateway for its host; repeatable
    #[arg(long)]
    pub(crate) add_host: Vec<String>,
    /// Such as NET_ADMIN, or ALL; repeatable
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    /// Such as NET_RAW, or ALL; repeatable
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// All that its host may do
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Nothing of its root file system can be written to
    #[arg(long)]
    pub(crate) read_only: bool,
    #[command(flatten)]
    pub(crate) health: Health,
    /// In place of the image's
    #[arg(long)]
    pub(crate) stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL
    #[arg(long, value_parser = seconds)]
    pub(crate) stop_timeout: Option<u64>,
    /// missing, always or never
    #[arg(long, default_value = "missing", value_parser = ["missing", "always", "never"])]
    pub(crate) pull: String,
    /// On this host instead of the one that is asked: name or id
    #[arg(long, default_value = "")]
    pub(crate) node: String,
    pub(crate) image: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Whose containers are called by name.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct On {
    /// Of this host instead of the one that is asked: name or id
    #[arg(long, default_value = "")]
    pub(crate) node: String,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    #[command(flatten)]
    pub(crate) on: On,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Show what it writes, and end as it ends
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Pass on what is typed
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// The keys that leave a terminal
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// Pass signals on to it; not where it has a terminal
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    #[command(flatten)]
    pub(crate) named: Named,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds between the stop signal and SIGKILL (default: the container's)
    #[arg(short = 't', long = "time", visible_alias = "timeout", value_parser = seconds)]
    pub(crate) time: Option<u64>,
    #[command(flatten)]
    pub(crate) named: Named,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// A number or a name
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: String,
    #[command(flatten)]
    pub(crate) named: Named,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Also if it runs
    #[arg(short, long)]
    pub(crate) force: bool,
    /// And its volumes that nobody named
    #[arg(short, long)]
    pub(crate) volumes: bool,
    #[command(flatten)]
    pub(crate) named: Named,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Of every host
    #[arg(long)]
    pub(crate) all_nodes: bool,
    /// The newest so many, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub(crate) last: Option<usize>,
    /// The newest, running or not
    #[arg(short, long)]
    pub(crate) latest: bool,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) rows: Rows,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) format: Format,
    /// container, network, service, node or task
    #[arg(long = "type", value_parser = ["container", "network", "service", "node", "task"])]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) on: On,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// In the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Pass on what is typed
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// NAME=VALUE, or NAME to take it from here; repeatable
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// A file of such lines; repeatable
    #[arg(long)]
    pub(crate) env_file: Vec<PathBuf>,
    /// UID, UID:GID, USER or USER:GROUP
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// All that the host may do
    #[arg(long)]
    pub(crate) privileged: bool,
    /// The keys that leave a terminal
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) container: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Do not pass on what is typed
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// The keys that leave a terminal
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// Pass signals on to it; not where it has a terminal
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on with what is written
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Lines from the end, or all
    #[arg(short = 'n', long, default_value = "all")]
    pub(crate) tail: Tail,
    /// A time, or how long ago
    #[arg(long, value_parser = since)]
    pub(crate) since: Option<Since>,
    /// When each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Port {
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) container: String,
    /// PORT[/tcp|udp|sctp]
    pub(crate) port: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Once, and not again and again
    #[arg(long)]
    pub(crate) no_stream: bool,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) on: On,
    /// Names or ids; none: all that run
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) container: String,
    pub(crate) name: Name,
}

/// `network connect`.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Its address there
    #[arg(long, value_parser = ip4)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Its IPv6 address there
    #[arg(long, value_parser = ip6)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Its MAC address there
    #[arg(long)]
    pub(crate) mac_address: Option<shoal_common::MacAddr>,
    /// A further name there; repeatable
    #[arg(long)]
    pub(crate) alias: Vec<Name>,
    /// The way out leads over the network with the highest
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) gw_priority: i32,
    /// CONTAINER[:ALIAS]: a name that CONTAINER has there for this container alone; it may come later; repeatable
    #[arg(long)]
    pub(crate) link: Vec<String>,
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) network: String,
    pub(crate) container: String,
}

/// `network disconnect`.
#[derive(Debug, Args)]
pub(crate) struct Disconnect {
    /// Accepted for Docker's sake
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) on: On,
    pub(crate) network: String,
    pub(crate) container: String,
}
