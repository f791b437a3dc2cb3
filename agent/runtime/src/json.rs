//! JSON files of the runtime, each one durable and whole.

use serde::{Serialize, de::DeserializeOwned};
use shoal_rt::durable;
use std::path::Path;

use crate::Error;

pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::File {
        doing: "put into JSON what belongs into",
        path: path.to_owned(),
        source: e.into(),
    })?;
    durable::replace(path, &bytes).map_err(Error::Durable)
}

/// `None` when there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<Option<T>, Error> {
    let Some(bytes) = durable::read(path).map_err(Error::Durable)? else { return Ok(None) };
    let garbled = |source| Error::Garbled { what, path: path.to_owned(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(garbled)
}
