//! `shoal lab`: several hosts on this machine, for trying Shoal out and for its own tests.
//!
//! Each host has namespaces of its own (network, mounts, processes, host name, IPC), held by a first process
//! ([`init`]); its eth0 is a cable to a switch, which is a bridge in one more network namespace ([`network`]). The
//! machine's own namespace sees no link of a lab, and labs do not see each other, so all have the same addresses.
//! A host's daemon is a process in it ([`enter`]); its data and its socket are ordinary files outside ([`layout`]).
//!
//! What was started is recorded before it does anything, and what is ended is what was recorded ([`process`]).
//!
//! Without root a lab is in a user namespace of its own, of which the user is root ([`privilege`]). Its hosts have no
//! cgroups.
//!
//! Limits: Hosts have no way out of the machine, so images come from files and not from registries.
//! All share the machine's kernel, disks and clock: power-off loses what a host had in memory, not what the kernel
//! had yet to write.

mod cgroup;
mod cluster;
mod down;
pub(crate) mod enter;
mod furnish;
mod host;
pub(crate) mod init;
mod layout;
mod ls;
mod name;
mod network;
mod privilege;
mod process;
mod state;
mod up;

pub(crate) use name::{LabName, MAX_MANAGERS, MAX_WORKERS};

use std::{process::ExitCode, thread};

use self::{
    host::{Condition, Host},
    layout::Layout,
    name::HostName,
    state::{Lock, State, no_lab},
};
use crate::{
    args::lab::{Lab, Verb},
    failure::{Exit, Failure},
    out,
};

/// Called without an async runtime: entering a host, and becoming root of a lab, needs a process with one thread.
pub(crate) fn run(lab: &Lab) -> Result<ExitCode, Failure> {
    let root = layout::root()?;
    let cgroups = cgroup::are_ours();
    let of = |name| Layout::new(root.clone(), name, cgroups);
    let layout = of(lab.name());
    // Looking needs neither root nor a namespace.
    if !matches!(lab.verb, Verb::Ls(_)) {
        privilege::check_owner(&layout)?;
        if !matches!(lab.verb, Verb::Up(_)) && !layout.dir().exists() {
            return Err(no_lab(&layout));
        }
        privilege::become_root(&layout)?;
    }
    match &lab.verb {
        Verb::Exec(exec) => return self::exec(&layout, exec),
        Verb::Ls(format) => {
            let labs = match lab.named() {
                Some(_) => vec![layout],
                None => layout::labs(&root)?.into_iter().map(of).collect(),
            };
            ls::ls(&labs, format)
        }
        Verb::Up(wanted) => up::up(&layout, wanted),
        Verb::Down => down::down(&layout),
        Verb::Kill(hosts) => on(&layout, &hosts.hosts, |host, _| host.kill_daemon()),
        Verb::Stop(hosts) => on(&layout, &hosts.hosts, |host, _| host.stop_daemon()),
        Verb::PowerOff(hosts) => on(&layout, &hosts.hosts, |host, _| host.power_off()),
        Verb::Start(hosts) => on(&layout, &hosts.hosts, start),
        Verb::Partition(hosts) => partition(&layout, &hosts.hosts),
        Verb::Heal => heal(&layout),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Not under the lock: a command may run for as long as it likes.
fn exec(layout: &Layout, exec: &crate::args::lab::Exec) -> Result<ExitCode, Failure> {
    let hosts = State::load(layout)?.find(std::slice::from_ref(&exec.host))?;
    let host = hosts.first().copied().expect("who is found is one of them");
    let off = || Failure::new(Exit::Conflict, format!("host {host} is off: 'shoal lab start {host}' switches it on"));
    let failed = |e| Failure::new(Exit::General, format!("cannot enter host {host}: {e}"));
    enter::run(&layout.host(host), &layout.socket(host), &exec.command).map_err(failed)?.ok_or_else(off)
}

/// Does the same to several hosts at once.
fn on(
    layout: &Layout,
    names: &[String],
    act: impl Fn(Host<'_>, &State) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let _lock = lock(layout)?;
    let state = State::load(layout)?;
    each(state.find(names)?, |name| act(Host { layout, name }, &state))
}

fn start(host: Host<'_>, state: &State) -> Result<(), Failure> {
    match host.condition()? {
        Condition::Off => {
            host.power_on(state)?;
            host.start_daemon(state)
        }
        Condition::DaemonDown => host.start_daemon(state),
        Condition::Up => Ok(()),
    }
}

fn partition(layout: &Layout, names: &[String]) -> Result<(), Failure> {
    let _lock = lock(layout)?;
    let mut state = State::load(layout)?;
    let hosts = state.find(names)?;
    let bridge = state.cut_off(&hosts);
    network::cut_off(&host::switch(layout)?, &plugged(layout, hosts)?, bridge)?;
    state.save(layout)
}

fn heal(layout: &Layout) -> Result<(), Failure> {
    let _lock = lock(layout)?;
    let mut state = State::load(layout)?;
    let apart = state.heal();
    let bridges: std::collections::BTreeSet<u32> = apart.values().copied().collect();
    let bridges: Vec<u32> = bridges.into_iter().collect();
    network::heal(&host::switch(layout)?, &plugged(layout, apart.into_keys())?, &bridges)?;
    state.save(layout)
}

/// Those of them that are on: the others have no cable, and get one when they are switched on.
fn plugged(layout: &Layout, hosts: impl IntoIterator<Item = HostName>) -> Result<Vec<HostName>, Failure> {
    let mut plugged = Vec::new();
    for name in hosts {
        if (Host { layout, name }).init()?.is_some() {
            plugged.push(name);
        }
    }
    Ok(plugged)
}

/// Of a lab that exists.
fn lock(layout: &Layout) -> Result<Lock, Failure> {
    // A lock file is made where there is none, and a lab that does not exist should leave nothing.
    if layout.dir().exists() { Lock::take(layout) } else { Err(no_lab(layout)) }
}

/// Does the same to each, all at once; all are tried.
fn each<T: Send>(
    things: impl IntoIterator<Item = T>,
    act: impl Fn(T) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let act = &act;
    let done: Vec<Result<(), Failure>> = thread::scope(|scope| {
        let started: Vec<_> = things.into_iter().map(|thing| scope.spawn(move || act(thing))).collect();
        let end = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        started.into_iter().map(end).collect()
    });
    told(done.into_iter().filter_map(Result::err))
}

/// The first failure is the command's, and the others are told before it.
fn told(failures: impl IntoIterator<Item = Failure>) -> Result<(), Failure> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    for other in failures {
        out::error(&other.message);
    }
    Err(first)
}
