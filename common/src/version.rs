//! Positions in the log, and what is derived from them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A position in the Raft log. The first entry is 1; 0 means "nothing yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

/// The [`LogIndex`] that an assignment was cut from. A host never acts on a lower one than it has acted on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// A feature level of the replicated log: which commands, and which meanings of them, a manager knows.
///
/// It is raised by an entry of the log once all managers know it; see `manager/state/src/level.rs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Level(pub u32);

impl Level {
    /// What this version of Shoal knows. 0: the log as it was before there were levels. 1: checkpoints.
    pub const KNOWN: Self = Self(1);
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<LogIndex> for Generation {
    fn from(i: LogIndex) -> Self {
        Self(i.0)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
