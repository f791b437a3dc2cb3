//! What the kernel of this machine lacks, under one that has it: `vm/kernel.sh` in a virtual machine (`deploy/vm.sh`).

#![allow(clippy::disallowed_methods, reason = "a test runs programs")]

use anyhow::{Context as _, ensure};
use shoal_tests::{built, image};
use std::{path::Path, process::Command};

const LAST: &str = "ok: nothing is left";

#[test]
fn vlans_bonds_teams_sctp_and_cgroups_v2_serve_under_debians_kernel() -> anyhow::Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = tempfile::tempdir().context("make a directory for the test's files")?;
    let page = files.path().join("page.tar");
    image::write(&page)?;
    let ended = Command::new(tests.join("../deploy/vm.sh"))
        .arg(tests.join("tests/vm/kernel.sh"))
        .args([&built()?, &page, &tests.join("tests/vm/sctp.pl")])
        .output()
        .context("run deploy/vm.sh")?;
    let (said, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    eprintln!("{said}{errors}");
    ensure!(ended.status.success(), "vm.sh: {}", ended.status);
    ensure!(said.lines().next_back().is_some_and(|line| line.starts_with(LAST)), "it ended before its last line");
    Ok(())
}
