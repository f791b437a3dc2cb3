//! Files that are either the old or the new, never half.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use crate::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Survives a power cut once written.
    Yes,
    /// Whole or absent for every reader, but a power cut may take it.
    No,
}

/// Replaces `path`. Two writers of the same path at the same time are not expected.
pub(crate) fn write(path: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    if durable == Durable::Yes {
        file.sync_data()?;
    }
    fs::rename(&new, path)?;
    if durable == Durable::Yes
        && let Some(dir) = path.parent()
    {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, durable: Durable) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::File {
        doing: "put into JSON what belongs into",
        path: path.to_owned(),
        source: e.into(),
    })?;
    write(path, &bytes, durable).map_err(Error::file("write", path))
}

/// `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Garbled {
            what,
            path: path.to_owned(),
            source,
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { doing: "read", path: path.to_owned(), source }),
    }
}
