//! Runs seeds of the simulation: `shoal-simulate COUNT [FIRST] [MUTANT]`, or `shoal-simulate seed SEED [MUTANT]` for the
//! events of one. Prints one line of counts, and one for each seed in which something did not hold.

use shoal_raft::sim::{Counts, Mutant, Plan, Total, many, run};
use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Instant,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["seed", seed, mutant @ ..] => parse(seed).and_then(|seed| Ok(show(seed, named(mutant)?))),
        [count, rest @ ..] => {
            let (first, mutant) = match rest {
                [first, mutant @ ..] if first.parse::<u64>().is_ok() => (parse(first), mutant),
                _ => (Ok(1), rest),
            };
            parse(count).and_then(|count| Ok(seeds(first?, count, named(mutant)?)))
        }
        [] => Err("how many seeds? shoal-simulate COUNT [FIRST] [MUTANT]".to_owned()),
    };
    match done {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => complain(&error.to_string()),
        Err(why) => complain(&why),
    }
}

fn complain(why: &str) -> ExitCode {
    // There is nobody left to tell if this fails.
    let _ = writeln!(io::stderr(), "shoal-simulate: {why}");
    ExitCode::from(2)
}

fn parse(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn named(words: &[&str]) -> Result<Option<Mutant>, String> {
    match words {
        [] => Ok(None),
        [name] => match Mutant::named(name) {
            Some(mutant) => Ok(Some(mutant)),
            None => Err(format!("there is no mutant {name}: {:?}", Mutant::ALL)),
        },
        [_, other, ..] => Err(format!("{other} is one word too many")),
    }
}

/// Whether all is well.
fn show(seed: u64, mutant: Option<Mutant>) -> io::Result<bool> {
    let report = run(Plan { seed, mutant, shown: true });
    let mut out = io::stdout().lock();
    for event in &report.events {
        writeln!(out, "{event}")?;
    }
    writeln!(out, "seed {seed}: {} managers, {:?} simulated, trace {}", report.voters, report.took, report.trace)?;
    writeln!(out, "{:?}", report.counts)?;
    writeln!(out, "{}", report.wrong.as_deref().unwrap_or("all holds"))?;
    Ok(report.wrong.is_none())
}

fn seeds(first: u64, count: u64, mutant: Option<Mutant>) -> io::Result<bool> {
    let begun = Instant::now();
    let Total { runs, counts, time, wrong } = many(first, count, mutant, mutant.is_some(), |report| {
        // Who closed the output wants no more of it.
        let _ = writeln!(io::stdout(), "seed {}: {}", report.seed, report.wrong.as_deref().unwrap_or_default());
    });
    let mut out = io::stdout().lock();
    let Counts { acknowledged, unknown, reads, kills, power_cuts, partitions, .. } = counts;
    let Counts { failed_syncs, rotten, refusals, memberships, snapshots, .. } = counts;
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(
        out,
        "{runs} seeds, {} wrong; {acknowledged} writes acknowledged, {unknown} unknown, {reads} reads; {kills} kills, \
         {power_cuts} power cuts, {partitions} partitions, {failed_syncs} failed syncs, {rotten} rotten disks, \
         {refusals} refusals, {memberships} changes of managers, {snapshots} members with snapshots; {:.0} s simulated, \
         {seconds:.1} s, {:.1} seeds/s",
        wrong.len(),
        time.as_secs_f64(),
        runs as f64 / seconds.max(0.001)
    )?;
    Ok(wrong.is_empty())
}
