//! What is printed of each noun. A listing's rows have the names of Docker's columns, and what `inspect` shows has the
//! shape of Docker's API, so that scripts and templates written for Docker find what they look for. Docker's values are
//! text in rows, lower case in `inspect`, nanoseconds where they are durations. What Docker does not have stands beside
//! it, also in PascalCase. Ids are text (`svc-12`), times RFC 3339 (empty: never). Names are added, never changed.
//!
//! `lab ls` has no counterpart in Docker's: its names are in snake_case.

mod cluster;
pub(crate) mod container;
mod form;
pub(crate) mod image;
mod made;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod task;
pub(crate) mod template;

pub(crate) use cluster::{Cluster, Host, Info};
pub(crate) use form::Form;

use serde::Serialize;
use serde_json::Value;
use shoal_proto::convert::enumerated;
use std::{collections::BTreeMap, fmt::Display};

/// What templates are filled in from, and JSON is written from.
pub(crate) fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).expect("rows are structs of text and numbers")
}

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

/// Of HOST:PORT its host, without brackets.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']))
}

/// Docker counts durations in these.
fn nanos(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

/// Labels of a row: `a=1,b=2`.
fn listed(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Docker's tables begin words with a capital.
fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `5 minutes ago`.
pub(crate) fn ago(epoch_ms: u64, now_ms: u64) -> String {
    let passed = std::time::Duration::from_millis(now_ms.saturating_sub(epoch_ms));
    format!("{} ago", crate::units::approximately(passed))
}
