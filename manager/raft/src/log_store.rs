//! The log and the vote, as openraft asks for them: what is newest is in memory, and the writer keeps all of it.

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use crate::{
    codec,
    store::{
        disk::Disk,
        segments::{Pending, Places},
        writer::{Done, Op, Writer, Writes},
    },
    types::{Entry, LogId, TypeConfig, Vote},
};

/// Entries kept decoded: what is applied and replicated is nearly always among the last.
const CACHED_ENTRIES: usize = 2048;

/// To a follower that is far behind, in one message: far below what a message may be.
const ENTRIES_AT_ONCE: u64 = 512;
const BYTES_AT_ONCE: usize = 8 << 20;

/// Clones are the same log.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    disk: Disk,
    places: Places,
    writes: Writes,
    inner: Arc<Mutex<Inner>>,
}

/// The log as it will be when all that was asked for is written.
#[derive(Debug)]
pub(crate) struct Inner {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Every entry from `cached_from` on, and those that are not in a file yet.
    cache: BTreeMap<u64, Cached>,
    cached_from: u64,
}

#[derive(Debug)]
struct Cached {
    entry: Entry,
    /// Its size in the log.
    bytes: usize,
}

impl Inner {
    /// From a store that was just opened. Blocks.
    pub(crate) fn read(writer: &Writer) -> io::Result<Self> {
        let mark = writer.mark();
        let mut inner = Self {
            vote: mark.vote,
            committed: mark.committed,
            purged: mark.purged,
            last: mark.purged,
            cache: BTreeMap::new(),
            cached_from: mark.purged.map_or(0, |p| p.index + 1),
        };
        if let Some((first, last)) = writer.places().bounds() {
            inner.cached_from = first.max((last + 1).saturating_sub(CACHED_ENTRIES as u64));
            for (index, bytes) in writer.places().read(inner.cached_from, last + 1)? {
                let entry = decode(index, &bytes)?;
                inner.last = Some(entry.log_id);
                inner.cache.insert(index, Cached { entry, bytes: bytes.len() });
            }
        }
        // The mark may lag behind a truncation, and never says more than the log.
        inner.committed = inner.committed.min(inner.last);
        Ok(inner)
    }

    /// What of the range is there.
    fn clip(&self, (from, to): (u64, Option<u64>)) -> (u64, u64) {
        let end = self.last.map_or(0, |l| l.index + 1);
        let from = from.max(self.purged.map_or(0, |p| p.index + 1));
        (from, to.map_or(end, |to| to.min(end)).max(from))
    }
}

fn decode(index: u64, bytes: &[u8]) -> io::Result<Entry> {
    codec::decode(bytes).map_err(|e| io::Error::new(e.kind(), format!("entry {index} of the log: {e}")))
}

impl LogStore {
    pub(crate) fn start(disk: Disk, writer: Writer, inner: Inner) -> Self {
        let places = writer.places();
        let writes = writer.start(disk.clone());
        Self { disk, places, writes, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Nothing was ever voted or logged here.
    pub(crate) fn is_pristine(&self) -> bool {
        let inner = self.inner();
        inner.vote.is_none() && inner.last.is_none()
    }

    /// No space could be taken for more of the log.
    pub(crate) fn short_of_space(&self) -> Arc<AtomicBool> {
        self.writes.short_of_space()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries, and the size of each.
    async fn read(&self, range: impl RangeBounds<u64>) -> io::Result<Vec<(Entry, usize)>> {
        let wanted = bounds(&range);
        loop {
            let ((from, to), split, cached) = {
                let inner = self.inner();
                let (from, to) = inner.clip(wanted);
                // What is not in memory is in a file: only such entries leave the cache.
                let split = inner.cached_from.clamp(from, to);
                let cached = inner.cache.range(split..to).map(|(_, c)| (c.entry.clone(), c.bytes));
                ((from, to), split, cached.collect::<Vec<_>>())
            };
            if from == split {
                return Ok(cached);
            }
            let places = self.places.clone();
            let read = self.disk.blocking(move || {
                let read = places.read(from, split)?;
                read.iter()
                    .map(|(index, bytes)| Ok((decode(*index, bytes)?, bytes.len())))
                    .collect::<io::Result<Vec<_>>>()
            });
            match read.await {
                Ok(mut found) => {
                    found.extend(cached);
                    return Ok(found);
                }
                // It was purged or cut off meanwhile.
                Err(_) if self.inner().clip(wanted) != (from, to) => {}
                Err(error) => return Err(error),
            }
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
        self.writes.wait(Op::Vote(*vote)).await?;
        self.inner().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.inner().committed = committed;
        self.writes.committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.inner().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut pending = Vec::new();
        let mut cached = Vec::new();
        for entry in entries {
            let payload = codec::encode(&entry)?;
            let bytes = payload.len();
            pending.push(Pending { index: entry.log_id.index, term: entry.log_id.leader_id.term, payload });
            cached.push((entry.log_id.index, Cached { entry, bytes }));
        }
        let Some(last) = cached.last().map(|(_, cached)| cached.entry.log_id) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        {
            let mut inner = self.inner();
            inner.last = Some(last);
            inner.cache.extend(cached);
            // What is not in a file yet stays.
            while inner.cache.len() > CACHED_ENTRIES
                && inner.cache.first_key_value().is_some_and(|(index, _)| self.places.has(*index))
            {
                if let Some((index, _)) = inner.cache.pop_first() {
                    inner.cached_from = index + 1;
                }
            }
        }
        self.writes.ask(Op::Append { entries: pending, last }, Done::Raft(callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |l| l.index + 1);
        {
            let mut inner = self.inner();
            inner.cache.split_off(&from);
            inner.cached_from = inner.cached_from.min(from);
            if inner.last.is_some_and(|l| l.index >= from) {
                inner.last = last;
            }
        }
        // Until it is written, the files show entries that are gone.
        self.writes.wait(Op::Truncate(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut inner = self.inner();
            inner.purged = Some(upto);
            inner.cache = inner.cache.split_off(&(upto.index + 1));
            inner.cached_from = inner.cached_from.max(upto.index + 1);
            if inner.last.is_none_or(|last| last.index < upto.index) {
                inner.last = Some(upto);
            }
        }
        self.writes.ask(Op::Purge(upto), Done::Nobody).await
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
        let mut log = crate::suite::open(dir.path()).0;
        let sizes = [3 * BYTES_AT_ONCE, BYTES_AT_ONCE / 2, BYTES_AT_ONCE / 4, BYTES_AT_ONCE, 1];
        log.append((1..).zip(sizes).map(|(index, bytes)| entry(index, bytes)), IOFlushed::noop()).await.unwrap();
        // From the cache, and from the disk.
        log.writes.wait(Op::Truncate(Some(entry(5, 1).log_id))).await.unwrap();
        {
            let mut inner = log.inner();
            inner.cache.retain(|index, _| *index > 3);
            inner.cached_from = 4;
        }
        for (start, sent) in [(1, 1), (2, 3), (4, 1), (5, 1)] {
            let found = log.limited_get_log_entries(start, 6).await.unwrap();
            assert_eq!(found.len(), sent, "from {start}");
            assert_eq!(found[0].log_id.index, start);
        }
    }
}
