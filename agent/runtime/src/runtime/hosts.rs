//! What a container that runs is called, where, and what others are.

use super::{Runtime, blocking};
use crate::{Error, hosts};

impl Runtime {
    /// Makes `lines` those of ours in its `/etc/hosts`; what the container wrote there itself stays. Nothing is written
    /// if they are.
    pub async fn set_hosts(&self, id: &str, lines: Vec<String>) -> Result<(), Error> {
        let record = self.running(id)?;
        let dir = self.dir(&record.id);
        blocking("write a container's hosts", move || {
            hosts::set(&record.hosts, &dir, &lines).map_err(Error::file("write the lines of", dir.at(hosts::FILE)))
        })
        .await
    }
}
