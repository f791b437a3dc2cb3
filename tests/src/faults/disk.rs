//! A disk for one lab host: ext4 in an image file, whose power can be cut.
//!
//! The cut is the kernel's own (`EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`, as xfstests uses it): from that moment on all
//! I/O fails, and what was not yet in the journal is lost. The host boots with a copy of the image, whose journal is
//! recovered when it is mounted. (A copy, because some other mount namespace of this machine may still have the old
//! file system mounted, and the kernel would give us that one again.)

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::Lab;

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`; 2 is `EXT4_GOING_FLAGS_NOLOGFLUSH` (fs/ext4/ext4.h).
const CUT: &str = r#"use Fcntl; sysopen(my $dir, $ARGV[0], O_RDONLY) or die "open: $!"; my $flags = pack("L", 2);
ioctl($dir, 0x8004587d, $flags) or die "ioctl: $!";"#;

/// Where a host's daemon keeps everything. Its host must be off while the disk is plugged in or out.
#[derive(Debug)]
pub struct Disk {
    images: PathBuf,
    host: String,
    /// How often it was replaced by its copy.
    copies: Cell<u32>,
    data: PathBuf,
}

impl Disk {
    /// Moves what the host has onto a disk of that size. The host is off.
    pub fn new(lab: &Lab, host: &str, megabytes: u32, images: &Path) -> anyhow::Result<Self> {
        let data = lab.data(host)?.to_owned();
        let disk = Self { images: images.to_owned(), host: host.to_owned(), copies: Cell::new(0), data };
        run("truncate", [format!("--size={megabytes}M").as_ref(), disk.image().as_os_str()])?;
        run("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), disk.image().as_os_str()])?;
        let filling = images.join(format!("{host}.mount"));
        fs::create_dir_all(&filling)?;
        mount(&disk.image(), &filling)?;
        let copied = run("cp", ["-a".into(), disk.data.join("."), filling.clone()]);
        run("umount", [&filling])?;
        copied?;
        mount(&disk.image(), &disk.data)?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.images.join(format!("{}-{}.ext4", self.host, self.copies.get()))
    }

    /// Now. Whoever uses it gets EIO from here on.
    pub fn cut(&self) -> anyhow::Result<()> {
        run("perl", ["-e".as_ref(), CUT.as_ref(), self.data.as_os_str()])
    }

    /// What a boot finds after the cut. The host is off.
    pub fn recover(&self) -> anyhow::Result<()> {
        let old = self.image();
        self.copies.set(self.copies.get() + 1);
        run("cp", ["--sparse=always".as_ref(), old.as_os_str(), self.image().as_os_str()])?;
        fs::remove_file(&old)?;
        run("umount", ["--lazy".as_ref(), self.data.as_os_str()])?;
        mount(&self.image(), &self.data)
    }

    /// Takes all free space. Gives the file that does so.
    pub fn fill(&self) -> anyhow::Result<PathBuf> {
        let filler = self.data.join("filler");
        // It ends with ENOSPC, as it should.
        let _ = Command::new("dd")
            .args(["if=/dev/zero", "bs=64k", "conv=fsync"])
            .arg(format!("of={}", filler.display()))
            .output()?;
        let _ = Command::new("dd")
            .args(["if=/dev/zero", "bs=1k", "conv=fsync", "oflag=append", "conv=notrunc"])
            .arg(format!("of={}", filler.display()))
            .output()?;
        ensure!(filler.metadata()?.len() > 0, "nothing was free at {}", self.data.display());
        Ok(filler)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever happened, nothing of it stays mounted.
        let _ = Command::new("umount").arg("--lazy").arg(&self.data).output();
    }
}

fn mount(image: &Path, at: &Path) -> anyhow::Result<()> {
    run("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), at.as_os_str()])
}

fn run(program: &str, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> anyhow::Result<()> {
    let ended = Command::new(program).args(args).output().with_context(|| format!("run {program}"))?;
    ensure!(ended.status.success(), "{program}: {}", String::from_utf8_lossy(&ended.stderr).trim());
    Ok(())
}
