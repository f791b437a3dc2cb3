//! The log as a row of files ("segments"), each of the same size, with space taken in advance.
//!
//! Nothing is overwritten but zeros: a truncation is a record too. A segment gets its name only when its head is
//! durable, and only when every record of the one before is. So whatever is unreadable before the last segment, or
//! before a record that was acknowledged, is damage; else it is the torn end of a write that nobody was told of.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Damage,
    disk::{Disk, Handle},
    record::{self, Found, HEAD_BYTES, Head, Kind, SEGMENT_HEAD_BYTES},
};

/// Of a segment: small enough for a disk of 16 MiB, large enough that a new one is rare. In tests it is not rare.
pub(crate) const SEGMENT_BYTES: u64 = if cfg!(any(test, feature = "sim")) { 64 << 10 } else { 4 << 20 };
/// A segment that is being prepared. It holds nothing, whatever a crash made of it.
const SPARE: &str = "spare.new";
const PREFIX: &str = "log-";
/// Written at once when a segment is prepared.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

fn name(first_seq: u64) -> String {
    format!("{PREFIX}{first_seq:020}")
}

fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(super) fn is_segment(name: &str) -> bool {
    first_seq(name).is_some()
}

/// Where each entry is, for readers. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<BTreeMap<u64, Place>>>);

#[derive(Debug, Clone)]
struct Place {
    file: Handle,
    offset: u64,
    /// Of the payload.
    bytes: usize,
    seq: u64,
    term: u64,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The payloads of the entries `from..to`, each checked; damage, if one is missing. Blocks.
    pub(crate) fn read(&self, from: u64, to: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let places: Vec<(u64, Place)> = self.lock().range(from..to).map(|(i, p)| (*i, p.clone())).collect();
        if places.len() as u64 != to.saturating_sub(from) {
            let found: Vec<u64> = places.iter().map(|(index, _)| *index).collect();
            return Err(Damage::new(format!(
                "the log has {} of the entries {from} to {} ({:?} to {:?})",
                found.len(),
                to.saturating_sub(1),
                found.first(),
                found.last(),
            ))
            .into());
        }
        places.into_iter().map(|(index, place)| Ok((index, place.read(index)?))).collect()
    }

    /// Whether the entry is in a file, if not durably yet.
    pub(crate) fn has(&self, index: u64) -> bool {
        self.lock().contains_key(&index)
    }

    /// The first and the last index that is there.
    pub(crate) fn bounds(&self) -> Option<(u64, u64)> {
        let places = self.lock();
        Some((*places.first_key_value()?.0, *places.last_key_value()?.0))
    }
}

impl Place {
    fn read(&self, index: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; record::size(self.bytes)];
        let read = self.file.read_at(&mut bytes, self.offset)?;
        bytes.truncate(read);
        match record::read(&bytes) {
            Found::Record { head, payload, .. }
                if head.seq == self.seq
                    && head.index == index
                    && head.term == self.term
                    && payload.len() == self.bytes =>
            {
                Ok(payload.to_vec())
            }
            Found::Record { .. } | Found::Nothing | Found::Unreadable => {
                Err(Damage::new(format!("entry {index} of the log is unreadable")).into())
            }
        }
    }
}

#[derive(Debug)]
struct Segment {
    first_seq: u64,
    file: Handle,
    /// Every index in it is lower, of entries that were cut off too.
    end: u64,
}

/// What the mark says of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The number of the last record that was acknowledged.
    pub(crate) acked: u64,
    /// The first record of the oldest segment that must be there.
    pub(crate) kept_from: u64,
    /// The first entry that is needed, if a snapshot has those before.
    pub(crate) first: Option<u64>,
}

/// An entry that is to be appended.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) payload: Vec<u8>,
}

/// The one writer of the log.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: Disk,
    incarnation: String,
    /// Oldest first, never empty; the last one is written to.
    segments: Vec<Segment>,
    /// Where the next record goes.
    offset: u64,
    /// Of the last record.
    seq: u64,
    /// The index of the next entry; none if any may be the first.
    next: Option<u64>,
    /// Records up to here are durable.
    synced: u64,
    /// A segment was prepared.
    spare: Option<Handle>,
    places: Places,
    /// What is appended and not yet written.
    buffer: Vec<u8>,
}

impl Segments {
    /// The first segment of a new store.
    pub(super) fn create(disk: &Disk, incarnation: &str) -> io::Result<()> {
        let file = prepare(disk)?;
        begin(disk, &file, 1, incarnation)
    }

    /// Reads and checks all of it.
    pub(super) fn open(disk: &Disk, incarnation: &str, known: Known) -> io::Result<Self> {
        let Known { acked, kept_from, first: first_index } = known;
        let (old, mut first): (Vec<u64>, Vec<u64>) =
            disk.list()?.iter().filter_map(|name| first_seq(name)).partition(|seq| *seq < kept_from);
        first.sort_unstable();
        let Some((oldest, newest)) = first.first().copied().zip(first.last().copied()) else {
            return Err(super::behind("the log has no file".to_owned()));
        };
        if oldest != kept_from {
            return Err(Damage::new(format!("the file {} of the log is missing", name(kept_from))).into());
        }
        // A purge that was cut short: a snapshot has all of them.
        for seq in old {
            disk.remove(&name(seq))?;
        }
        let mut log = Self {
            disk: disk.clone(),
            incarnation: incarnation.to_owned(),
            segments: Vec::new(),
            offset: 0,
            seq: oldest.saturating_sub(1),
            next: None,
            synced: 0,
            spare: None,
            places: Places::default(),
            buffer: Vec::new(),
        };
        for number in first {
            log.read_segment(number, number == newest, acked)?;
        }
        if log.seq < acked && !mutant!(ShorterAccepted | LogReversion) {
            return Err(super::behind(format!(
                "the log ends at record {}, but this manager has acknowledged record {acked}",
                log.seq
            )));
        }
        log.synced = log.seq;
        if let Some(first_index) = first_index {
            log.forget_before(first_index);
            if let Some((first, _)) = log.places.bounds()
                && first != first_index
            {
                return Err(
                    Damage::new(format!("the log begins with entry {first}, and not with {first_index}")).into()
                );
            }
        }
        Ok(log)
    }

    fn read_segment(&mut self, number: u64, newest: bool, acked: u64) -> io::Result<()> {
        let name = name(number);
        let file = self.disk.open(&name)?;
        let bytes = file.read_all()?;
        let damaged = |why: String| io::Error::from(Damage::new(format!("{name}: {why}")));
        if !record::is_segment(&bytes, number, &self.incarnation) {
            return Err(damaged("it does not begin as a segment of this store".to_owned()));
        }
        if number != self.seq + 1 {
            return Err(damaged(format!("the records {} to {} before it are missing", self.seq + 1, number - 1)));
        }
        let mut end = 0;
        let mut at = SEGMENT_HEAD_BYTES;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (head, payload, size) = match record::read(rest) {
                Found::Record { head, payload, bytes } if head.seq == self.seq + 1 => (head, payload.len(), bytes),
                Found::Nothing if rest.chunks(ZEROS.len()).all(|c| *c == ZEROS[..c.len()]) => break,
                Found::Record { .. } | Found::Nothing | Found::Unreadable => {
                    let lost = self.seq + 1;
                    let accepted = mutant!(ShorterAccepted | LogReversion);
                    if !accepted && (!newest || acked >= lost || record::says_durable(rest, lost)) {
                        return Err(damaged(format!(
                            "record {lost}, at byte {at}, is unreadable, and it was acknowledged"
                        )));
                    }
                    tracing::warn!(file = name, at, "the end of the log was torn before it was acknowledged: cut off");
                    zero(&file, at as u64, bytes.len() as u64)?;
                    break;
                }
            };
            match head.kind {
                Kind::Entry => {
                    if let Some(next) = self.next.filter(|next| head.index != *next) {
                        return Err(damaged(format!("entry {} is where entry {next} should be", head.index)));
                    }
                    self.next = Some(head.index + 1);
                    end = end.max(head.index + 1);
                    let place =
                        Place { file: file.clone(), offset: at as u64, bytes: payload, seq: head.seq, term: head.term };
                    self.places.lock().insert(head.index, place);
                }
                Kind::Truncation => {
                    self.next = Some(head.index);
                    self.places.lock().split_off(&head.index);
                }
            }
            self.seq = head.seq;
            at += size;
        }
        if newest && let Some(read) = bytes.get(..at) {
            // What is read may be in the page cache alone: after a failed sync the kernel takes its pages for clean, and
            // the process that starts then would tell others of entries that a power cut takes away.
            file.write_at(read, 0)?;
            file.sync()?;
        }
        self.offset = at as u64;
        self.segments.push(Segment { first_seq: number, file, end });
        Ok(())
    }

    pub(crate) fn places(&self) -> Places {
        self.places.clone()
    }

    /// The number of the last record that is durable.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// `first` is the first entry that is needed if a snapshot has those before. One that was installed may have more
    /// than the log had, which then goes on behind it.
    pub(super) fn append(&mut self, entries: &[Pending], first: Option<u64>) -> io::Result<()> {
        let mut written = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(next) = self.next.or(first)
                && entry.index != next
            {
                if first != Some(entry.index) || next > entry.index {
                    return Err(io::Error::other(format!("entry {} cannot be where {next} should be", entry.index)));
                }
                self.record(Kind::Truncation, entry.index, 0, &[])?;
            }
            self.next = Some(entry.index + 1);
            let offset = self.record(Kind::Entry, entry.index, entry.term, &entry.payload)?;
            let active = self.active()?;
            active.end = active.end.max(entry.index + 1);
            let file = active.file.clone();
            let place = Place { file, offset, bytes: entry.payload.len(), seq: self.seq, term: entry.term };
            written.push((entry.index, place));
        }
        self.write()?;
        // Not before: a reader would find zeros.
        self.places.lock().extend(written);
        Ok(())
    }

    /// Entries from `index` on are gone.
    pub(super) fn truncate(&mut self, index: u64) -> io::Result<()> {
        self.record(Kind::Truncation, index, 0, &[])?;
        self.next = Some(index);
        self.places.lock().split_off(&index);
        self.write()
    }

    /// Everything that was appended is durable when it returns.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.seq {
            self.active()?.file.sync()?;
            self.synced = self.seq;
        }
        Ok(())
    }

    /// The first record of the oldest segment that is needed once the entries before `first` are in a snapshot.
    pub(super) fn needed_from(&self, first: u64) -> u64 {
        let needed = self.segments.iter().find(|s| s.end > first).or(self.segments.last());
        needed.map_or(1, |s| s.first_seq)
    }

    /// Removes the segments before that of `kept_from`. That mark must be durable.
    pub(super) fn purge(&mut self, kept_from: u64) -> io::Result<()> {
        while self.segments.first().is_some_and(|s| s.first_seq < kept_from) {
            self.disk.remove(&name(self.segments[0].first_seq))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    pub(super) fn forget_before(&self, first: u64) {
        let mut places = self.places.lock();
        *places = places.split_off(&first);
    }

    /// Prepares the next segment, if that is not done yet.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if self.spare.is_none() {
            self.spare = Some(prepare(&self.disk)?);
        }
        Ok(())
    }

    fn active(&mut self) -> io::Result<&mut Segment> {
        self.segments.last_mut().ok_or_else(|| io::Error::other("the log has no segment to write to"))
    }

    /// Puts a record into the buffer, and returns where it will be.
    fn record(&mut self, kind: Kind, index: u64, term: u64, payload: &[u8]) -> io::Result<u64> {
        let room = SEGMENT_BYTES.saturating_sub(self.offset + self.buffer.len() as u64);
        if (record::size(payload.len()) as u64) > room {
            self.write()?;
            if self.offset > SEGMENT_HEAD_BYTES as u64 {
                self.rotate()?;
            }
        }
        let offset = self.offset + self.buffer.len() as u64;
        let head = Head { seq: self.seq + 1, synced: self.synced, index, term, kind };
        record::write(&mut self.buffer, head, payload)?;
        self.seq += 1;
        Ok(offset)
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            let (bytes, offset) = (std::mem::take(&mut self.buffer), self.offset);
            self.active()?.file.write_at(&bytes, offset)?;
            self.offset += bytes.len() as u64;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let file = match self.spare.take() {
            Some(file) => file,
            None => prepare(&self.disk)?,
        };
        begin(&self.disk, &file, self.seq + 1, &self.incarnation)?;
        self.segments.push(Segment { first_seq: self.seq + 1, file, end: 0 });
        self.offset = SEGMENT_HEAD_BYTES as u64;
        Ok(())
    }
}

/// A file of zeros that are on the disk: a record written over them needs no new block and no new file size, so that
/// its sync waits for no journal, and a full disk is met here.
fn prepare(disk: &Disk) -> io::Result<Handle> {
    let file = disk.create(SPARE)?;
    file.allocate(SEGMENT_BYTES)?;
    zero(&file, 0, SEGMENT_BYTES)?;
    Ok(file)
}

fn zero(file: &Handle, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let bytes = ZEROS.len().min(usize::try_from(to - from).unwrap_or(usize::MAX));
        file.write_at(&ZEROS[..bytes], from)?;
        from += bytes as u64;
    }
    file.sync()
}

/// The spare file becomes the segment that begins with this record.
fn begin(disk: &Disk, file: &Handle, first_seq: u64, incarnation: &str) -> io::Result<()> {
    file.write_at(&record::segment_head(first_seq, incarnation)?, 0)?;
    file.sync()?;
    disk.rename(SPARE, &name(first_seq))
}

const _: () = assert!(SEGMENT_HEAD_BYTES.is_multiple_of(8) && HEAD_BYTES.is_multiple_of(8));
