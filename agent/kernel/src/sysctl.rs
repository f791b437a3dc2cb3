//! Sysctls below `net`. `/proc/sys/net` shows the namespace of the thread that opens a file in it.

use std::{collections::BTreeMap, fs, io, os::unix::fs::FileExt, path::PathBuf};

/// Those that we look at are one or two numbers.
const VALUE_BYTES: usize = 128;

/// The file of a sysctl, whose name is written as the kernel's documentation does, or with slashes, as
/// `sysctl(8)` takes it for links with a dot in their name.
fn file(name: &str) -> PathBuf {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    PathBuf::from("/proc/sys").join(path.trim_start_matches('/'))
}

/// Sysctls of one namespace, open: they show that namespace's values to whoever reads them, and finding them by name
/// costs more the more namespaces there are, because all have files of the same names.
#[derive(Debug, Default)]
pub(crate) struct Open(BTreeMap<String, fs::File>);

impl Open {
    /// Opens those that this kernel has, in the calling thread's namespace.
    pub(crate) fn find(names: &[String]) -> io::Result<Self> {
        let mut open = BTreeMap::new();
        for name in names {
            match fs::File::open(file(name)) {
                Ok(file) => drop(open.insert(name.clone(), file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(open))
    }

    /// Whether all of these are open.
    pub(crate) fn has(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.0.contains_key(name))
    }

    /// What they are now. One that went with its link is left out.
    pub(crate) fn read(&self) -> io::Result<BTreeMap<String, String>> {
        let mut values = BTreeMap::new();
        for (name, file) in &self.0 {
            let mut value = [0; VALUE_BYTES];
            match file.read_at(&mut value, 0) {
                Ok(length) => {
                    let value = String::from_utf8_lossy(&value[..length]).trim_end().to_owned();
                    values.insert(name.clone(), value);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(values)
    }
}

/// Sets the value in the calling thread's namespace.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(file(name), value)
}
