//! What a member keeps: the log, its vote, and snapshots, in the files of one directory.
//!
//! | File | |
//! |---|---|
//! | `mark` | whose store it is, the vote, and how far the log was acknowledged (`mark.rs`) |
//! | `log-N` | the records of the log from number N on (`segments.rs`, `record.rs`) |
//! | `snapshot-N` | the state up to entry N (`snapshot.rs`) |
//! | `*.new` | what is not finished; it is removed when the store is opened |
//!
//! A store is created once for each time that a host becomes a manager (`create`), and opened many times (`open`).
//! Opening never creates: a member that has voted and finds nothing must not vote with an empty log. What cannot be read
//! is left as it is, and the member does not start ([`Refusal`]).

use serde::{Deserialize, Serialize};
use std::{fmt, io, sync::Arc};

pub(crate) mod disk;
mod mark;
mod record;
pub(crate) mod segments;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use crate::{
    files::Files,
    snapshot::{self, Snapshots},
};
use disk::Disk;
use mark::MarkFile;
use segments::{Known, Segments};
use writer::Writer;

/// Files of the stores of earlier releases (sled 0.34).
const OLDER_FORMAT: [&str; 3] = ["blobs", "conf", "db"];

/// Whose a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The digest of the cluster's CA.
    pub cluster: String,
    pub node: u64,
    /// Drawn anew each time the host becomes a manager: one that was demoted and promoted has another.
    pub incarnation: String,
}

/// Why a member does not start with what it finds. To start nevertheless could lose what it has acknowledged, or have
/// it vote twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {why}", code = .code.as_str())]
pub struct Refusal {
    pub code: Code,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The log holds less than this member has acknowledged.
    Behind,
    /// There is no log, but this member had one.
    Missing,
    /// Something that was acknowledged cannot be read.
    Damaged,
    /// It is the log of another cluster, of another node, or of an earlier time of this one.
    Foreign,
    /// An earlier release has written it.
    OlderFormat,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "E-LOG-BEHIND",
            Self::Missing => "E-LOG-MISSING",
            Self::Damaged => "E-LOG-DAMAGED",
            Self::Foreign => "E-LOG-FOREIGN",
            Self::OlderFormat => "E-LOG-OLDER-FORMAT",
        }
    }
}

/// Inside of an [`io::Error`]: acknowledged data that is unreadable.
#[derive(Debug)]
pub(crate) struct Damage(String);

impl Damage {
    pub(crate) fn new(why: String) -> Self {
        Self(why)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Damage {}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        refuse(Code::Damaged, damage.0)
    }
}

fn refuse(code: Code, why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Refusal { code, why })
}

fn behind(why: String) -> io::Error {
    refuse(Code::Behind, why)
}

/// The refusal in an error, if it is one.
pub(crate) fn refusal(error: &io::Error) -> Option<&Refusal> {
    error.get_ref()?.downcast_ref()
}

/// A store that was read and checked.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) disk: Disk,
    pub(crate) writer: Writer,
    pub(crate) snapshots: Snapshots,
}

/// An empty store. One of this owner that is there is kept if nothing was ever voted or logged in it: whoever created
/// it was cut short. The owner of the store that is there is returned. Blocks.
pub(crate) fn create(files: &Arc<dyn Files>, owner: Owner) -> io::Result<Owner> {
    let disk = Disk::new(Arc::clone(files));
    let names = disk.list()?;
    of_this_format(&names)?;
    if names.iter().any(|name| name == mark::NAME) {
        let found = MarkFile::open(&disk)?.mark;
        let ours = found.owner.cluster == owner.cluster && found.owner.node == owner.node;
        if ours && found.vote.is_none() && found.acked_seq == 0 && found.purged.is_none() {
            return Ok(found.owner);
        }
        let whose = if ours { "an earlier time of this manager" } else { "another cluster or node" };
        return Err(refuse(Code::Foreign, format!("where a new log is to be there is one of {whose}")));
    }
    if let Some(name) = names.iter().find(|name| snapshot::is_snapshot(name)) {
        return Err(refuse(Code::Damaged, format!("there is {name}, but no mark of what was acknowledged")));
    }
    Segments::create(&disk, &owner.incarnation)?;
    MarkFile::create(&disk, owner.clone())?;
    Ok(owner)
}

/// Reads and checks everything. Blocks.
pub(crate) fn open(files: &Arc<dyn Files>, owner: &Owner) -> io::Result<Opened> {
    let disk = Disk::new(Arc::clone(files));
    let names = disk.list()?;
    of_this_format(&names)?;
    if !names.iter().any(|name| name == mark::NAME) {
        let left: Vec<&String> =
            names.iter().filter(|name| segments::is_segment(name) || snapshot::is_snapshot(name)).collect();
        return Err(if left.is_empty() {
            refuse(Code::Missing, "this manager had a log, and it is gone".to_owned())
        } else {
            refuse(Code::Damaged, format!("there is {}, but no mark of what was acknowledged", left[0]))
        });
    }
    let mut mark = MarkFile::open(&disk)?;
    if mark.mark.owner != *owner {
        let Owner { cluster, node, incarnation } = &mark.mark.owner;
        return Err(refuse(
            Code::Foreign,
            format!(
                "the log is that of node-{node} of cluster {cluster} (incarnation {incarnation}), and not that of \
                 node-{} of cluster {} (incarnation {})",
                owner.node, owner.cluster, owner.incarnation
            ),
        ));
    }
    for name in names.iter().filter(|name| name.ends_with(".new")) {
        disk.remove(name)?;
    }
    let snapshots = Snapshots::open(&disk)?;
    let purged = mark.mark.purged;
    if purged > snapshots.last_log_id() {
        return Err(refuse(
            Code::Damaged,
            format!(
                "the log begins after entry {}, but there is no snapshot up to there",
                purged.map_or(0, |p| p.index)
            ),
        ));
    }
    let known =
        Known { acked: mark.mark.acked_seq, kept_from: mark.mark.kept_from, first: purged.map(|p| p.index + 1) };
    let mut log = Segments::open(&disk, &owner.incarnation, known)?;
    // As in `Segments::open`: what was read must be on the disk before anybody is told of it. From here on all of the
    // log counts as acknowledged: the mark lagged, and a member that is idle writes no other.
    mark.mark.acked_seq = log.synced();
    mark.keep()?;
    disk.sync_names()?;
    // On a full disk it would soon have to end again.
    log.prepare()?;
    Ok(Opened { disk, writer: Writer::new(mark, log), snapshots })
}

fn of_this_format(names: &[String]) -> io::Result<()> {
    match names.iter().find(|name| OLDER_FORMAT.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(refuse(
            Code::OlderFormat,
            format!("the log was written by an earlier release of shoal (it has a file {name}), which kept it in sled"),
        )),
    }
}
