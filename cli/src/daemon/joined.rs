//! What a daemon must remember of its cluster beside its identity: where it is reached, and whom it knows.

use serde::{Deserialize, Serialize};
use shoal_common::NodeId;
use std::{collections::BTreeMap, fs, io, io::Write, net::SocketAddr, path::Path};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Where other hosts reach this one.
    pub(crate) control_addr: SocketAddr,
    /// Managers, as known at the time of joining. The agent knows better once it was told.
    pub(crate) managers: BTreeMap<NodeId, SocketAddr>,
}

impl Joined {
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
    }

    /// Whole and durable, or not at all.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) => fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}
