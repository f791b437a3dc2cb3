//! What a daemon must remember of its cluster beside its identity: where it is reached, and whom it knows.

use serde::{Deserialize, Serialize};
use shoal_common::NodeId;
use shoal_rt::durable;
use std::{collections::BTreeMap, fs, io, net::SocketAddr, path::Path};

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
        durable::replace(path, &serde_json::to_vec(self)?).map_err(durable::Error::into_io)
    }
}
