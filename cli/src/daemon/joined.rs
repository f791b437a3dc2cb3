//! What a daemon must remember of its cluster beside its identity: where it is reached, and whom it knows.

use serde::{Deserialize, Serialize};
use shoal_common::NodeId;
use shoal_rt::durable;
use std::{collections::BTreeMap, io, net::SocketAddr, path::Path};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Where other hosts reach this one.
    pub(crate) control_addr: SocketAddr,
    /// Managers, as known at the time of joining. The agent knows better once it was told.
    pub(crate) managers: BTreeMap<NodeId, SocketAddr>,
    /// The store of the log that this host votes by, from before its first vote until it is no manager any more. If that
    /// store is gone, the host must not vote: it would do so as one that has promised nothing.
    #[serde(default)]
    pub(crate) seated: Option<String>,
    #[serde(default)]
    pub(crate) stage: Stage,
}

/// What a host without an identity tells apart: one that lost it, and one that has none yet or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Stage {
    #[default]
    Member,
    /// `init` or `join` has begun.
    Entering,
    /// `leave` has begun.
    Leaving,
}

impl Joined {
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Self::find(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    pub(crate) fn find(path: &Path) -> io::Result<Option<Self>> {
        match durable::read(path).map_err(durable::Error::into_io)? {
            Some(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            None => Ok(None),
        }
    }

    /// Whole and durable, or not at all.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        durable::replace(path, &serde_json::to_vec(self)?).map_err(durable::Error::into_io)
    }
}
