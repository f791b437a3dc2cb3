//! The vocabulary of Shoal: every value that crosses a boundary, valid by construction.
//!
//! This crate is pure: no tokio, no I/O, no clock, no randomness. A value of one of these types was parsed
//! once, at the edge, and needs no second look. Start reading at [`assignment`]: it is what the control plane
//! and the data plane share.

pub mod assignment;
pub mod container;
pub mod health;
pub mod id;
pub mod name;
pub mod net;
pub mod network;
pub mod node;
pub mod reference;
pub mod service;
pub mod subnet;
pub mod task;
pub mod text;
pub mod time;
pub mod version;

pub use id::{NetworkId, NodeId, ServiceId, TaskId};
pub use name::{Label, Name};
pub use net::{LinkName, MacAddr, Mtu, Vni, Vtep};
pub use reference::Reference;
pub use subnet::Subnet;
pub use time::Timestamp;
pub use version::{Generation, Level, LogIndex};

/// A value from outside that does not fit: which field, what was given, what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[error("{field}: {value:?} is not accepted: {expected}")]
pub struct Invalid {
    pub field: String,
    pub value: String,
    /// What would be right, as a phrase: `a number from 1 to 65535`.
    pub expected: String,
}

impl Invalid {
    pub fn new(field: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), expected: expected.into() }
    }

    /// The same complaint under the name by which the caller knows the field.
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }
}
