//! A table of real faults: `faults MINUTES [ROW…]`, by `deploy/faults.sh`.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use shoal_tests::faults::{ROWS, Row, Stage, Tally, attempt};

/// Of a manager's disk: room for a log and a few snapshots, and soon full.
const DISK_MEGABYTES: u32 = 96;

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let minutes = args.next().context("usage: faults MINUTES [ROW…]")?;
    let minutes: u64 = minutes.parse().with_context(|| format!("MINUTES is a whole number, not {minutes:?}"))?;
    let wanted: Vec<String> = args.collect();
    let names: Vec<&str> = ROWS.iter().map(|r| r.name).collect();
    for name in &wanted {
        ensure!(names.contains(&name.as_str()), "there is no row {name:?}; the rows are {names:?}");
    }
    let rows: Vec<&Row> = ROWS.iter().filter(|r| wanted.is_empty() || wanted.iter().any(|w| w == r.name)).collect();
    let end = Instant::now() + Duration::from_secs(60 * minutes);

    let mut stage = Stage::new()?.with_disks(DISK_MEGABYTES)?;
    stage.watch_traffic()?;
    let mut tallies: Vec<Tally> = rows.iter().map(|_| Tally::default()).collect();
    // Each row once, then again in turn until the time is over.
    for (run, nth) in (0..rows.len()).cycle().enumerate() {
        if run >= rows.len() && Instant::now() >= end {
            break;
        }
        let attempted = attempt(&stage, rows[nth], run);
        if let Err(error) = &attempted {
            eprintln!("{error:#}");
            // The next try begins with a cluster that is whole, or the run ends here.
            stage.start_all()?;
            stage.settled()?;
        }
        tallies[nth].add(attempted);
    }
    drop(stage);

    println!("{}", Tally::head());
    for (row, tally) in rows.iter().zip(&tallies) {
        println!("{}", tally.line(row));
    }
    for (row, tally) in rows.iter().zip(&tallies) {
        for complaint in tally.complaints() {
            println!("{}: {complaint}", row.name);
        }
    }
    let harmless = tallies.iter().all(Tally::is_harmless);
    Ok(if harmless { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
