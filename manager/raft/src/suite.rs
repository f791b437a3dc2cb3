//! openraft's own storage suite, on our store.

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;

use crate::{
    files::{Files, Os},
    log_store::{Inner, LogStore},
    machine::{Machine, Shown},
    store::{self, Owner},
    types::TypeConfig,
};

pub(crate) fn owner() -> Owner {
    Owner { cluster: "c0ffee".to_owned(), node: 1, incarnation: "1".to_owned() }
}

/// The store in that directory, which is created if it is not there.
pub(crate) fn open(dir: &Path) -> (LogStore, Machine) {
    let files: Arc<dyn Files> = Arc::new(Os::open(dir).unwrap());
    if files.list().unwrap().is_empty() {
        store::create(&files, owner()).unwrap();
    }
    let opened = store::open(&files, &owner()).unwrap();
    let inner = Inner::read(&opened.writer).unwrap();
    let log = LogStore::start(opened.disk.clone(), opened.writer, inner);
    (log, Machine::new(opened.disk, opened.snapshots, Shown::default()))
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = open(dir.path());
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_store_is_what_openraft_expects_of_one() {
    Suite::test_all(Builder).await.unwrap();
}
