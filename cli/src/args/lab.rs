//! `lab …`: several hosts on this machine, with or without root.

use clap::{Args, Subcommand};
use std::{ffi::OsString, path::PathBuf};

use super::Format;
use crate::lab::LabName;

/// The lab that is meant when none is named.
const DEFAULT_NAME: &str = "lab";

#[derive(Debug, Args)]
pub(crate) struct Lab {
    /// Which lab, where there are several (default: lab; for ls: all)
    #[arg(long, global = true, value_name = "NAME")]
    name: Option<LabName>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Lab {
    pub(crate) fn name(&self) -> LabName {
        self.name.clone().unwrap_or_else(|| DEFAULT_NAME.parse().expect("the default name is a name"))
    }

    /// Nothing: all of them.
    pub(crate) fn named(&self) -> Option<LabName> {
        self.name.clone()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start hosts, m1… and w1…, and make them one cluster
    Up(Up),
    /// List hosts
    Ls(Format),
    /// Run a command inside a host
    Exec(Exec),
    /// kill -9 of a host's daemon alone
    Kill(Hosts),
    /// End a host's daemon with SIGTERM
    Stop(Hosts),
    /// Cut the power: everything on the host dies at once
    PowerOff(Hosts),
    /// Switch a host on again, or start its daemon again
    Start(Hosts),
    /// Cut hosts off from the rest; they still reach each other
    Partition(Hosts),
    /// Undo every partition
    Heal,
    /// Remove the lab and every trace of it
    Down,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Hosts that are managers: m1, m2, …
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=crate::lab::MAX_MANAGERS))]
    pub(crate) managers: u8,
    /// Hosts that are workers: w1, w2, …
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=crate::lab::MAX_WORKERS))]
    pub(crate) workers: u8,
    /// Start hosts and daemons, and leave init and join to you
    #[arg(long)]
    pub(crate) no_cluster: bool,
    /// Leave a lab that did not come up as it is, to be looked at
    #[arg(long)]
    pub(crate) keep: bool,
    /// The shoal program whose daemon the hosts run (default: this one)
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) daemon: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[arg(id = "lab_host", value_name = "HOST")]
    pub(crate) host: String,
    /// What to run there; SHOAL_HOST names that host's daemon
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Hosts {
    #[arg(required = true, value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    use super::*;

    fn parse(line: &str) -> Lab {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Lab(lab) => lab,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hosts_command_keeps_its_own_flags() {
        for line in ["shoal lab --name t exec m1 -- ls -l --name x", "shoal lab exec --name t m1 ls -l --name x"] {
            let lab = parse(line);
            assert_eq!(lab.name().to_string(), "t");
            let Verb::Exec(exec) = lab.verb else { panic!("{line}") };
            assert_eq!(
                (exec.host.as_str(), exec.command),
                ("m1", ["ls", "-l", "--name", "x"].map(OsString::from).to_vec())
            );
        }
    }

    #[test]
    fn a_lab_has_three_managers_and_two_workers_unless_told() {
        let Verb::Up(up) = parse("shoal lab up").verb else { panic!() };
        assert_eq!((up.managers, up.workers, up.no_cluster), (3, 2, false));
        assert_eq!(parse("shoal lab ls").named(), None);
        assert!(Cli::try_parse_from(["shoal", "lab", "up", "--managers", "51"]).is_err());
    }
}
