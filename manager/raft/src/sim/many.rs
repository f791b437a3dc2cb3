//! Many runs, on all cores: each run is one thread.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Counts, Mutant, Plan, Report, run};

#[derive(Debug, Default)]
pub struct Total {
    pub runs: u64,
    pub counts: Counts,
    /// Simulated.
    pub time: Duration,
    /// Those in which something did not hold, by seed.
    pub wrong: Vec<Report>,
}

/// Runs the seeds `first..first + count`, or until one is wrong where that is enough.
/// Each wrong one is told at once.
pub fn many(first: u64, count: u64, mutant: Option<Mutant>, until_wrong: bool, tell: impl Fn(&Report) + Sync) -> Total {
    let (next, stop, total) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Total::default()));
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        return;
                    }
                    let report = run(Plan { seed, mutant, shown: false });
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.runs += 1;
                    total.counts.add(report.counts);
                    total.time += report.took;
                    if report.wrong.is_some() {
                        tell(&report);
                        total.wrong.push(report);
                        stop.fetch_or(until_wrong, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.wrong.sort_by_key(|report| report.seed);
    total
}
