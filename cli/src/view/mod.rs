//! What `--format json` and `inspect` print: one struct a noun, the same for both. Their field names are stable:
//! fields are added, never renamed. Ids are text (`svc-12`), times RFC 3339 (empty: never), durations milliseconds,
//! states lower case.

mod cluster;
pub(crate) mod container;
mod image;
mod network;
mod node;
mod service;
mod task;
pub(crate) mod template;

pub(crate) use cluster::{Cluster, Host, Info};
pub(crate) use image::Image;
pub(crate) use network::Network;
pub(crate) use node::Node;
pub(crate) use service::Service;
pub(crate) use task::Task;

use shoal_proto::convert::enumerated;
use std::fmt::Display;

/// An enum as its own word in lower case; one that this version does not know, as such.
fn word<P, C>(n: i32) -> String
where
    P: TryFrom<i32>,
    C: TryFrom<P, Error = shoal_common::Invalid> + Display,
{
    enumerated::<P, C>("", n).map_or_else(|_| "unknown to this version".to_owned(), |v| v.to_string().to_lowercase())
}

fn time(epoch_ms: u64) -> String {
    if epoch_ms == 0 { String::new() } else { crate::units::rfc3339(epoch_ms) }
}

/// An id, unless there is none.
fn some_id(prefix: &str, n: u64) -> String {
    if n == 0 { String::new() } else { format!("{prefix}-{n}") }
}

/// Docker's tables begin words with a capital.
pub(crate) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
