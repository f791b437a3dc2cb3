//! The volumes of this host, and who uses them.

use std::collections::BTreeMap;

use super::{Entry, Runtime, blocking};
use crate::{Error, MountSource, Volume, volumes};

impl Runtime {
    /// All volumes, in the order of their names.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let this = self.clone();
        blocking("list volumes", move || {
            let dir = this.volumes_dir();
            let names = volumes::names(&dir)?;
            let containers = this.containers();
            let volume = |name: String| Volume { path: dir.join(&name), used_by: users(&containers, &name), name };
            Ok(names.into_iter().map(volume).collect())
        })
        .await
    }

    /// Makes an empty volume. Nothing to do if it is there.
    pub async fn create_volume(&self, name: &str) -> Result<Volume, Error> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking("make a volume", move || {
            let containers = this.containers();
            let path = volumes::make(&this.volumes_dir(), &name)?;
            Ok(Volume { path, used_by: users(&containers, &name), name })
        })
        .await
    }

    /// Removes a volume and all that is in it; refused while it is mounted in a container, run or not.
    pub async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking("remove a volume", move || {
            let aside = {
                // The lock keeps a container from being started with it meanwhile.
                let containers = this.containers();
                if let Some(container) = users(&containers, &name).into_iter().next() {
                    return Err(Error::VolumeInUse { volume: name, container });
                }
                volumes::remove(&this.volumes_dir(), &name)?
            };
            drop(aside);
            Ok(())
        })
        .await
    }
}

/// The containers that a volume is mounted in.
fn users(containers: &BTreeMap<String, Entry>, volume: &str) -> Vec<String> {
    let mounted = |e: &&Entry| {
        e.record.options.mounts.iter().any(|m| matches!(&m.source, MountSource::Volume(name) if name == volume))
    };
    containers.values().filter(mounted).map(|e| e.record.id.clone()).collect()
}
