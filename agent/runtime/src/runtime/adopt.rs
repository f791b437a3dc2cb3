//! What an earlier daemon left: containers that run, that ended, that were being removed, and that cannot be read.

use std::{fs, path::PathBuf, sync::Arc};

use super::{Entry, Runtime, remove_all, used};
use crate::{
    Error, aside, cgroup,
    locked::lock,
    record::{Dir, RECORD, Record},
    supervise::chain,
};

impl Runtime {
    /// Reads all containers from disk. One that cannot be read keeps no other from being adopted.
    pub(super) fn adopt(&self) -> Result<(), Error> {
        *lock(&self.0.set_aside) = aside::containers(&self.set_aside_dir())?;
        let root = self.0.config.data_dir.join("containers");
        for entry in fs::read_dir(&root).map_err(Error::file("read", &root))? {
            let dir = Dir(entry.map_err(Error::file("read", &root))?.path());
            let name = dir.path().file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            match readable(&dir, &name) {
                Ok(Some(record)) => {
                    self.containers().insert(name.clone(), Entry::new(Arc::new(record)));
                    if let Err(e) = self.look(&name) {
                        // It is looked at again, as all are.
                        tracing::error!(container = name, error = %e, "cannot tell what became of a container");
                    }
                }
                Ok(None) => remove_all(dir.path())?,
                Err(why) => self.put_aside(&dir, name, &why)?,
            }
        }
        for entry in fs::read_dir(self.removing_dir()).map_err(Error::file("read", self.removing_dir()))?.flatten() {
            remove_all(&entry.path())?;
        }
        // Also what an earlier daemon had no time to sweep.
        let swept = self.0.images.sweep(&used(&self.containers()))?;
        drop(swept);
        Ok(())
    }

    fn put_aside(&self, dir: &Dir, id: String, why: &str) -> Result<(), Error> {
        // Nobody could stop it any more, and its supervisor would write to where its files were.
        if self.0.locks.is_held(&id).map_err(Error::file("look at", self.0.locks.path(&id)))? {
            tracing::error!(container = id, why, "a container that runs cannot be read: it is ended");
        }
        cgroup::remove(&self.cgroup(&id))?;
        let set_aside = aside::container(&self.set_aside_dir(), dir.path(), why)?;
        lock(&self.0.set_aside).insert(id, set_aside);
        Ok(())
    }

    fn set_aside_dir(&self) -> PathBuf {
        self.0.config.data_dir.join("set-aside").join("containers")
    }
}

/// None: its making was interrupted before there was anything.
fn readable(dir: &Dir, name: &str) -> Result<Option<Record>, String> {
    match dir.record() {
        Ok(Some(record)) if record.id == name => Ok(Some(record)),
        Ok(Some(record)) => Err(format!("its {RECORD} is that of container {}", record.id)),
        Ok(None) => match dir.is_empty() {
            Ok(true) => Ok(None),
            Ok(false) => Err(format!("its {RECORD} is missing")),
            Err(e) => Err(format!("its directory cannot be read: {e}")),
        },
        Err(Error::Garbled { source, .. }) => Err(format!("its {RECORD} is damaged: {source}")),
        Err(e) => Err(chain(&e)),
    }
}
