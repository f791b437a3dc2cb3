//! One try of each fault; `deploy/faults.sh` does more of them.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use shoal_tests::faults::{ROWS, Stage, Tally, attempt};

/// Of a manager's disk.
const DISK_MEGABYTES: u32 = 96;

fn harmless(names: &[&str]) {
    let mut stage = Stage::new().unwrap().with_disks(DISK_MEGABYTES).unwrap();
    stage.watch_traffic().unwrap();
    for (run, row) in ROWS.iter().filter(|r| names.contains(&r.name)).enumerate() {
        let mut tally = Tally::default();
        tally.add(attempt(&stage, row, run));
        eprintln!("{}", tally.line(row));
        assert!(tally.is_harmless(), "{}: {:#?}", row.name, tally.complaints());
    }
}

#[test]
fn managers_that_lose_their_power_lose_nothing_that_was_acknowledged() {
    harmless(&["M3-one", "M3-two", "M3-all"]);
}

#[test]
fn managers_that_are_killed_paused_or_cut_off_lose_nothing() {
    harmless(&["M1", "M7", "M9"]);
}

#[test]
fn full_and_failing_disks_lose_nothing_and_heal() {
    harmless(&["M5-one", "M6-eio"]);
}
