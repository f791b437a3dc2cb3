//! Following a service until it has converged, or cannot.
//!
//! [`Watch`] decides, purely, from what the managers say and what time it is; [`show`] draws; [`follow`] joins them.

pub(crate) mod follow;
mod show;
mod watch;

pub(crate) use watch::{Verdict, Watch};
