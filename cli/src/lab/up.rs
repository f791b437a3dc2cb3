//! `lab up`.

use std::{env, fs, path::PathBuf};

use super::{
    cluster, down,
    host::{self, Host},
    layout::{Layout, cannot},
    name::HostName,
    network,
    state::{Lock, State},
};
use crate::{
    args::lab::Up,
    failure::{Exit, Failure},
    out,
};

pub(super) fn up(layout: &Layout, wanted: &Up) -> Result<(), Failure> {
    if wanted.managers == 0 && !wanted.no_cluster {
        return Err(Failure::usage("a cluster has a manager: give --managers 1 or more, or --no-cluster"));
    }
    if wanted.managers == 0 && wanted.workers == 0 {
        return Err(Failure::usage("a lab has a host: give --managers or --workers"));
    }
    network::check_programs()?;
    let state = State::new(HostName::all(wanted.managers, wanted.workers), daemon(wanted)?);
    for host in state.hosts.keys() {
        layout.check_socket(*host)?;
    }
    layout.make_root()?;
    let lock = Lock::take(layout)?;
    let (dir, lab) = (layout.dir(), layout.lab());
    if dir.exists() {
        let message = format!("lab {lab} exists: 'shoal lab ls' shows it, 'shoal lab down --name {lab}' removes it");
        return Err(Failure::new(Exit::Conflict, message));
    }
    if let Err(mut failure) = build(layout, &state, wanted.no_cluster) {
        if wanted.keep {
            failure.message += &format!("\nthe lab stays as it is: 'shoal lab down --name {lab}' removes it");
        } else if let Err(also) = down::remove(layout, lock) {
            failure.message += &format!("\nand the lab could not be removed: {also}");
        }
        return Err(failure);
    }
    let hosts: Vec<String> = state.hosts.keys().map(ToString::to_string).collect();
    let of_name = if lab.to_string() == "lab" { String::new() } else { format!(" --name {lab}") };
    out::line(format!("Lab {lab} is up: {}.", hosts.join(" ")))?;
    out::line(format!("Try: shoal lab{of_name} exec {} -- shoal node ls", hosts[0]))
}

fn build(layout: &Layout, state: &State, no_cluster: bool) -> Result<(), Failure> {
    let dir = layout.hosts();
    fs::create_dir_all(&dir).map_err(|e| cannot("make", &dir, &e))?;
    state.save(layout)?;
    host::power_on_switch(layout)?;
    super::each(state.hosts.keys().copied(), |name| {
        let host = Host { layout, name };
        host.power_on(state)?;
        host.start_daemon(state)
    })?;
    if no_cluster { Ok(()) } else { cluster::form(layout, state) }
}

/// The program whose daemon the hosts run, by a path that holds inside them too.
fn daemon(wanted: &Up) -> Result<PathBuf, Failure> {
    match &wanted.daemon {
        None => Ok(env::current_exe()?),
        Some(program) => fs::canonicalize(program).map_err(|e| cannot("find", program, &e)),
    }
}
