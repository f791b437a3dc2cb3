//! Images on this host.

use serde::Serialize;
use shoal_proto::pb;

use super::time;

#[derive(Debug, Serialize)]
pub(crate) struct Image {
    /// sha256:…
    pub(crate) id: String,
    pub(crate) references: Vec<String>,
    pub(crate) size_bytes: u64,
    pub(crate) created: String,
}

impl From<pb::Image> for Image {
    fn from(i: pb::Image) -> Self {
        Self { id: i.id, references: i.references, size_bytes: i.size_bytes, created: time(i.created_ms) }
    }
}
