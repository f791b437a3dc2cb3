//! Messages become values here, and nowhere else: `TryFrom<pb::X>` validates, and names the field by its path
//! (`container.ports[0].port`); `From` goes back. What came through needs no second look.
//!
//! Absent or empty on the wire: the default where the message's comment names one; otherwise it is refused.
//! Some nouns need more than `TryFrom`: the networks of a service or container and the nodes of a network are names
//! until somebody resolves them ([`service_spec`], [`run_spec`], [`network_spec`]), and a keyed entry of an assignment travels as one message with its key inside.

mod assignment;
mod container;
mod field;
mod network;
mod node;
mod policy;
mod resources;
mod run;
mod service;
mod task;

pub use assignment::managers;
pub use field::{enumerated, enumerated_unless_unspecified};
pub use network::network_spec;
pub use run::{RunReport, attachment, run_spec};
pub use service::service_spec;
pub use task::Report;
