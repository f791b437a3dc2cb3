//! A disk that a container fills: how it ended is known all the same, and what of its output is lost is said.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use common::{Host, busybox, run, within};

struct Disk(std::path::PathBuf);

impl Disk {
    fn new(at: &std::path::Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "shoal-test", at.to_str().unwrap()]);
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", self.0.to_str().unwrap()]).status();
    }
}

#[tokio::test]
async fn a_job_that_filled_the_disk_and_succeeded_has_succeeded() {
    let host = Host::new();
    let disk = Disk::new(&host.config().data_dir, "16m");
    let runtime = host.open_with_busybox().await;
    let fill = "dd if=/dev/zero of=/x bs=4k 2>/dev/null; dd if=/dev/zero of=/y bs=1 2>/dev/null; seq 1 2000; exit 7";
    let mut job = host.container("t1", fill);
    job.options.durable = true;
    runtime.start(job).await.unwrap();
    let exit = within(runtime.wait("t1")).await.unwrap();
    assert_eq!((exit.code, exit.reason), (7, None));
    // The next daemon reads the same.
    drop(runtime);
    let runtime = host.open().await;
    let exit = within(runtime.wait("t1")).await.unwrap();
    assert_eq!((exit.code, exit.reason), (7, None));
    within(runtime.remove("t1")).await.unwrap();
    drop(disk);
}

#[tokio::test]
async fn an_image_for_which_there_is_no_room_is_refused_by_that_name() {
    let host = Host::new();
    let disk = Disk::new(&host.config().data_dir, "4m");
    let runtime = host.open().await;
    let big = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = common::root_owned();
        let bytes = vec![7; 8 << 20];
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, "big", bytes.as_slice()).unwrap();
        tar.into_inner().unwrap()
    };
    let refused = runtime.images().import(std::io::Cursor::new(big), "big", vec![]).await.unwrap_err();
    let mut said = refused.to_string();
    let mut next = std::error::Error::source(&refused);
    while let Some(cause) = next {
        said = format!("{said}: {cause}");
        next = cause.source();
    }
    assert!(said.contains("No space left") || said.contains("are free"), "{said}");
    // What there was of it is gone.
    assert_eq!(std::fs::read_dir(host.config().data_dir.join("images/tmp")).unwrap().count(), 0);
    runtime.images().import(std::io::Cursor::new(busybox()), "busybox", vec![]).await.unwrap();
    drop(disk);
}
