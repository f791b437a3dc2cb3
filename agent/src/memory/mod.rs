//! The last assignment, on disk: so that a restarted daemon goes on serving while no manager answers, and never acts
//! on less than it has acted on.
//!
//! Two things are kept. The *rows* are the assignment itself; they may be lost, and then the host waits for a manager.
//! The *mark* is the generation that the host has acted on; it is stored before anything is acted on, and what cannot
//! be marked is not acted on. Rows that are behind the mark are not used: a host never goes back.
//!
//! What cannot be read is moved aside and reported, in the log and by `shoal info`.

mod mark;
mod rows;

use shoal_common::{
    Generation, NodeId,
    assignment::{Assignment, AssignmentDelta},
};
use shoal_rt::durable;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::chain;
use mark::Mark;
use rows::Rows;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(durable::Error),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot encode an assignment to be remembered: {0}")]
    Encode(String),
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
}

/// Where the last assignment is kept. Clones are the same memory.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// Held while writing: a session that was cut off may still be at it when the next one begins.
    disk: Mutex<Disk>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Disk {
    mark: Mark,
    rows: Option<Rows>,
    /// What the rows are; `None`: they must be written whole.
    held: Option<Generation>,
    /// Of what was stored last by this process.
    stored: Generation,
    /// Damaged rows were replaced by empty ones.
    replaced: bool,
}

/// What an operator must hear of.
#[derive(Debug, Default)]
struct Told {
    /// Found at the start; stays until the daemon ends.
    damage: Option<String>,
    /// Of the last store.
    failure: Option<String>,
}

impl Memory {
    pub(crate) fn new(data_dir: &Path) -> Self {
        let disk =
            Disk { mark: Mark::new(data_dir), rows: None, held: None, stored: Generation::default(), replaced: false };
        Self(Arc::new(Inner { dir: data_dir.to_owned(), disk: Mutex::new(disk), told: Mutex::default() }))
    }

    /// What to start from: the assignment that was stored last, if it is of this node and whole; else an empty one, at
    /// the generation that was acted on, so that no manager that is behind it is believed. Blocks.
    pub(crate) fn load(&self, node: NodeId) -> Assignment {
        let mut disk = self.disk();
        let marked = match disk.mark.load(node) {
            Ok(marked) => marked,
            Err(error) => {
                self.set_aside(disk.mark.path(), &error);
                None
            }
        };
        self.set_aside_older();
        let (rows, found) = match self.read() {
            // One that left its cluster and joined another starts with nothing.
            Ok((rows, found)) => (Some(rows), found.filter(|a| a.node.as_ref().is_some_and(|n| n.id == node))),
            Err(error) if rows::is_locked(&error) => {
                self.damage(chain(&error));
                (None, None)
            }
            Err(error) => {
                self.set_aside(&self.rows_dir(), &error);
                disk.replaced = true;
                (None, None)
            }
        };
        disk.rows = rows;
        disk.stored = marked.unwrap_or_default();
        match found {
            Some(found) if found.generation >= disk.stored => {
                disk.held = Some(found.generation);
                disk.stored = found.generation;
                return found;
            }
            Some(behind) => self.damage(format!(
                "the remembered assignment is of generation {}, and this host has acted on {}: it waits for a manager",
                behind.generation, disk.stored
            )),
            // Marked, and no rows: they were set aside above, or the disk was full when they were to be written.
            None if disk.stored > Generation::default() => {
                self.damage(format!(
                    "this host starts without its last assignment ({}), and waits for one",
                    disk.stored
                ));
            }
            None => {}
        }
        Assignment { generation: disk.stored, ..Assignment::default() }
    }

    /// Durable before it returns; less than was stored is not stored. An error means that `now` must not be acted on.
    /// A full disk is none: the mark has its place already, and without its rows the host waits for a manager after a
    /// restart. Blocks.
    pub(crate) fn store(&self, now: &Assignment, delta: &AssignmentDelta) -> Result<(), Error> {
        let mut disk = self.disk();
        if now.generation < disk.stored {
            return Ok(());
        }
        let written = self.write(&mut disk, now, delta);
        if let Err(error) = &written {
            disk.held = None;
            tracing::error!(error = chain(error), "this assignment would not survive a restart");
        }
        self.told().failure = written.err().map(|e| format!("the assignment cannot be remembered: {}", chain(&e)));
        if let Some(node) = &now.node {
            disk.mark.store(node.id, now.generation)?;
        }
        disk.stored = now.generation;
        Ok(())
    }

    fn write(&self, disk: &mut Disk, now: &Assignment, delta: &AssignmentDelta) -> Result<(), Error> {
        let rows = match disk.rows.take() {
            Some(rows) => rows,
            None => match Rows::open(&self.rows_dir()) {
                // Only what this process wrote is in it.
                Err(Error::Damaged { .. }) if std::mem::replace(&mut disk.replaced, true) => {
                    let dir = self.rows_dir();
                    fs::remove_dir_all(&dir).map_err(|source| Error::Write { path: dir.clone(), source })?;
                    Rows::open(&dir)?
                }
                Err(error @ Error::Damaged { .. }) => {
                    self.set_aside(&self.rows_dir(), &error);
                    Rows::open(&self.rows_dir())?
                }
                opened => opened?,
            },
        };
        let written = if disk.held == Some(delta.from) { rows.change(delta, now) } else { rows.replace(now) };
        match &written {
            Ok(()) => disk.held = Some(now.generation),
            // Nothing more is written there. It is opened again at the next change, and damage is found then.
            Err(_) => return written,
        }
        disk.rows = Some(rows);
        Ok(())
    }

    /// What is wrong with it, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        let told = self.told();
        let all: Vec<&str> = told.damage.iter().chain(&told.failure).map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    pub(crate) fn forget(&self) -> Result<(), Error> {
        let mut disk = self.disk();
        // sled holds the files of its directory until it is dropped.
        (disk.rows, disk.held, disk.stored) = (None, None, Generation::default());
        *self.told() = Told::default();
        let dir = self.rows_dir();
        match fs::remove_dir_all(&dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error::Write { path: dir, source }),
            Ok(()) | Err(_) => {}
        }
        // Last: rows without a mark would be believed.
        disk.mark.forget()
    }

    fn read(&self) -> Result<(Rows, Option<Assignment>), Error> {
        let rows = Rows::open(&self.rows_dir())?;
        let found = rows.read()?;
        Ok((rows, found))
    }

    fn rows_dir(&self) -> PathBuf {
        self.0.dir.join("memory")
    }

    /// Before rows there was one file.
    fn set_aside_older(&self) {
        let older = self.0.dir.join("assignment");
        if older.exists() {
            let why = "an older version of Shoal wrote it".to_owned();
            self.set_aside(&older, &Error::Damaged { path: older.clone(), why });
        }
    }

    fn set_aside(&self, path: &Path, error: &Error) {
        let what = chain(error);
        self.damage(match durable::set_aside(path) {
            Ok(to) => format!("{what}; it is kept as {}", to.display()),
            Err(e) => format!("{what}; and it cannot be moved aside: {}", chain(&e)),
        });
    }

    fn damage(&self, what: String) {
        tracing::error!("{what}");
        let damage = &mut self.told().damage;
        *damage = Some(damage.take().map_or(what.clone(), |before| format!("{before}; {what}")));
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn store(memory: &Memory, before: &Assignment, now: Assignment) -> Assignment {
        memory.store(&now, &AssignmentDelta::between(before, &now)).unwrap();
        now
    }

    fn restarted(dir: &Path) -> Assignment {
        Memory::new(dir).load(fixture::HERE)
    }

    #[test]
    fn what_was_stored_last_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        let mut held = memory.load(fixture::HERE);
        assert_eq!(held, Assignment::default());
        for (generation, tasks) in [(3, &[1, 2][..]), (5, &[2]), (6, &[2, 3, 4]), (7, &[])] {
            held = store(&memory, &held, fixture::assignment(generation, tasks));
        }
        store(&memory, &held, fixture::assignment(4, &[1]));
        drop(memory);
        let memory = Memory::new(dir.path());
        assert_eq!(memory.load(fixture::HERE), held);
        // Changes go on from what was loaded.
        held = store(&memory, &held, fixture::assignment(8, &[5]));
        assert_eq!(memory.problem(), None);
        drop(memory);
        let memory = Memory::new(dir.path());
        assert_eq!(memory.load(fixture::HERE), held);
        memory.forget().unwrap();
        memory.forget().unwrap();
        assert_eq!(memory.load(fixture::HERE), Assignment::default());
    }

    #[test]
    fn another_nodes_assignment_is_none_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        store(&Memory::new(dir.path()), &Assignment::default(), fixture::assignment(3, &[1]));
        assert_eq!(Memory::new(dir.path()).load(fixture::ELSEWHERE), Assignment::default());
    }

    #[test]
    fn rows_that_are_damaged_are_kept_aside_and_the_host_still_takes_nothing_older() {
        for spoil in [
            |dir: &Path| fs::write(dir.join("memory/db"), b"nonsense").unwrap(),
            |dir: &Path| fs::File::options().write(true).open(dir.join("memory/db")).unwrap().set_len(512).unwrap(),
            |dir: &Path| fs::remove_dir_all(dir.join("memory")).unwrap(),
        ] {
            let dir = tempfile::tempdir().unwrap();
            store(&Memory::new(dir.path()), &Assignment::default(), fixture::assignment(7, &[1, 2]));
            spoil(dir.path());
            let memory = Memory::new(dir.path());
            let found = memory.load(fixture::HERE);
            assert_eq!(found, Assignment { generation: Generation(7), ..Assignment::default() });
            let mut older = found.clone();
            assert!(older.replace(fixture::assignment(6, &[1])).is_err());
            let problem = memory.problem().unwrap();
            assert!(problem.contains("without its last assignment (7)"), "{problem}");
            store(&memory, &found, fixture::assignment(8, &[2]));
            drop(memory);
            assert_eq!(restarted(dir.path()), fixture::assignment(8, &[2]));
        }
    }

    #[test]
    fn rows_that_are_behind_what_was_acted_on_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        let held = store(&memory, &Assignment::default(), fixture::assignment(7, &[1, 2]));
        // As on a full disk: the mark has its place, new rows have none.
        memory.disk().mark.store(fixture::HERE, Generation(9)).unwrap();
        drop(memory);
        assert_eq!(restarted(dir.path()), Assignment { generation: Generation(9), ..Assignment::default() });
        drop(held);
    }

    #[test]
    fn a_mark_that_is_damaged_is_kept_aside_and_the_rows_count() {
        let dir = tempfile::tempdir().unwrap();
        store(&Memory::new(dir.path()), &Assignment::default(), fixture::assignment(7, &[1]));
        fs::write(dir.path().join("generation"), b"nonsense").unwrap();
        fs::write(dir.path().join("assignment"), b"as an older version wrote it").unwrap();
        let memory = Memory::new(dir.path());
        assert_eq!(memory.load(fixture::HERE), fixture::assignment(7, &[1]));
        let problem = memory.problem().unwrap();
        assert!(problem.contains("generation.unreadable-") && problem.contains("assignment.unreadable-"), "{problem}");
    }
}
