//! What becomes of a store whose files were changed behind its back (faults.md, M3 to M6).

use futures::future::BoxFuture;
use openraft::{EntryPayload, impls::leader_id_std::LeaderId, vote::RaftLeaderId as _};
use shoal_common::{Timestamp, node::Role};
use shoal_state::{Command, Proposal, State};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;

use super::{
    segments::{Pending, SEGMENT_BYTES},
    writer::Op,
    *,
};
use crate::{
    codec,
    files::{Failure, File, Job, Os, Space},
    log_store::{Inner, LogStore},
    suite::owner,
    types::{Entry, LogId, Logged, SnapshotMeta, Vote},
};

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, voted_for: 1 }.to_committed(), index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let command = Command::RotateJoinToken { role: Role::Worker, secret: "s".repeat(bytes) };
    let proposal = Proposal { at: Timestamp(index), request: None, command };
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Logged(Arc::new(proposal))) }
}

fn append(term: u64, indexes: std::ops::Range<u64>, bytes: usize) -> Op {
    let last = log_id(term, indexes.end - 1);
    let entries = indexes
        .map(|index| Pending { index, term, payload: codec::encode(&entry(term, index, bytes)).unwrap() })
        .collect();
    Op::Append { entries, last }
}

fn files(dir: &Path) -> Arc<dyn Files> {
    Arc::new(Os::open(dir).unwrap())
}

fn open_in(dir: &Path) -> io::Result<Opened> {
    open(&files(dir), &owner())
}

fn created() -> (TempDir, Writer) {
    let dir = tempfile::tempdir().unwrap();
    create(&files(dir.path()), owner()).unwrap();
    let writer = open_in(dir.path()).unwrap().writer;
    (dir, writer)
}

/// Everything that a store remembers.
type Content = (Option<Vote>, Option<LogId>, Vec<(u64, Vec<u8>)>, Option<Vec<u8>>);

fn content(opened: &Opened) -> io::Result<Content> {
    let mark = opened.writer.mark();
    let places = opened.writer.places();
    let entries = places.bounds().map_or(Ok(Vec::new()), |(first, last)| places.read(first, last + 1))?;
    let snapshot = opened.snapshots.current()?.map(|(_, data)| data.decode()).transpose()?;
    let snapshot = snapshot.map(|state| codec::encode(&state).unwrap());
    Ok((mark.vote, mark.purged, entries, snapshot))
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

fn code_of(opened: io::Result<Opened>) -> Option<Code> {
    refusal(&opened.err()?).map(|refusal| refusal.code)
}

/// Entries in three segments, a truncation, a vote, a snapshot, and a purge of some of what is in it.
fn story() -> TempDir {
    let (dir, mut writer) = created();
    writer.write(vec![Op::Vote(Vote::new(1, 1)), append(1, 0..30, 700)], None).unwrap();
    writer.write(vec![append(1, 30..36, 9 << 10)], Some(log_id(1, 20))).unwrap();
    writer.write(vec![append(1, 36..42, 9 << 10)], Some(log_id(1, 30))).unwrap();
    writer.write(vec![Op::Truncate(Some(log_id(1, 39)))], None).unwrap();
    writer.write(vec![Op::Vote(Vote::new(2, 2)), append(2, 40..60, 700)], None).unwrap();
    drop(writer);
    let Opened { snapshots, mut writer, .. } = open_in(dir.path()).unwrap();
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 38)), ..SnapshotMeta::default() };
    snapshots.build(&meta, &State::default()).unwrap();
    writer.write(vec![Op::Purge(log_id(1, 33)), append(2, 60..80, 700)], Some(log_id(1, 38))).unwrap();
    writer.tidy().unwrap();
    dir
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)
}

/// Row M4: at every 512 bytes a flipped bit, a file that ends there, and a block of zeros.
#[test]
fn damage_is_refused_or_costs_nothing_and_never_a_vote_or_an_entry() {
    let whole = story();
    let expected = content(&open_in(whole.path()).unwrap()).unwrap();
    assert_eq!(expected.2.len(), 46, "entries 34 to 79");
    let (mut refused, mut unharmed) = (0, 0);
    let mut judge = |what: &str, dir: &Path| match open_in(dir).and_then(|opened| content(&opened)) {
        Ok(found) => {
            assert!(found == expected, "{what}: it opened with something else");
            unharmed += 1;
        }
        Err(error) => {
            assert!(refusal(&error).is_some(), "{what}: {error}");
            refused += 1;
        }
    };
    for name in files(whole.path()).list().unwrap().into_iter().filter(|name| !name.ends_with(".new")) {
        let bytes = fs::read(whole.path().join(&name)).unwrap();
        for at in (0..used(&bytes)).step_by(512) {
            let dir = copy(whole.path());
            let path = dir.path().join(&name);
            let mut flipped = bytes.clone();
            flipped[at + at / 512 % 50] ^= 1 << (at / 512 % 8);
            fs::write(&path, &flipped).unwrap();
            judge(&format!("{name}: a bit after {at}"), dir.path());
            fs::write(&path, &bytes[..at]).unwrap();
            judge(&format!("{name}: cut off at {at}"), dir.path());
            let mut zeroed = bytes.clone();
            zeroed[at..(at + 512).min(bytes.len())].fill(0);
            fs::write(&path, &zeroed).unwrap();
            judge(&format!("{name}: zeros at {at}"), dir.path());
        }
        let dir = copy(whole.path());
        fs::remove_file(dir.path().join(&name)).unwrap();
        assert!(code_of(open_in(dir.path())).is_some(), "{name} is missing");
        fs::write(dir.path().join(&name), b"").unwrap();
        assert!(code_of(open_in(dir.path())).is_some(), "{name} is empty");
    }
    // Some bits are in padding, or in the copy of a mark.
    assert!(refused > 100 && unharmed > 0, "{refused} refused, {unharmed} unharmed");
}

#[test]
fn a_member_that_had_a_log_does_not_begin_with_an_empty_one_or_with_that_of_another() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(code_of(open_in(empty.path())), Some(Code::Missing));

    let whole = story();
    for other in [
        Owner { cluster: "another".to_owned(), ..owner() },
        Owner { node: 2, ..owner() },
        Owner { incarnation: "2".to_owned(), ..owner() },
    ] {
        assert_eq!(code_of(open(&files(whole.path()), &other)), Some(Code::Foreign), "{other:?}");
        let made = create(&files(whole.path()), other).unwrap_err();
        assert_eq!(refusal(&made).unwrap().code, Code::Foreign);
    }
    // Nothing of it was touched.
    assert!(open_in(whole.path()).is_ok());

    let sled = tempfile::tempdir().unwrap();
    fs::write(sled.path().join("db"), b"sled").unwrap();
    assert_eq!(code_of(open_in(sled.path())), Some(Code::OlderFormat));
    assert_eq!(refusal(&create(&files(sled.path()), owner()).unwrap_err()).unwrap().code, Code::OlderFormat);
}

#[test]
fn an_older_log_beside_the_mark_of_what_was_acknowledged_is_behind() {
    let (dir, mut writer) = created();
    writer.write(vec![append(1, 0..5, 100)], None).unwrap();
    let older = copy(dir.path());
    writer.write(vec![append(1, 5..9, 100)], None).unwrap();
    for name in files(older.path()).list().unwrap().iter().filter(|name| segments::is_segment(name)) {
        fs::copy(older.path().join(name), dir.path().join(name)).unwrap();
    }
    assert_eq!(code_of(open_in(dir.path())), Some(Code::Behind));
}

/// The mark lags. An idle member writes no other for hours, and what its log loses then must be noticed all the same.
#[test]
fn what_a_member_starts_with_counts_as_acknowledged_from_then_on() {
    let (dir, mut writer) = created();
    writer.write(vec![append(1, 0..5, 100)], None).unwrap();
    let older = copy(dir.path());
    writer.write(vec![append(1, 5..9, 100)], None).unwrap();
    drop(writer);
    fs::copy(older.path().join("mark"), dir.path().join("mark")).unwrap();
    assert_eq!(content(&open_in(dir.path()).unwrap()).unwrap().2.len(), 9, "the mark lags, and the log has more");
    for name in files(older.path()).list().unwrap().iter().filter(|name| segments::is_segment(name)) {
        fs::copy(older.path().join(name), dir.path().join(name)).unwrap();
    }
    assert_eq!(code_of(open_in(dir.path())), Some(Code::Behind));
}

/// Row M3: of a write that nobody was told of, any sectors may be on the disk.
#[test]
fn a_torn_end_is_cut_off_and_the_log_goes_on_behind_it() {
    let (dir, mut writer) = created();
    writer.write(vec![append(1, 0..3, 900)], None).unwrap();
    let before = copy(dir.path());
    writer.write(vec![append(1, 3..6, 900)], None).unwrap();
    let name = files(dir.path()).list().unwrap().into_iter().find(|name| segments::is_segment(name)).unwrap();
    let (old, new) = (fs::read(before.path().join(&name)).unwrap(), fs::read(dir.path().join(&name)).unwrap());
    let first = (0..old.len()).step_by(512).find(|at| old[*at..at + 512] != new[*at..at + 512]).unwrap();
    let sectors = (used(&new) - first).div_ceil(512);
    assert!((6..10).contains(&sectors), "{sectors} sectors");
    let mut lengths = std::collections::BTreeSet::new();
    for kept in 0..1_u32 << sectors {
        let torn = copy(before.path());
        let mut bytes = old.clone();
        for sector in (0..sectors).filter(|sector| kept >> sector & 1 == 1) {
            let at = first + sector * 512;
            bytes[at..at + 512].copy_from_slice(&new[at..at + 512]);
        }
        fs::write(torn.path().join(&name), &bytes).unwrap();
        let mut opened = open_in(torn.path()).unwrap();
        let found = content(&opened).unwrap().2.len() as u64;
        assert!((3..=6).contains(&found), "{found} entries with the sectors {kept:b}");
        lengths.insert(found);
        // Nothing of what was torn is there again behind what is written next.
        opened.writer.write(vec![append(2, found..found + 1, 900)], None).unwrap();
        let (_, _, entries, _) = content(&open_in(torn.path()).unwrap()).unwrap();
        assert_eq!(entries.len() as u64, found + 1, "with the sectors {kept:b}");
        assert!(entries.last().unwrap().1 == codec::encode(&entry(2, found, 900)).unwrap());
    }
    assert_eq!(lengths, (3..=6).collect());
}

/// The real files, with faults.
#[derive(Debug)]
struct Faulty {
    files: Arc<dyn Files>,
    failure: Failure,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// The next sync fails, and that only.
    sync: AtomicBool,
    full: AtomicBool,
}

#[derive(Debug)]
struct FaultyFile(Arc<dyn File>, Arc<Faults>);

impl Faulty {
    fn on(dir: &Path) -> (Arc<dyn Files>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        let failure = Failure::default();
        (Arc::new(Self { files: files(dir), failure, faults: Arc::clone(&faults) }), faults)
    }

    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FaultyFile(file, Arc::clone(&self.faults)))
    }
}

impl Files for Faulty {
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.files.open(name)?))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.files.create(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.files.sync_names()
    }
    fn space(&self) -> io::Result<Space> {
        self.files.space()
    }
    fn failure(&self) -> Failure {
        self.failure.clone()
    }
    fn work(&self, job: Job) -> BoxFuture<'static, ()> {
        self.files.work(job)
    }
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn allocate(&self, size: u64) -> io::Result<()> {
        if self.1.full.load(Ordering::Relaxed) && size > self.0.size()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.allocate(size)
    }
    fn sync(&self) -> io::Result<()> {
        if self.1.sync.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("EIO"));
        }
        self.0.sync()
    }
}

/// Row M6: the kernel tells of a failed write-back once, to whoever asks first.
#[tokio::test]
async fn after_one_failed_sync_nothing_is_acknowledged_whoever_saw_it() {
    let dir = tempfile::tempdir().unwrap();
    let (files, faults) = Faulty::on(dir.path());
    create(&files, owner()).unwrap();
    let opened = open(&files, &owner()).unwrap();
    let snapshots = opened.snapshots.clone();
    let disk = opened.disk.clone();
    let writes = opened.writer.start(disk.clone());
    writes.wait(append(1, 0..3, 100)).await.unwrap();

    faults.sync.store(true, Ordering::Relaxed);
    // The snapshot sees it, and the log must not go on as if nothing were.
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 2)), ..SnapshotMeta::default() };
    let built = disk.blocking(move || snapshots.build(&meta, &State::default())).await;
    assert!(built.unwrap_err().to_string().contains("EIO"));
    for from in [3, 4] {
        let error = writes.wait(append(1, from..from + 1, 100)).await.unwrap_err();
        assert!(error.to_string().contains("EIO"), "{error}");
    }
    assert!(writes.wait(Op::Vote(Vote::new(9, 1))).await.is_err());
    assert!(!disk.is_sound());
    // Neither is anything after the files were opened again in this process.
    let error = open(&files, &owner()).unwrap_err();
    assert!(error.to_string().contains("EIO"), "{error}");
}

/// Row M5: what has its space is still written, and what has none fails whole.
#[test]
fn a_full_disk_leaves_what_was_acknowledged_and_it_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let (files, faults) = Faulty::on(dir.path());
    create(&files, owner()).unwrap();
    let mut writer = open(&files, &owner()).unwrap().writer;
    writer.write(vec![Op::Vote(Vote::new(1, 1)), append(1, 0..1, 100)], None).unwrap();
    faults.full.store(true, Ordering::Relaxed);
    let mut acknowledged = 1;
    let error = loop {
        match writer
            .write(vec![append(1, acknowledged..acknowledged + 1, usize::try_from(SEGMENT_BYTES).unwrap() / 10)], None)
        {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        writer.tidy().unwrap();
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(acknowledged > 8, "{acknowledged}");
    drop(writer);
    // It says so when it is opened, and not only when it is in use.
    assert_eq!(open(&files, &owner()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    faults.full.store(false, Ordering::Relaxed);
    let mut writer = open(&files, &owner()).unwrap().writer;
    writer
        .write(vec![append(1, acknowledged..acknowledged + 9, usize::try_from(SEGMENT_BYTES).unwrap() / 10)], None)
        .unwrap();
    let (vote, _, entries, _) = content(&open(&files, &owner()).unwrap()).unwrap();
    assert_eq!((vote, entries.len() as u64), (Some(Vote::new(1, 1)), acknowledged + 9));
}

/// The cache was empty after that, and "empty" was taken for "complete" (audit A7).
#[tokio::test]
async fn entries_are_read_after_more_than_the_cache_was_cut_off() {
    use openraft::{
        RaftLogReader as _,
        storage::{IOFlushed, RaftLogStorage as _},
    };
    let dir = tempfile::tempdir().unwrap();
    create(&files(dir.path()), owner()).unwrap();
    let opened = open_in(dir.path()).unwrap();
    let inner = Inner::read(&opened.writer).unwrap();
    let mut log = LogStore::start(opened.disk.clone(), opened.writer, inner);
    for begin in (0..4000).step_by(500) {
        log.append((begin..begin + 500).map(|index| entry(1, index, 10)), IOFlushed::noop()).await.unwrap();
        // Until it is written.
        log.save_vote(&Vote::new(1, 1)).await.unwrap();
    }
    log.truncate_after(Some(log_id(1, 99))).await.unwrap();
    let indexes = async |log: &mut LogStore| {
        log.try_get_log_entries(0..9999).await.unwrap().iter().map(|e| e.log_id.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(&mut log).await, (0..100).collect::<Vec<_>>());
    log.append((100..110).map(|index| entry(2, index, 10)), IOFlushed::noop()).await.unwrap();
    assert_eq!(indexes(&mut log).await, (0..110).collect::<Vec<_>>());
    log.purge(log_id(1, 49)).await.unwrap();
    assert_eq!(indexes(&mut log).await, (50..110).collect::<Vec<_>>());
}

/// One may be built while another is installed.
#[test]
fn the_newer_snapshot_stays_and_files_of_others_are_gone() {
    let (dir, _writer) = created();
    let opened = open_in(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let snapshots = &opened.snapshots;
            scope.spawn(move || {
                for round in 0..5 {
                    let meta = SnapshotMeta {
                        last_log_id: Some(log_id(1, 1 + round * 4 + writer)),
                        ..SnapshotMeta::default()
                    };
                    snapshots.build(&meta, &State::default()).unwrap();
                    assert!(snapshots.current().unwrap().unwrap().0.last_log_id >= meta.last_log_id);
                }
            });
        }
    });
    assert_eq!(opened.snapshots.last_log_id(), Some(log_id(1, 20)));
    let mut received = opened.snapshots.receive().unwrap();
    assert!(opened.snapshots.receive().is_err(), "one at a time");
    received.push(b"not a state").unwrap();
    assert!(received.finish(None).is_err());
    let left = files(dir.path()).list().unwrap();
    assert_eq!(left.iter().filter(|name| name.starts_with("snapshot-")).count(), 1, "{left:?}");
}

/// A follower that was far behind gets a snapshot of more than its log has, and the log goes on behind it.
#[test]
fn a_log_goes_on_behind_a_snapshot_that_was_installed() {
    let (dir, mut writer) = created();
    writer.write(vec![append(1, 0..5, 100)], None).unwrap();
    drop(writer);
    let Opened { snapshots, mut writer, .. } = open_in(dir.path()).unwrap();
    let meta = SnapshotMeta { last_log_id: Some(log_id(2, 99)), ..SnapshotMeta::default() };
    snapshots.build(&meta, &State::default()).unwrap();
    writer.write(vec![Op::Purge(log_id(2, 99))], None).unwrap();
    drop(writer);
    let opened = open_in(dir.path()).unwrap();
    let empty = content(&opened).unwrap();
    assert_eq!((empty.1, empty.2.len()), (Some(log_id(2, 99)), 0));
    let mut writer = opened.writer;
    writer.write(vec![append(2, 100..103, 100)], None).unwrap();
    writer.tidy().unwrap();
    let (_, _, entries, _) = content(&open_in(dir.path()).unwrap()).unwrap();
    assert_eq!(entries.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [100, 101, 102]);
    // A hole is refused when it is written.
    assert!(writer.write(vec![append(2, 104..105, 100)], None).is_err());
}
