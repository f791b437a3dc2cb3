//! What to do to this host: `plan(&desired, &actual) -> Vec<Op>`, pure.

pub mod names;
pub mod ns;
pub mod op;
pub mod world;

pub use ns::Ns;
pub use op::Op;
pub use world::{Fdb, Link, LinkKind, Namespace, Neighbour, PortFlags, Route, Table, World};
