//! The image that the services of the tests run, made without any network: the machine's busybox and three programs.
//!
//! - `serve [PORT]`: HTTP on every address, v4 and v6; `/` answers the container's host name, `/cgi-bin/client` the
//!   address that the request came from. It is well (`/tmp/well` is there) until `/cgi-bin/sicken` is asked for.
//! - `idle`: does nothing until it is told to end.
//! - any applet of busybox, by its name.
//!
//! All end at once on SIGTERM, as a first process does only when it asks for it.

use std::{fs, io, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use tar::{Builder, EntryType, Header};

const BUSYBOX: &str = "/bin/busybox";

const SERVE: &str = r#"#!/bin/sh
trap 'exit 0' TERM INT
hostname > /www/index.html
touch /tmp/well
httpd -f -p "${1:-80}" -h /www &
wait
"#;

// The server's socket is of IPv6, so its peers of IPv4 are [::ffff:ADDRESS].
const CLIENT: &str = r#"#!/bin/sh
from=${REMOTE_ADDR#[}
from=${from%]}
printf 'Content-Type: text/plain\r\n\r\n%s\n' "${from#::ffff:}"
"#;

const SICKEN: &str = r#"#!/bin/sh
rm /tmp/well
printf 'Content-Type: text/plain\r\n\r\nsick\n'
"#;

const IDLE: &str = r#"#!/bin/sh
trap 'exit 0' TERM INT
sleep 86400 &
wait
"#;

/// Writes the root file system as a tar, for `shoal image import`.
pub fn write(path: &Path) -> anyhow::Result<()> {
    let tar = root_file_system()?;
    fs::write(path, tar).with_context(|| format!("write {}", path.display()))
}

fn root_file_system() -> anyhow::Result<Vec<u8>> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX}, of the package busybox-static"))?;
    let applets = Command::new(BUSYBOX).arg("--list").output().with_context(|| format!("run {BUSYBOX}"))?;
    ensure!(applets.status.success(), "{BUSYBOX} --list ended with {}", applets.status);
    let applets = String::from_utf8(applets.stdout)?;

    let mut tar = Builder::new(Vec::new());
    let mut add = |path: &str, kind, mode, bytes: &[u8]| {
        let mut header = header(kind, mode, bytes.len() as u64);
        tar.append_data(&mut header, path, bytes)
    };
    for (path, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("www", 0o755), ("www/cgi-bin", 0o755)] {
        add(path, EntryType::Directory, mode, &[])?;
    }
    add("etc/passwd", EntryType::Regular, 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    add("etc/group", EntryType::Regular, 0o644, b"root:x:0:\n")?;
    add("bin/busybox", EntryType::Regular, 0o755, &busybox)?;
    add("bin/serve", EntryType::Regular, 0o755, SERVE.as_bytes())?;
    add("bin/idle", EntryType::Regular, 0o755, IDLE.as_bytes())?;
    add("www/cgi-bin/client", EntryType::Regular, 0o755, CLIENT.as_bytes())?;
    add("www/cgi-bin/sicken", EntryType::Regular, 0o755, SICKEN.as_bytes())?;
    for applet in applets.lines().filter(|a| *a != "busybox") {
        link(&mut tar, &format!("bin/{applet}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}

fn link(tar: &mut Builder<Vec<u8>>, path: &str, target: &str) -> io::Result<()> {
    tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)
}

/// Of what belongs to root.
fn header(kind: EntryType, mode: u32, size_bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size_bytes);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By a second reader, and by running what it holds.
    #[test]
    fn the_image_holds_programs_that_run_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("image.tar");
        write(&tar).unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let untar = Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&root).status().unwrap();
        assert!(untar.success());
        let run = Command::new("chroot").arg(&root).args(["sh", "-c", "ls /bin/serve /bin/idle | wc -l"]).output();
        assert_eq!(String::from_utf8(run.unwrap().stdout).unwrap().trim(), "2");
        for (remote, address) in
            [("[::ffff:192.0.2.7]", "192.0.2.7"), ("[fd00::7]", "fd00::7"), ("192.0.2.7", "192.0.2.7")]
        {
            let page = Command::new("chroot").arg(&root).arg("/www/cgi-bin/client").env("REMOTE_ADDR", remote).output();
            assert_eq!(String::from_utf8(page.unwrap().stdout).unwrap().lines().last(), Some(address));
        }
    }
}
