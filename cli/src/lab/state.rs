//! What is known of a lab between commands: its hosts, and which of the switch's bridges each is plugged into.

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use super::{
    layout::{Layout, cannot},
    name::HostName,
};
use crate::failure::{Exit, Failure};

/// Bridge 0 joins all that are not partitioned off, and is the only one with addresses of its own.
pub(super) const MAIN_BRIDGE: u32 = 0;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) hosts: BTreeMap<HostName, Port>,
    /// The program whose `daemon` the hosts run.
    pub(super) daemon: PathBuf,
}

/// Where a host's cable ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Port {
    pub(super) bridge: u32,
}

impl State {
    pub(super) fn new(hosts: impl Iterator<Item = HostName>, daemon: PathBuf) -> Self {
        Self { hosts: hosts.map(|h| (h, Port { bridge: MAIN_BRIDGE })).collect(), daemon }
    }

    pub(super) fn bridge(&self, host: HostName) -> u32 {
        self.hosts.get(&host).map_or(MAIN_BRIDGE, |port| port.bridge)
    }

    /// Plugs these into a bridge that nobody else is on, and tells which.
    pub(super) fn cut_off(&mut self, hosts: &BTreeSet<HostName>) -> u32 {
        let taken: BTreeSet<u32> = self.hosts.values().map(|port| port.bridge).collect();
        let bridge = (MAIN_BRIDGE + 1..).find(|b| !taken.contains(b)).expect("fewer bridges than numbers");
        for (host, port) in &mut self.hosts {
            if hosts.contains(host) {
                port.bridge = bridge;
            }
        }
        bridge
    }

    /// Plugs all into the main bridge, and tells who was not.
    pub(super) fn heal(&mut self) -> BTreeMap<HostName, u32> {
        let apart = self.hosts.iter().filter(|(_, port)| port.bridge != MAIN_BRIDGE);
        let apart = apart.map(|(host, port)| (*host, port.bridge)).collect();
        for port in self.hosts.values_mut() {
            port.bridge = MAIN_BRIDGE;
        }
        apart
    }

    /// The hosts of these names, each once, in order.
    pub(super) fn find(&self, names: &[String]) -> Result<BTreeSet<HostName>, Failure> {
        let known = || self.hosts.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let find = |name: &String| {
            let host = name.parse().ok().filter(|h| self.hosts.contains_key(h));
            host.ok_or_else(|| Failure::new(Exit::NotFound, format!("there is no host {name}: there are {}", known())))
        };
        names.iter().map(find).collect()
    }

    pub(super) fn load(layout: &Layout) -> Result<Self, Failure> {
        let path = layout.state();
        let text = fs::read_to_string(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if !layout.dir().exists() => no_lab(layout),
            _ => cannot("read", &path, &e),
        })?;
        let bad =
            |e| Failure::new(Exit::General, format!("{} is damaged ({e}): 'lab down' removes the lab", path.display()));
        serde_json::from_str(&text).map_err(bad)
    }

    pub(super) fn save(&self, layout: &Layout) -> Result<(), Failure> {
        let (path, draft) = (layout.state(), layout.state().with_extension("new"));
        let text = serde_json::to_string_pretty(self).map_err(io::Error::from)?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(|e| cannot("write", &path, &e))
    }
}

pub(super) fn no_lab(layout: &Layout) -> Failure {
    let message = format!("there is no lab {}: 'shoal lab up --name {}' starts one", layout.lab(), layout.lab());
    Failure::new(Exit::NotFound, message)
}

/// Held by a command that changes a lab: two of them must not interleave.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _held: Flock<fs::File>,
}

impl Lock {
    /// Waits until no other command holds it.
    pub(super) fn take(layout: &Layout) -> Result<Self, Failure> {
        let path = layout.lock();
        loop {
            let file = fs::OpenOptions::new().create(true).append(true).open(&path);
            let file = file.map_err(|e| cannot("open", &path, &e))?;
            let held = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| cannot("lock", &path, &e.into()))?;
            // The one that was waited for may have removed the file with the lab.
            let same = |there: fs::Metadata, ours: fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
            if let (Ok(there), Ok(ours)) = (fs::metadata(&path), held.metadata())
                && same(there, ours)
            {
                return Ok(Self { path, _held: held });
            }
        }
    }

    /// The lab is gone, and so is what guarded it.
    pub(super) fn remove(self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(cannot("remove", &self.path, &e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridges(state: &State) -> Vec<u32> {
        state.hosts.values().map(|port| port.bridge).collect()
    }

    #[test]
    fn partitions_nest_and_heal_at_once() {
        let mut state = State::new(HostName::all(3, 2), "/bin/shoal".into());
        let hosts = |names: &[&str]| names.iter().map(|n| n.parse().unwrap()).collect::<BTreeSet<HostName>>();
        assert_eq!(state.cut_off(&hosts(&["m1", "w1"])), 1);
        assert_eq!(bridges(&state), [1, 0, 0, 1, 0]);
        assert_eq!(state.cut_off(&hosts(&["w1"])), 2);
        assert_eq!(bridges(&state), [1, 0, 0, 2, 0]);
        let read: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        assert_eq!(read, state);
        assert_eq!(state.heal().into_values().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(bridges(&state), [0; 5]);
    }

    #[test]
    fn a_host_that_is_not_there_is_named_with_those_that_are() {
        let state = State::new(HostName::all(1, 1), "/bin/shoal".into());
        let f = state.find(&["m1".into(), "w7".into()]).unwrap_err();
        assert_eq!((f.exit, f.message.as_str()), (Exit::NotFound, "there is no host w7: there are m1, w1"));
    }
}
