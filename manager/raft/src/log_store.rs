//! The log and the vote.

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use crate::{
    codec,
    disk::{self, Disk, read_pieces, remove_pieces, write_pieces},
    keys,
    types::{Entry, LogId, TypeConfig, Vote},
};

/// Entries kept decoded: what is applied and replicated is nearly always among the last.
const CACHED_ENTRIES: usize = 2048;

/// To a follower that is far behind, in one message: far below what a message may be.
const ENTRIES_AT_ONCE: u64 = 512;
const BYTES_AT_ONCE: usize = 8 << 20;

/// Appends that wait for one sync. openraft has far fewer under way.
const WAITING_FLUSHES: usize = 4096;

/// Clones are the same log.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    disk: Disk,
    inner: Arc<Mutex<Inner>>,
    flushes: mpsc::SyncSender<IOFlushed<TypeConfig>>,
}

#[derive(Debug)]
struct Inner {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The newest entries, without a hole up to the last one.
    cache: BTreeMap<u64, Cached>,
}

#[derive(Debug)]
struct Cached {
    entry: Entry,
    /// Its size in the log.
    bytes: usize,
}

impl LogStore {
    pub(crate) fn open(disk: Disk) -> io::Result<Self> {
        let meta = |key| disk.get_meta(key);
        let vote = meta(keys::VOTE)?.map(|b| codec::decode(&b)).transpose()?;
        let purged: Option<LogId> = meta(keys::PURGED)?.map(|b| codec::decode(&b)).transpose()?;
        let last = disk.log.last().map_err(disk::broken)?.and_then(|(key, _)| keys::number_of(&key));
        let mut cache = BTreeMap::new();
        if let Some(last) = last {
            let first = last.saturating_sub(CACHED_ENTRIES as u64);
            // A purge that was cut short may have left entries before its mark.
            let first = first.max(purged.map_or(0, |p| p.index + 1));
            for (index, bytes) in read_pieces(&disk.log, first, None)? {
                cache.insert(index, Cached { entry: codec::decode(&bytes)?, bytes: bytes.len() });
            }
        }
        let last = cache.last_key_value().map(|(_, cached)| cached.entry.log_id).or(purged);
        let (flushes, queue) = mpsc::sync_channel(WAITING_FLUSHES);
        let syncing = disk.clone();
        // Group commit: one sync covers every append that was made before it began.
        std::thread::Builder::new().name("raft-sync".to_owned()).spawn(move || sync_loop(&syncing, &queue))?;
        Ok(Self { disk, inner: Arc::new(Mutex::new(Inner { vote, purged, last, cache })), flushes })
    }

    /// Nothing was ever voted or logged here.
    pub(crate) fn is_pristine(&self) -> bool {
        let inner = self.inner();
        inner.vote.is_none() && inner.last.is_none()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_loop(disk: &Disk, queue: &mpsc::Receiver<IOFlushed<TypeConfig>>) {
    while let Ok(first) = queue.recv() {
        let mut waiting = vec![first];
        waiting.extend(queue.try_iter());
        let done = disk.sync();
        if let Err(error) = &done {
            tracing::error!(%error, "the log cannot be made durable");
        }
        for callback in waiting {
            // An io::Error does not clone.
            callback.io_completed(match &done {
                Ok(()) => Ok(()),
                Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
            });
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, Option<u64>) {
    let from = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(i) => Some(i + 1),
        Bound::Excluded(i) => Some(*i),
        Bound::Unbounded => None,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.read(range).await?.into_iter().map(|(entry, _)| entry).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.inner().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let found = self.read(start..end.min(start + ENTRIES_AT_ONCE)).await?;
        let mut room = Some(BYTES_AT_ONCE);
        // The one that is over the limit still goes, so that any is sent at all.
        let fits = found.into_iter().take_while(|(_, bytes)| {
            let goes = room.is_some();
            room = room.and_then(|room| room.checked_sub(*bytes));
            goes
        });
        Ok(fits.map(|(entry, _)| entry).collect())
    }
}

impl LogStore {
    /// Entries, and the size of each.
    async fn read(&self, range: impl RangeBounds<u64>) -> io::Result<Vec<(Entry, usize)>> {
        let (from, to) = bounds(&range);
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let from = {
            let inner = self.inner();
            let from = from.max(inner.purged.map_or(0, |p| p.index + 1));
            let cached = inner.cache.first_key_value().is_none_or(|(first, _)| from >= *first);
            if cached {
                let end = to.map_or(Bound::Unbounded, Bound::Excluded);
                return Ok(match to {
                    Some(to) if to <= from => Vec::new(),
                    _ => inner
                        .cache
                        .range((Bound::Included(from), end))
                        .map(|(_, cached)| (cached.entry.clone(), cached.bytes))
                        .collect(),
                });
            }
            from
        };
        let tree = self.disk.log.clone();
        self.disk
            .blocking(move || {
                let found = read_pieces(&tree, from, to)?;
                found.iter().map(|(_, bytes)| Ok((codec::decode(bytes)?, bytes.len()))).collect()
            })
            .await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let inner = self.inner();
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: inner.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.disk.put_meta(keys::VOTE, codec::encode(vote)?)?;
        self.inner().vote = Some(*vote);
        let disk = self.disk.clone();
        self.disk.blocking(move || disk.sync()).await
    }

    /// Not synced: if it is lost, the member starts from an older one, and learns the newer from the leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.disk.put_meta(keys::COMMITTED, codec::encode(&committed)?)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.disk.get_meta(keys::COMMITTED)?.map(|b| codec::decode(&b)).transpose()?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = sled::Batch::default();
        {
            let mut inner = self.inner();
            let entries: Vec<Entry> = entries.into_iter().collect();
            let mut sizes = Vec::with_capacity(entries.len());
            for entry in &entries {
                let bytes = codec::encode(entry)?;
                write_pieces(&mut batch, entry.log_id.index, &bytes)?;
                sizes.push(bytes.len());
            }
            self.disk.log.apply_batch(batch).map_err(disk::broken)?;
            for (entry, bytes) in entries.into_iter().zip(sizes) {
                inner.last = Some(entry.log_id);
                inner.cache.insert(entry.log_id.index, Cached { entry, bytes });
            }
            while inner.cache.len() > CACHED_ENTRIES {
                inner.cache.pop_first();
            }
        }
        self.flushes.send(callback).map_err(|_| io::Error::other("the thread that syncs the log has ended"))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |l| l.index + 1);
        remove_pieces(&self.disk.log, from, None)?;
        let mut inner = self.inner();
        inner.cache.split_off(&from);
        if inner.last.is_some_and(|l| l.index >= from) {
            inner.last = last;
        }
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        // The mark first: entries before it are ignored, so a crash in between leaves no hole.
        self.disk.put_meta(keys::PURGED, codec::encode(&upto)?)?;
        {
            let mut inner = self.inner();
            inner.purged = Some(upto);
            inner.cache = inner.cache.split_off(&(upto.index + 1));
            if inner.last.is_none_or(|last| last.index < upto.index) {
                inner.last = Some(upto);
            }
        }
        let disk = self.disk.clone();
        self.disk
            .blocking(move || {
                disk.sync()?;
                remove_pieces(&disk.log, 0, Some(upto.index + 1))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Logged;
    use openraft::{EntryPayload, impls::leader_id_std::LeaderId, vote::RaftLeaderId as _};
    use shoal_common::{Timestamp, node::Role};
    use shoal_state::{Command, Proposal};

    fn entry(index: u64, bytes: usize) -> Entry {
        let command = Command::RotateJoinToken { role: Role::Worker, secret: "s".repeat(bytes) };
        let proposal = Proposal { at: Timestamp(1), request: None, command };
        let term = LeaderId { term: 1, voted_for: 1 }.to_committed();
        Entry { log_id: LogId::new(term, index), payload: EntryPayload::Normal(Logged(Arc::new(proposal))) }
    }

    #[tokio::test]
    async fn one_message_holds_no_more_than_it_may_and_always_something() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let mut log = LogStore::open(disk.clone()).unwrap();
        let sizes = [3 * BYTES_AT_ONCE, BYTES_AT_ONCE / 2, BYTES_AT_ONCE / 4, BYTES_AT_ONCE, 1];
        log.append((1..).zip(sizes).map(|(index, bytes)| entry(index, bytes)), IOFlushed::noop()).await.unwrap();
        // From the cache, and from the disk.
        log.inner().cache.retain(|index, _| *index > 3);
        for (start, sent) in [(1, 1), (2, 3), (4, 1), (5, 1)] {
            let found = log.limited_get_log_entries(start, 6).await.unwrap();
            assert_eq!(found.len(), sent, "from {start}");
            assert_eq!(found[0].log_id.index, start);
        }
    }
}
