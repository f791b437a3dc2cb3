//! Who holds which address, VNI and subnet. All of it is part of the state, so none is ever handed out twice.

mod links;
pub(crate) mod places;
pub mod pool;
pub(crate) mod subnets;
pub(crate) mod vni;

pub use pool::Pool;
