//! Positions in the log, and what is derived from them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A position in the Raft log. The first entry is 1; 0 means "nothing yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

/// The [`LogIndex`] that an assignment was cut from. A host never acts on a lower one than it has acted on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

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
