//! Real faults on a real cluster: what was acknowledged stays, nothing is given twice, and how long things stood still.
//!
//! A row is a kind of fault ([`ROWS`]); a try is a stage on which clients write while the fault happens ([`attempt`]).

mod disk;
mod history;
mod load;
mod rows;
mod stage;

pub use history::Harm;
pub use rows::{ROWS, Row};
pub use stage::Stage;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::eventually;

/// So many writes before a fault and after it show that there were some to lose, and that writing works again.
const WRITES_AROUND: usize = 100;
const WRITES_WITHIN: Duration = Duration::from_secs(60);

/// What came of one try.
#[derive(Debug)]
pub struct Try {
    pub acknowledged: usize,
    pub harm: Harm,
    /// The longest time without an acknowledged write.
    pub without_writes: Duration,
    /// The longest time in which a container of one worker reached no other by the VIP.
    pub without_traffic: Duration,
}

/// One try of a row. `run` is another number for each.
pub fn attempt(stage: &Stage, row: &Row, run: usize) -> anyhow::Result<Try> {
    let load = stage.load(run, row.clients)?;
    let wait_for_writes = |count: usize| {
        eventually("writes are acknowledged", WRITES_WITHIN, || {
            ensure!(load.acknowledged() >= count, "{} were", load.acknowledged());
            Ok(())
        })
    };
    wait_for_writes(WRITES_AROUND)?;
    let from = Instant::now();
    (row.fault)(stage).with_context(|| format!("{}: {}", row.name, row.what))?;
    wait_for_writes(load.acknowledged() + WRITES_AROUND)?;
    let to = Instant::now();
    let history = load.stop()?;
    let listed = stage.settled()?;
    let done = Try {
        acknowledged: history.acknowledged.len(),
        harm: history.harm(&listed),
        without_writes: history.longest_silence(from, to),
        without_traffic: stage.longest_outage(from, to),
    };
    stage.clean()?;
    Ok(done)
}

/// The tries of one row, as a line of the table.
#[derive(Debug, Default)]
pub struct Tally {
    tries: Vec<Try>,
    failed: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, attempted: anyhow::Result<Try>) {
        match attempted {
            Ok(done) => self.tries.push(done),
            Err(error) => self.failed.push(format!("{error:#}")),
        }
    }

    pub fn is_harmless(&self) -> bool {
        self.failed.is_empty() && self.tries.iter().all(|t| t.harm.is_none())
    }

    /// What went wrong, a line each.
    pub fn complaints(&self) -> Vec<String> {
        let harm = self.tries.iter().flat_map(|t| t.harm.lost.iter().chain(&t.harm.twice).cloned());
        harm.chain(self.failed.iter().cloned()).collect()
    }

    pub fn head() -> String {
        format!(
            "{:<12} {:>6} {:>7} {:>9} {:>6} {:>6} {:>15} {:>15}  {}",
            "row", "tries", "failed", "acked", "lost", "twice", "no writes p50", "/max, traffic", "fault"
        )
    }

    pub fn line(&self, row: &Row) -> String {
        let sum = |f: &dyn Fn(&Try) -> usize| self.tries.iter().map(f).sum::<usize>();
        let mut silences: Vec<Duration> = self.tries.iter().map(|t| t.without_writes).collect();
        silences.sort_unstable();
        let silence = |n: usize| silences.get(n).copied().unwrap_or_default().as_secs_f64();
        let outage = self.tries.iter().map(|t| t.without_traffic).max().unwrap_or_default().as_secs_f64();
        format!(
            "{:<12} {:>6} {:>7} {:>9} {:>6} {:>6} {:>13.2} s {:>7.2} {:>5.2} s  {}",
            row.name,
            self.tries.len(),
            self.failed.len(),
            sum(&|t| t.acknowledged),
            sum(&|t| t.harm.lost.len()),
            sum(&|t| t.harm.twice.len()),
            silence(silences.len() / 2),
            silence(silences.len().saturating_sub(1)),
            outage,
            row.what
        )
    }
}
