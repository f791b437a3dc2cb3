//! The assignment as rows of a sled database: what a change costs follows the change, not the assignment.
//!
//! A host may lose the last moment of it: the managers send it again. So this may be sled, whose weak sides are kept
//! in check here: `flush` does not fsync on Linux (0.34), so it is followed by a sync of sled's file through a handle
//! of our own; it panics on some damaged files, and silently leaves out others' rows, so panics are caught and rows are
//! counted.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shoal_common::{
    Generation, NetworkId, ServiceId, TaskId,
    assignment::{Assignment, AssignmentDelta, MapDelta, NodeAssignment},
};
use shoal_rt::durable;
use std::{
    collections::BTreeMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::Error;

/// Of sled's page cache; the rows are read once, at the start.
const CACHE_BYTES: u64 = 4 << 20;
/// A daemon before this one lets go of sled's lock when its last thread has ended.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What a row is, which is the first byte of its key. The ids of what it is about follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Network,
    Endpoint,
    Service,
    Task,
    Container,
    Ingress,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Head, Self::Network, Self::Endpoint, Self::Service, Self::Task, Self::Container, Self::Ingress];

    fn byte(self) -> u8 {
        match self {
            Self::Head => b'h',
            Self::Network => b'n',
            Self::Endpoint => b'e',
            Self::Service => b's',
            Self::Task => b't',
            Self::Container => b'c',
            Self::Ingress => b'i',
        }
    }

    /// Leads each value. To be raised when a row of this kind changes its meaning, or gets a field that an older
    /// row of it lacks and must not be without. `agent/testdata` holds the bytes of each.
    fn format(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Network | Self::Endpoint | Self::Service | Self::Task | Self::Container | Self::Ingress => 1,
        }
    }
}

/// Written with each change, in the same atomic batch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    generation: Generation,
    node: Option<NodeAssignment>,
    /// How many other rows there are.
    rows: u64,
}

#[derive(Debug)]
pub(super) struct Rows {
    db: sled::Db,
    file: File,
    path: PathBuf,
}

impl Rows {
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        durable::create_dir(dir).map_err(Error::File)?;
        let begin = Instant::now();
        let db = loop {
            let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            match guarded(dir, || config.open()) {
                Err(error) if is_locked(&error) && begin.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_PAUSE),
                opened => break opened?,
            }
        };
        let path = dir.join("db");
        let file = File::open(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Self { db, file, path })
    }

    /// What was written last; `None` if nothing was.
    pub(super) fn read(&self) -> Result<Option<Assignment>, Error> {
        guarded(&self.path, || self.db.iter().collect::<sled::Result<Vec<_>>>()).and_then(|rows| {
            let rows = rows.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
            assignment(rows).map_err(|why| Error::Damaged { path: self.path.clone(), why })
        })
    }

    /// Only what changed. What is held must be the assignment that the change begins from.
    pub(super) fn change(&self, delta: &AssignmentDelta, now: &Assignment) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        let mut put = |key: Vec<u8>, value: Option<Vec<u8>>| match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        };
        rows_of(delta, now, &mut put).map_err(|e| Error::Encode(e.to_string()))?;
        self.commit(batch)
    }

    /// In place of whatever is there.
    pub(super) fn replace(&self, whole: &Assignment) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for key in guarded(&self.path, || self.db.iter().keys().collect::<sled::Result<Vec<_>>>())? {
            batch.remove(key);
        }
        let mut put = |key: Vec<u8>, value: Option<Vec<u8>>| match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        };
        let everything = AssignmentDelta::between(&Assignment::default(), whole);
        rows_of(&everything, whole, &mut put).map_err(|e| Error::Encode(e.to_string()))?;
        self.commit(batch)
    }

    fn commit(&self, batch: sled::Batch) -> Result<(), Error> {
        guarded(&self.path, || self.db.apply_batch(batch).and_then(|()| self.db.flush()))?;
        durable::sync(&self.file, &self.path).map_err(Error::File)
    }
}

/// Somebody else has it open; nothing is wrong with it.
pub(super) fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Write { source, .. } if source.to_string().contains("lock"))
}

/// sled's errors and panics alike say that its files are not what it wrote.
fn guarded<T>(path: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
    let damaged = |why: String| Error::Damaged { path: path.to_owned(), why };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(sled::Error::Io(source))) => Err(Error::Write { path: path.to_owned(), source }),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("sled cannot make sense of it".to_owned())),
    }
}

fn key(kind: Kind, ids: &[u64]) -> Vec<u8> {
    std::iter::once(kind.byte()).chain(ids.iter().flat_map(|id| id.to_be_bytes())).collect()
}

fn value<V: Serialize>(kind: Kind, value: &V) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = vec![kind.format()];
    rmp_serde::encode::write_named(&mut bytes, value)?;
    Ok(bytes)
}

/// Each row that the change writes (or, without a value, removes).
fn rows_of(
    delta: &AssignmentDelta,
    now: &Assignment,
    put: &mut impl FnMut(Vec<u8>, Option<Vec<u8>>),
) -> Result<(), rmp_serde::encode::Error> {
    fn map<K: Ord, V: Serialize>(
        kind: Kind,
        delta: &MapDelta<K, V>,
        ids: impl Fn(&K) -> Vec<u64>,
        put: &mut impl FnMut(Vec<u8>, Option<Vec<u8>>),
    ) -> Result<(), rmp_serde::encode::Error> {
        delta.remove.iter().for_each(|id| put(key(kind, &ids(id)), None));
        for (id, row) in &delta.upsert {
            put(key(kind, &ids(id)), Some(value(kind, row)?));
        }
        Ok(())
    }
    // Taken apart, so that no map is forgotten.
    let AssignmentDelta { from: _, to: _, node: _, networks, endpoints, services, tasks, containers, ingress } = delta;
    map(Kind::Network, networks, |id| vec![id.0], put)?;
    map(Kind::Endpoint, endpoints, |(network, task)| vec![network.0, task.0], put)?;
    map(Kind::Service, services, |(network, service)| vec![network.0, service.0], put)?;
    map(Kind::Task, tasks, |id| vec![id.0], put)?;
    map(Kind::Container, containers, |id| vec![id.0], put)?;
    map(Kind::Ingress, ingress, |id| vec![id.0], put)?;
    let head = Head { generation: now.generation, node: now.node.clone(), rows: count(now) };
    put(key(Kind::Head, &[]), Some(value(Kind::Head, &head)?));
    Ok(())
}

fn count(assignment: &Assignment) -> u64 {
    let Assignment { generation: _, node: _, networks, endpoints, services, tasks, containers, ingress } = assignment;
    let rows = networks.len() + endpoints.len() + services.len() + tasks.len() + containers.len() + ingress.len();
    rows as u64
}

fn assignment<'a>(rows: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Option<Assignment>, String> {
    fn add<K: Ord, V: DeserializeOwned>(to: &mut BTreeMap<K, V>, id: K, bytes: &[u8]) -> Result<(), String> {
        let row = rmp_serde::from_slice(bytes).map_err(|e| format!("a row cannot be read: {e}"))?;
        to.insert(id, row);
        Ok(())
    }
    let mut found = Assignment::default();
    let mut head: Option<Head> = None;
    for (key, value) in rows {
        let odd = || format!("the key {key:02x?} is none of ours");
        let (byte, ids) = key.split_first().ok_or_else(odd)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.byte() == *byte).ok_or_else(odd)?;
        let (format, bytes) = value.split_first().ok_or("a row is empty")?;
        if *format != kind.format() {
            return Err(format!(
                "a row ({kind:?}) has format {format}, and this version reads format {}",
                kind.format()
            ));
        }
        let (ids, rest) = ids.as_chunks::<8>();
        let ids: Vec<u64> = ids.iter().map(|id| u64::from_be_bytes(*id)).collect();
        match (kind, ids.as_slice(), rest) {
            (Kind::Head, [], []) => {
                head = Some(rmp_serde::from_slice(bytes).map_err(|e| format!("its head cannot be read: {e}"))?);
            }
            (Kind::Network, [id], []) => add(&mut found.networks, NetworkId(*id), bytes)?,
            (Kind::Endpoint, [network, task], []) => {
                add(&mut found.endpoints, (NetworkId(*network), TaskId(*task)), bytes)?;
            }
            (Kind::Service, [network, service], []) => {
                add(&mut found.services, (NetworkId(*network), ServiceId(*service)), bytes)?;
            }
            (Kind::Task, [id], []) => add(&mut found.tasks, TaskId(*id), bytes)?,
            (Kind::Container, [id], []) => add(&mut found.containers, TaskId(*id), bytes)?,
            (Kind::Ingress, [id], []) => add(&mut found.ingress, ServiceId(*id), bytes)?,
            (
                Kind::Head
                | Kind::Network
                | Kind::Endpoint
                | Kind::Service
                | Kind::Task
                | Kind::Container
                | Kind::Ingress,
                _,
                _,
            ) => return Err(odd()),
        }
    }
    let Some(head) = head else {
        return if count(&found) == 0 { Ok(None) } else { Err("its head is missing".to_owned()) };
    };
    if head.rows != count(&found) {
        return Err(format!("{} of its {} rows are there", count(&found), head.rows));
    }
    Ok(Some(Assignment { generation: head.generation, node: head.node, ..found }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use std::fmt::Write as _;

    type Row = (Vec<u8>, Vec<u8>);

    fn rows(of: &Assignment) -> Vec<Row> {
        let mut rows = Vec::new();
        let everything = AssignmentDelta::between(&Assignment::default(), of);
        rows_of(&everything, of, &mut |key, value| rows.push((key, value.unwrap()))).unwrap();
        rows
    }

    fn read(rows: &[Row]) -> Result<Option<Assignment>, String> {
        assignment(rows.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))
    }

    #[test]
    fn a_row_that_is_lost_odd_or_of_another_format_is_damage() {
        let whole = fixture::assignment(7, &[1, 2]);
        let rows = rows(&whole);
        assert_eq!(read(&rows), Ok(Some(whole)));
        assert_eq!(read(&[]), Ok(None));
        for nth in 0..rows.len() {
            let mut fewer = rows.clone();
            fewer.remove(nth);
            assert!(read(&fewer).is_err(), "without row {nth}");
            let spoiled = |spoil: &dyn Fn(&mut Row)| {
                let mut rows = rows.clone();
                spoil(&mut rows[nth]);
                read(&rows)
            };
            assert!(spoiled(&|row| row.1[0] = 9).unwrap_err().contains("format 9"));
            assert!(spoiled(&|row| row.1.truncate(row.1.len() / 2)).is_err());
            assert!(spoiled(&|row| row.1.clear()).is_err());
            assert!(spoiled(&|row| row.0.push(0)).is_err());
            assert!(spoiled(&|row| row.0[0] = b'?').is_err());
        }
    }

    /// `agent/testdata/memory-1.txt`: what this release has on the disks of hosts. A later one reads it, or raises the
    /// format of the kind that it cannot read.
    #[test]
    fn the_rows_of_this_release_are_read() {
        let whole = fixture::assignment(7, &[1, 2]);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/memory-1.txt");
        if std::env::var_os("SHOAL_WRITE_GOLDEN").is_some() {
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let mut text = String::new();
            rows(&whole).iter().for_each(|(key, value)| writeln!(text, "{} {}", hex(key), hex(value)).unwrap());
            let mut file = File::create_new(&path).expect("a file that was released is not written again");
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
        let bytes = |hex: &str| {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
        };
        let golden = std::fs::read_to_string(path).unwrap();
        let golden: Vec<_> = golden.lines().map(|l| l.split_once(' ').unwrap()).collect();
        let golden: Vec<_> = golden.into_iter().map(|(key, value)| (bytes(key), bytes(value))).collect();
        assert_eq!(read(&golden), Ok(Some(whole)));
    }
}
