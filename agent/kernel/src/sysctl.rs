//! Sysctls below `net`. `/proc/sys/net` shows the namespace of the thread that opens a file in it.

use std::{fs, io, path::PathBuf};

/// The file of a sysctl, whose name is written as the kernel's documentation does, or with slashes, as
/// `sysctl(8)` takes it for links with a dot in their name.
fn file(name: &str) -> PathBuf {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    PathBuf::from("/proc/sys").join(path.trim_start_matches('/'))
}

/// The value in the calling thread's namespace; nothing if this kernel or namespace has no such sysctl.
pub(crate) fn read(name: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(file(name)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the value in the calling thread's namespace.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(file(name), value)
}
