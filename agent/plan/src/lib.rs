//! What to do to this host: [`desired()`] turns an assignment into a [`World`], [`plan()`] turns two worlds into
//! operations. Pure: no tokio, no I/O, no clock, no randomness.

pub mod desired;
mod impossible;
pub mod listen;
pub mod names;
pub mod nft;
pub mod ns;
pub mod op;
pub mod plan;
pub mod world;

pub use desired::{HostFacts, desired, link_of, listeners};
pub use impossible::Why;
pub use listen::{Behind, Holder, Listener, Listeners};
pub use ns::Ns;
pub use op::Op;
pub use plan::plan;
pub use world::{Backend, Fdb, Flow, Flows, Link, LinkKind, Namespace, Neighbour, PortFlags, Route, Table, World};
