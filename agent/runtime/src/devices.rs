//! The devices of this host, which a privileged container is given.

use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Directories of `/dev` that a container has of its own.
const OWN: &[&str] = &["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.udev", "/dev/lxc"];
/// Nodes that a container has of its own.
const OWN_NODES: &[&str] = &["/dev/console", "/dev/ptmx"];

/// How deep `/dev` is looked through: `/dev/bus/usb/001/002` is the deepest there is.
const DEPTH: usize = 4;

/// In the words of the OCI specification. What cannot be read is left out.
pub(crate) fn of_host() -> Vec<Value> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), DEPTH, &mut found);
    found
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<Value>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let is_one_of = |own: &[&str]| own.iter().any(|own| path == Path::new(own));
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = metadata.file_type();
        if kind.is_dir() && depth > 1 && !is_one_of(OWN) {
            collect(&path, depth - 1, found);
        } else if (kind.is_char_device() || kind.is_block_device()) && !is_one_of(OWN_NODES) && path.to_str().is_some()
        {
            found.push(json!({
                "path": path,
                "type": if kind.is_char_device() { "c" } else { "b" },
                "major": rustix::fs::major(metadata.rdev()),
                "minor": rustix::fs::minor(metadata.rdev()),
                "fileMode": metadata.mode() & 0o7777,
                "uid": metadata.uid(),
                "gid": metadata.gid(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_their_numbers() {
        let null = of_host().into_iter().find(|d| d["path"] == "/dev/null").unwrap();
        assert_eq!((&null["type"], &null["major"], &null["minor"]), (&json!("c"), &json!(1), &json!(3)));
    }
}
