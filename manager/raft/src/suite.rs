//! openraft's own storage suite, on our store.

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use crate::{
    disk::Disk,
    log_store::LogStore,
    machine::{Machine, Shown},
    types::TypeConfig,
};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        Ok((dir, LogStore::open(disk.clone()).unwrap(), Machine::new(disk, Shown::default())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_store_is_what_openraft_expects_of_one() {
    Suite::test_all(Builder).await.unwrap();
}
