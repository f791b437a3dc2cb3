//! What cannot be read is moved aside and reported. It is never deleted: what one version of this program cannot read,
//! a person or another version may.
//!
//! On disk: `DATA/set-aside/containers/ID.unreadable-TIME` (the whole directory of a container, with a file `why`) and
//! `DATA/set-aside/images/NAME.unreadable-TIME`.

use shoal_rt::durable;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::Error;

/// As [`durable::set_aside_in`] names what it moves.
const MARK: &str = ".unreadable-";

/// In the directory of a container that was set aside: the reason.
const WHY: &str = "why";

/// The files of a container that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where they are now.
    pub path: PathBuf,
    pub why: String,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, why } = self;
        write!(f, "its files on this host could not be read and were set aside in {}: {why}", path.display())
    }
}

/// Moves the directory of a container to `dir`.
pub(crate) fn container(dir: &Path, container: &Path, why: &str) -> Result<SetAside, Error> {
    let path = durable::set_aside_in(container, dir).map_err(Error::Durable)?;
    // The reason is also in the log, so its lack costs no more than a word.
    let _ = fs::write(path.join(WHY), why);
    tracing::error!(from = %container.display(), to = %path.display(), why, "a container cannot be read: its files were set aside");
    Ok(SetAside { path, why: why.to_owned() })
}

/// Moves a file to `dir`.
pub(crate) fn file(dir: &Path, file: &Path, why: &str) -> Result<PathBuf, Error> {
    let path = durable::set_aside_in(file, dir).map_err(Error::Durable)?;
    tracing::error!(from = %file.display(), to = %path.display(), why, "a file cannot be read: it was set aside");
    Ok(path)
}

/// Renames a file, where it is.
pub(crate) fn in_place(file: &Path, why: &str) -> Result<(), Error> {
    let path = durable::set_aside(file).map_err(Error::Durable)?;
    tracing::error!(from = %file.display(), to = %path.display(), why, "a file cannot be read: it was set aside");
    Ok(())
}

/// The containers in `dir` by their ids. Of several of one id the latest.
pub(crate) fn containers(dir: &Path) -> Result<BTreeMap<String, SetAside>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(Error::file("read", dir)(e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(Error::file("read", dir))?.path());
    }
    paths.sort();
    let one = |path: PathBuf| {
        let (id, _) = path.file_name()?.to_str()?.rsplit_once(MARK)?;
        let why = fs::read_to_string(path.join(WHY)).unwrap_or_else(|_| "the log of that time says why".to_owned());
        Some((id.to_owned(), SetAside { path, why }))
    };
    Ok(paths.into_iter().filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_found_by_its_id_and_nothing_is_overwritten() {
        let host = tempfile::tempdir().unwrap();
        let aside = host.path().join("set-aside");
        assert!(containers(&aside).unwrap().is_empty());
        for n in 0..3 {
            let dir = host.path().join("task-7");
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("data"), n.to_string()).unwrap();
            container(&aside, &dir, &format!("reason {n}")).unwrap();
            assert!(!dir.exists());
        }
        assert_eq!(fs::read_dir(&aside).unwrap().count(), 3);
        let found = containers(&aside).unwrap();
        let [(id, set_aside)] = found.iter().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
        assert_eq!((id.as_str(), set_aside.why.as_str()), ("task-7", "reason 2"));
        assert_eq!(fs::read_to_string(set_aside.path.join("data")).unwrap(), "2");
        assert!(set_aside.to_string().contains(set_aside.path.to_str().unwrap()));
    }
}
