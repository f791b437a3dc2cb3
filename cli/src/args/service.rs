//! `service …`.

use clap::{Args, Subcommand};
use shoal_common::{
    Name,
    service::{Constraint, EndpointMode, RestartCondition},
};
use std::{path::PathBuf, time::Duration};

use super::{Format, Listing, health::Health};
use crate::units::{
    Attachment, KeyValue, Port, Words, attachment, bytes, cpus, duration, key_value, pids, port, words,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Create a service
    Create(Box<Create>),
    /// List services
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// List the tasks of services
    Ps(Ps),
    /// Show all there is to know of services
    Inspect(Inspect),
    /// Set the number of replicas
    Scale(Scale),
    /// Change a service
    Update(Box<Update>),
    /// Show what containers wrote
    Logs(Logs),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// What both `create` and `update` set.
#[derive(Debug, Default, Args)]
pub(crate) struct Settings {
    /// Number of tasks
    #[arg(long)]
    pub(crate) replicas: Option<u32>,
    /// What the service's name resolves to: vip or dnsrr
    #[arg(long)]
    pub(crate) endpoint_mode: Option<EndpointMode>,
    /// none, on-failure or any
    #[arg(long)]
    pub(crate) restart_condition: Option<RestartCondition>,
    /// Between a task's end and its replacement
    #[arg(long, value_parser = duration)]
    pub(crate) restart_delay: Option<Duration>,
    /// Before giving up; 0: never
    #[arg(long)]
    pub(crate) restart_max_attempts: Option<u32>,
    /// The time over which attempts are counted; 0: ever
    #[arg(long, value_parser = duration)]
    pub(crate) restart_window: Option<Duration>,
    /// Such as 0.5
    #[arg(long, value_parser = cpus)]
    pub(crate) limit_cpu: Option<u64>,
    /// Such as 512m
    #[arg(long, value_parser = bytes)]
    pub(crate) limit_memory: Option<u64>,
    /// Processes and threads; -1 or 0: no limit [default: 4096]
    #[arg(long, value_parser = pids)]
    pub(crate) limit_pids: Option<u64>,
    /// Such as 0.5
    #[arg(long, value_parser = cpus)]
    pub(crate) reserve_cpu: Option<u64>,
    /// Such as 512m
    #[arg(long, value_parser = bytes)]
    pub(crate) reserve_memory: Option<u64>,
    /// Host name of the containers (default: the task's name)
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Working directory
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// UID, UID:GID, USER or USER:GROUP
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// In place of the image's entrypoint
    #[arg(long, value_parser = words)]
    pub(crate) entrypoint: Option<Words>,
    /// Between SIGTERM and SIGKILL (default: 10s)
    #[arg(long, value_parser = duration)]
    pub(crate) stop_grace_period: Option<Duration>,
    #[command(flatten)]
    pub(crate) health: Health,
    /// 0: no limit
    #[arg(long)]
    pub(crate) replicas_max_per_node: Option<u32>,
    /// Slots updated at a time; 0: all at once (default: 1)
    #[arg(long)]
    pub(crate) update_parallelism: Option<u32>,
    /// Between one batch and the next
    #[arg(long, value_parser = duration)]
    pub(crate) update_delay: Option<Duration>,
}

/// Whether, and how, to stay until it is done.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Wait {
    /// Do not wait until the service has converged
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
          action = clap::ArgAction::Set)]
    pub(crate) detach: bool,
    /// Wait, and show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Wait no longer than this; the work goes on
    #[arg(long, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Default: one is made up
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// replicated, or global: one task on every host
    #[arg(long, default_value = "replicated", value_parser = ["replicated", "global"])]
    pub(crate) mode: String,
    /// NAME, or name=NAME,alias=ALIAS; repeatable
    #[arg(long, value_parser = attachment)]
    pub(crate) network: Vec<Attachment>,
    /// NAME=VALUE, or NAME to take it from here; repeatable
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// A file of such lines; repeatable
    #[arg(long)]
    pub(crate) env_file: Vec<PathBuf>,
    /// Such as node.labels.disk==ssd; repeatable
    #[arg(long)]
    pub(crate) constraint: Vec<Constraint>,
    /// KEY or KEY=VALUE; repeatable
    #[arg(short, long, value_parser = key_value)]
    pub(crate) label: Vec<KeyValue>,
    /// KEY or KEY=VALUE; repeatable
    #[arg(long, value_parser = key_value)]
    pub(crate) container_label: Vec<KeyValue>,
    /// NAME=PORT[/tcp|udp]: an SRV record _NAME._PROTOCOL.SERVICE inside the networks; repeatable
    #[arg(long, value_name = "NAME=PORT[/PROTO]", value_parser = port)]
    pub(crate) service_port: Vec<Port>,
    /// PUBLISHED:TARGET or TARGET, with /udp or /sctp if it is not TCP, or published=8080,target=80,protocol=tcp,mode=host
    /// (or mode=ingress, the default: on every host); repeatable
    #[arg(short, long, value_name = "PORT")]
    pub(crate) publish: Vec<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) wait: Wait,
    /// Such as nginx:1.27 or registry:5000/team/app
    pub(crate) image: String,
    /// In place of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Such as nginx:1.27 or registry:5000/team/app
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// The command, in one word
    #[arg(long, value_parser = words, allow_hyphen_values = true)]
    pub(crate) args: Option<Words>,
    /// NAME=VALUE, or NAME to take it from here; repeatable
    #[arg(long)]
    pub(crate) env_add: Vec<String>,
    /// NAME; repeatable
    #[arg(long)]
    pub(crate) env_rm: Vec<String>,
    /// NAME, or name=NAME,alias=ALIAS; repeatable
    #[arg(long, value_parser = attachment)]
    pub(crate) network_add: Vec<Attachment>,
    /// Name or id; repeatable
    #[arg(long)]
    pub(crate) network_rm: Vec<String>,
    /// Such as node.labels.disk==ssd; repeatable
    #[arg(long)]
    pub(crate) constraint_add: Vec<Constraint>,
    /// As it was added; repeatable
    #[arg(long)]
    pub(crate) constraint_rm: Vec<Constraint>,
    /// KEY or KEY=VALUE; repeatable
    #[arg(long, value_parser = key_value)]
    pub(crate) label_add: Vec<KeyValue>,
    /// KEY; repeatable
    #[arg(long)]
    pub(crate) label_rm: Vec<String>,
    /// KEY or KEY=VALUE; repeatable
    #[arg(long, value_parser = key_value)]
    pub(crate) container_label_add: Vec<KeyValue>,
    /// KEY; repeatable
    #[arg(long)]
    pub(crate) container_label_rm: Vec<String>,
    /// NAME=PORT[/tcp|udp]; repeatable
    #[arg(long, value_name = "NAME=PORT[/PROTO]", value_parser = port)]
    pub(crate) service_port_add: Vec<Port>,
    /// NAME; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) service_port_rm: Vec<String>,
    /// As --publish of create; repeatable
    #[arg(long, value_name = "PORT")]
    pub(crate) publish_add: Vec<String>,
    /// TARGET, with /udp or /sctp if it is not TCP; repeatable
    #[arg(long, value_name = "PORT")]
    pub(crate) publish_rm: Vec<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) wait: Wait,
    /// Name or id
    pub(crate) service: String,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = scale)]
    pub(crate) services: Vec<(String, u32)>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The newest so many lines, or all
    #[arg(short = 'n', long, default_value = "all", value_parser = tail)]
    pub(crate) tail: Tail,
    /// What is younger: a duration such as 10m, or a time such as 2026-01-31T13:00:00Z
    #[arg(long, value_parser = crate::units::since)]
    pub(crate) since: Option<crate::units::Since>,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Only what was written, without the task's name before it
    #[arg(long)]
    pub(crate) raw: bool,
    /// A service, or a task by id or name
    #[arg(value_name = "SERVICE|TASK")]
    pub(crate) service: String,
}

/// `None`: all lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(pub(crate) Option<u32>);

impl std::str::FromStr for Tail {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        tail(s)
    }
}

fn tail(s: &str) -> Result<Tail, String> {
    match s {
        "all" => Ok(Tail(None)),
        n => n.parse().map(|n| Tail(Some(n))).map_err(|_| "a number of lines, or all".to_owned()),
    }
}

fn scale(s: &str) -> Result<(String, u32), String> {
    s.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)))
        .ok_or_else(|| "SERVICE=REPLICAS, such as web=3".to_owned())
}
