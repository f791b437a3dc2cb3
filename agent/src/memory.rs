//! The last assignment, on disk: so that a restarted daemon goes on serving while no manager answers, and never acts
//! on less than it has acted on.

use shoal_common::{Generation, NodeId, assignment::Assignment};
use shoal_rt::durable;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Leads the file. Another number, another meaning of what follows: then it is not read.
const FORMAT: u32 = 2;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(durable::Error),
    #[error("the remembered assignment {} is cut short", path.display())]
    Short { path: PathBuf },
    #[error("cannot encode an assignment to be remembered")]
    Encode(#[source] rmp_serde::encode::Error),
    #[error("the remembered assignment {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: rmp_serde::decode::Error,
    },
    #[error("the remembered assignment {} has format {found}, and this version reads format {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
}

/// Where the last assignment is kept. Clones are the same file.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    path: PathBuf,
    /// Of what was stored last by this process. Held while writing: a session that was cut off may still be at it
    /// when the next one begins.
    stored: Arc<Mutex<Generation>>,
}

impl Memory {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("assignment"), stored: Arc::default() }
    }

    /// What was last stored, if it is of this node: one that left its cluster and joined another starts anew.
    pub(crate) fn load(&self, node: NodeId) -> Result<Option<Assignment>, Error> {
        let Some(bytes) = durable::read(&self.path).map_err(Error::File)? else { return Ok(None) };
        let (head, body) = bytes.split_first_chunk::<4>().ok_or_else(|| Error::Short { path: self.path.clone() })?;
        let found = u32::from_be_bytes(*head);
        if found != FORMAT {
            return Err(Error::Format { path: self.path.clone(), found });
        }
        let assignment: Assignment =
            rmp_serde::from_slice(body).map_err(|source| Error::Damaged { path: self.path.clone(), source })?;
        Ok(Some(assignment).filter(|a| a.node.as_ref().is_some_and(|n| n.id == node)))
    }

    /// Durable before it returns; a reader sees the old file or the new one. Less than was stored is not stored.
    pub(crate) fn store(&self, assignment: &Assignment) -> Result<(), Error> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if assignment.generation < *stored {
            return Ok(());
        }
        let mut bytes = FORMAT.to_be_bytes().to_vec();
        rmp_serde::encode::write_named(&mut bytes, assignment).map_err(Error::Encode)?;
        durable::replace(&self.path, &bytes).map_err(Error::File)?;
        *stored = assignment.generation;
        Ok(())
    }

    pub(crate) fn forget(&self) -> Result<(), Error> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        *stored = Generation::default();
        durable::remove(&self.path).map_err(Error::File)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use std::fs;

    #[test]
    fn what_was_stored_last_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        assert_eq!(memory.load(fixture::HERE).unwrap(), None);
        for generation in [3, 5, 4] {
            memory.store(&fixture::assignment(generation, &[1, 2])).unwrap();
        }
        assert_eq!(memory.load(fixture::HERE).unwrap(), Some(fixture::assignment(5, &[1, 2])));
        memory.forget().unwrap();
        memory.forget().unwrap();
        assert_eq!(memory.load(fixture::HERE).unwrap(), None);
    }

    #[test]
    fn another_nodes_assignment_is_none_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        memory.store(&fixture::assignment(3, &[1])).unwrap();
        assert_eq!(memory.load(fixture::ELSEWHERE).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        fs::write(&memory.path, b"").unwrap();
        assert!(matches!(memory.load(fixture::HERE), Err(Error::Short { .. })));
        fs::write(&memory.path, [0, 0, 0, 9, 1, 2, 3]).unwrap();
        assert!(matches!(memory.load(fixture::HERE), Err(Error::Format { found: 9, .. })));
        memory.store(&fixture::assignment(3, &[1, 2])).unwrap();
        let whole = fs::read(&memory.path).unwrap();
        fs::write(&memory.path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(memory.load(fixture::HERE), Err(Error::Damaged { .. })));
    }
}
