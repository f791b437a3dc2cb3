//! The way to a store: it is created once, and opened many times.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    files::{self, Files, Os},
    store::{self, Owner, Refusal},
};

/// Creates an empty store for a host that becomes a manager, durably. If the one that is there was never used, it is
/// kept, and its owner is returned.
pub async fn create(dir: &Path, owner: Owner) -> Result<Owner, OpenError> {
    let files = files_in(dir).await?;
    create_on(dir, &files, owner).await
}

/// As [`create`], on these files.
pub async fn create_on(dir: &Path, files: &Arc<dyn Files>, owner: Owner) -> Result<Owner, OpenError> {
    on_disk(dir, files, move |files| store::create(files, owner)).await
}

pub(crate) async fn files_in(dir: &Path) -> Result<Arc<dyn Files>, OpenError> {
    let path = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || Os::open(&path)).await.map_err(std::io::Error::other);
    let files = opened.and_then(|opened| opened).map_err(|e| OpenError::of(dir, &e))?;
    Ok(Arc::new(files))
}

pub(crate) async fn on_disk<T: Send + 'static>(
    dir: &Path,
    files: &Arc<dyn Files>,
    work: impl FnOnce(&Arc<dyn Files>) -> std::io::Result<T> + Send + 'static,
) -> Result<T, OpenError> {
    let on = Arc::clone(files);
    files::blocking(files, move || work(&on)).await.map_err(|e| match files.failure().get() {
        Some(why) => OpenError::Failed(why),
        None => OpenError::of(dir, &e),
    })
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// To open it could undo what was acknowledged.
    #[error("{}: {refusal}", dir.display())]
    Refused { dir: PathBuf, refusal: Refusal },
    /// It may work later: the disk is full, or cannot be read at the moment.
    #[error("cannot open the store at {}: {why}", dir.display())]
    Store { dir: PathBuf, why: String },
    /// A sync has failed in this process: what the kernel shows of the files may not be what is on the disk.
    #[error("a sync of the store has failed: {0}")]
    Failed(String),
    #[error("Raft does not start: {0}")]
    Raft(String),
}

impl OpenError {
    fn of(dir: &Path, error: &std::io::Error) -> Self {
        let dir = dir.to_owned();
        match store::refusal(error) {
            Some(refusal) => Self::Refused { dir, refusal: refusal.clone() },
            None => Self::Store { dir, why: error.to_string() },
        }
    }
}
