//! Images: where they come from, and the store of those that are on this host.

mod archive;
mod bounds;
mod changes;
mod config;
mod layer;
mod platform;
mod registry;
mod store;
mod tags;

pub use config::{ImageConfig, RootFs, RunConfig};
pub use shoal_common::Reference;
pub(crate) use store::Place;
pub use store::{Image, ImageSummary, Images};
