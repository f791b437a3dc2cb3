//! The disk of a simulated host: files that keep their promises ([`Files`]) and none beyond. What was not synced may be
//! lost at a power cut, sector by sector, and so may names; what was synced stays, unless the disk rots.

use futures::future::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::dice::Dice;
use crate::{
    files::{Failure, File, Files, Job, Space},
    rt,
};

/// What a disk writes whole or not at all (`files.rs`).
const SECTOR: usize = 512;
/// What every host has, in all its files.
const CAPACITY: u64 = 64 << 20;

/// Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<Host>>);

#[derive(Debug)]
struct Host {
    dice: Dice,
    /// How often it was started: handles of an earlier life write nothing.
    life: u64,
    /// The power was cut, and the host was not started again.
    off: bool,
    next_inode: u64,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of names, in order.
    renamed: Vec<Naming>,
    failure: Failure,
    /// The power is cut at this operation, counted down.
    cut_in: Option<u64>,
    /// The sync that fails, counted down.
    fail_sync_in: Option<u64>,
    /// How long work on the disk takes.
    slowness: Slowness,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Slowness {
    pub(crate) usual: (Duration, Duration),
    /// In a hundred, and how long.
    pub(crate) stall: (u64, Duration),
}

#[derive(Debug, Clone)]
enum Naming {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

/// A file's bytes as they are read, and as they are on the disk for certain.
#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written since the last sync.
    dirty: BTreeSet<usize>,
}

/// What of the unsynced sectors and names survives a cut of the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing: the disk had written nothing by itself.
    All,
    /// Each sector and each name as chance has it.
    Some,
    /// Only the program ended: everything that it wrote is still there.
    Nothing,
}

impl Disk {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Host {
            dice,
            life: 0,
            off: false,
            next_inode: 1,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            failure: Failure::default(),
            cut_in: None,
            fail_sync_in: None,
            slowness: Slowness::USUAL,
        })))
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files, as this life of the host has them.
    pub(crate) fn files(&self) -> Arc<dyn Files> {
        let life = self.host().life;
        Arc::new(Model { disk: self.clone(), life })
    }

    /// Whether the power was cut by [`Self::cut_at`], or by [`Self::stop`].
    pub(crate) fn is_off(&self) -> bool {
        self.host().off
    }

    pub(crate) fn life(&self) -> u64 {
        self.host().life
    }

    /// The power is cut in the middle of what the host does, before this operation on the disk from now.
    pub(crate) fn cut_at(&self, operation: u64) {
        self.host().cut_in = Some(operation);
    }

    /// This sync from now on fails, with EIO.
    pub(crate) fn fail_sync(&self, nth: u64) {
        self.host().fail_sync_in = Some(nth);
    }

    pub(crate) fn slow(&self, slowness: Slowness) {
        self.host().slowness = slowness;
    }

    /// Nothing more is written by this life.
    pub(crate) fn stop(&self) {
        self.host().off = true;
    }

    /// Starts the host again, with what has survived.
    pub(crate) fn start(&self, loss: Loss) {
        let mut host = self.host();
        host.lose(loss);
        host.life += 1;
        host.off = false;
        host.cut_in = None;
        host.fail_sync_in = None;
        host.failure = Failure::default();
    }

    /// Somebody emptied the directory.
    pub(crate) fn wipe(&self) {
        let mut host = self.host();
        host.names.clear();
        host.durable_names.clear();
        host.files.clear();
        host.renamed.clear();
    }

    /// Everything that is on the disk for certain, on a disk of its own.
    pub(crate) fn certain(&self) -> Disk {
        let host = self.host();
        let copy = Disk::new(Dice::new(0));
        {
            let mut other = copy.host();
            other.next_inode = host.next_inode;
            other.names = host.durable_names.clone();
            other.durable_names = host.durable_names.clone();
            for inode in host.durable_names.values() {
                if let Some(content) = host.files.get(inode) {
                    let bytes = content.durable.clone();
                    other.files.insert(*inode, Content { seen: bytes.clone(), durable: bytes, dirty: BTreeSet::new() });
                }
            }
            other.slowness.usual = (Duration::ZERO, Duration::ZERO);
        }
        copy
    }

    /// The end of a file whose name begins so is gone, durably. False if there is nothing to lose.
    pub(crate) fn cut_tail(&self, prefix: &str) -> bool {
        let mut host = self.host();
        let names: Vec<u64> = host.names.iter().filter(|(n, _)| n.starts_with(prefix)).map(|(_, i)| *i).collect();
        let Some(inode) = names.last().copied() else { return false };
        let len = host.files.get(&inode).map_or(0, Content::used);
        let from = usize::try_from(host.dice.below(len as u64)).unwrap_or(0);
        let Some(content) = host.files.get_mut(&inode) else { return false };
        for bytes in [&mut content.seen, &mut content.durable] {
            for byte in bytes.iter_mut().skip(from) {
                *byte = 0;
            }
        }
        len > 0
    }

    /// It works as a disk should from now on.
    pub(crate) fn calm(&self) {
        let mut host = self.host();
        host.slowness = Slowness::USUAL;
        if !host.off {
            (host.cut_in, host.fail_sync_in) = (None, None);
        }
    }

    /// One bit of a file whose name begins so is another, durably. False if there is no such byte.
    pub(crate) fn flip(&self, prefix: &str) -> bool {
        let mut host = self.host();
        let names: Vec<u64> = host.names.iter().filter(|(n, _)| n.starts_with(prefix)).map(|(_, i)| *i).collect();
        let Some(inode) = host.dice.pick(&names).copied() else { return false };
        let len = host.files.get(&inode).map_or(0, Content::used);
        if len == 0 {
            return false;
        }
        let (at, bit) = (host.dice.below(len as u64), host.dice.below(8));
        let Some(content) = host.files.get_mut(&inode) else { return false };
        let at = usize::try_from(at).unwrap_or(0);
        for bytes in [&mut content.seen, &mut content.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        true
    }
}

impl Host {
    /// Each operation passes here first.
    fn operate(&mut self, life: u64) -> io::Result<()> {
        if self.life == life && !self.off {
            match self.cut_in {
                Some(0) => {
                    self.cut_in = None;
                    self.off = true;
                }
                Some(left) => self.cut_in = Some(left - 1),
                None => {}
            }
        }
        if self.life != life || self.off { Err(io::Error::other("this host has no power")) } else { Ok(()) }
    }

    /// Each sync passes here too.
    fn may_sync(&mut self) -> io::Result<()> {
        match self.fail_sync_in {
            Some(0) => {
                self.fail_sync_in = None;
                Err(io::Error::from_raw_os_error(5))
            }
            Some(left) => {
                self.fail_sync_in = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn inode(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing")))
    }

    fn content(&mut self, inode: u64) -> io::Result<&mut Content> {
        self.files.get_mut(&inode).ok_or_else(|| io::Error::other("the file is gone"))
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|i| self.files.get(i)).map(|c| c.seen.len() as u64).sum()
    }

    fn lose(&mut self, loss: Loss) {
        match loss {
            Loss::Nothing => {}
            Loss::All => {
                self.names = self.durable_names.clone();
                for content in self.files.values_mut() {
                    content.seen.clone_from(&content.durable);
                    content.dirty.clear();
                }
            }
            Loss::Some => {
                self.lose_some_names();
                self.lose_some_sectors();
            }
        }
        if loss != Loss::Nothing {
            self.durable_names = self.names.clone();
            self.renamed.clear();
            let named: BTreeSet<u64> = self.names.values().copied().collect();
            self.files.retain(|inode, _| named.contains(inode));
        }
    }

    /// A journal keeps the first changes; another file system keeps any.
    fn lose_some_names(&mut self) {
        let mut names = self.durable_names.clone();
        let ordered = self.dice.percent(50);
        let first = self.dice.below(self.renamed.len() as u64 + 1);
        for (nth, naming) in (0..).zip(std::mem::take(&mut self.renamed)) {
            if if ordered { nth < first } else { self.dice.percent(50) } {
                match naming {
                    Naming::Create(name, inode) => drop(names.insert(name, inode)),
                    Naming::Rename(from, to) => {
                        if let Some(inode) = names.remove(&from) {
                            names.insert(to, inode);
                        }
                    }
                    Naming::Remove(name) => drop(names.remove(&name)),
                }
            }
        }
        self.names = names;
    }

    fn lose_some_sectors(&mut self) {
        let chance = *self.dice.pick(&[0, 10, 50, 90, 100]).unwrap_or(&50);
        for content in self.files.values_mut() {
            let mut kept = content.durable.clone();
            for sector in std::mem::take(&mut content.dirty) {
                if self.dice.percent(chance) {
                    copy_sector(&content.seen, &mut kept, sector);
                }
            }
            // The length is metadata: it may be there without the bytes.
            if kept.len() < content.seen.len() && self.dice.percent(50) {
                kept.resize(content.seen.len(), 0);
            }
            content.seen.clone_from(&kept);
            content.durable = kept;
        }
    }
}

/// Of one file to another version of it.
fn copy_sector(from: &[u8], to: &mut Vec<u8>, sector: usize) {
    let begin = sector * SECTOR;
    let end = (begin + SECTOR).min(from.len());
    if begin >= end {
        return;
    }
    if to.len() < end {
        to.resize(end, 0);
    }
    to[begin..end].copy_from_slice(&from[begin..end]);
}

impl Slowness {
    const USUAL: Slowness =
        Slowness { usual: (Duration::from_micros(100), Duration::from_millis(3)), stall: (0, Duration::ZERO) };
}

impl Content {
    /// Without the zeros at the end.
    fn used(&self) -> usize {
        self.durable.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(offset / SECTOR..=(end - 1) / SECTOR);
        }
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(&self.seen, &mut self.durable, sector);
        }
        self.durable.resize(self.seen.len(), 0);
    }
}

#[derive(Debug)]
struct Model {
    disk: Disk,
    life: u64,
}

impl Model {
    fn host(&self) -> io::Result<MutexGuard<'_, Host>> {
        let mut host = self.disk.host();
        host.operate(self.life)?;
        Ok(host)
    }

    fn file(&self, inode: u64) -> Arc<dyn File> {
        Arc::new(ModelFile { disk: self.disk.clone(), life: self.life, inode })
    }
}

impl Files for Model {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.host()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.host()?.inode(name)?;
        Ok(self.file(inode))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut host = self.host()?;
        let inode = host.next_inode;
        host.next_inode += 1;
        host.files.insert(inode, Content::default());
        host.names.insert(name.to_owned(), inode);
        host.renamed.push(Naming::Create(name.to_owned(), inode));
        drop(host);
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut host = self.host()?;
        let inode = host.inode(from)?;
        host.names.remove(from);
        host.names.insert(to.to_owned(), inode);
        host.renamed.push(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut host = self.host()?;
        host.inode(name)?;
        host.names.remove(name);
        host.renamed.push(Naming::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut host = self.host()?;
        host.may_sync()?;
        host.durable_names = host.names.clone();
        host.renamed.clear();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let used = self.host()?.used();
        Ok(Space { total_bytes: CAPACITY, free_bytes: CAPACITY.saturating_sub(used) })
    }

    fn failure(&self) -> Failure {
        self.disk.host().failure.clone()
    }

    /// In place, after a while. What a host without power has begun is never done.
    fn work(&self, job: Job) -> BoxFuture<'static, ()> {
        let (disk, life) = (self.disk.clone(), self.life);
        Box::pin(async move {
            let takes = disk.host().takes();
            if takes > Duration::ZERO {
                rt::sleep(takes).await;
            }
            let gone = {
                let host = disk.host();
                host.life != life || host.off
            };
            if gone {
                drop(job);
                std::future::pending::<()>().await;
            } else {
                job();
            }
        })
    }
}

impl Host {
    fn takes(&mut self) -> Duration {
        let Slowness { usual: (least, most), stall: (chance, long) } = self.slowness;
        if self.dice.percent(chance) {
            return long;
        }
        let span = u64::try_from((most - least).as_micros()).unwrap_or(0);
        least + Duration::from_micros(self.dice.below(span + 1))
    }
}

#[derive(Debug)]
struct ModelFile {
    disk: Disk,
    life: u64,
    inode: u64,
}

impl ModelFile {
    fn host(&self) -> io::Result<MutexGuard<'_, Host>> {
        let mut host = self.disk.host();
        host.operate(self.life)?;
        Ok(host)
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl File for ModelFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut host = self.host()?;
        let seen = &host.content(self.inode)?.seen;
        let begin = place(offset)?.min(seen.len());
        let end = (begin + buffer.len()).min(seen.len());
        buffer[..end - begin].copy_from_slice(&seen[begin..end]);
        Ok(end - begin)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.host()?.content(self.inode)?.write(bytes, place(offset)?);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.host()?.content(self.inode)?.seen.len() as u64)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut host = self.host()?;
        let content = host.content(self.inode)?;
        let size = place(size)?.max(content.seen.len());
        content.seen.resize(size, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut host = self.host()?;
        match host.may_sync() {
            Ok(()) => {
                host.content(self.inode)?.sync();
                Ok(())
            }
            Err(error) => {
                // The kernel takes the pages for clean: a later sync says that all is well.
                host.content(self.inode)?.dirty.clear();
                Err(error)
            }
        }
    }
}
