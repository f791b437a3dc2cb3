//! What one more container costs on a host that has many: a table.
//!
//! `cargo build --release -p shoal && cargo bench -p shoal-tests --bench host` as root.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a bench a panic is the report")]

use shoal_tests::{Lab, Shape};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Containers that are there already. The first again at the end: a machine that slowed down meanwhile shows.
const LEVELS: [usize; 5] = [0, 100, 200, 300, 0];
const TRIES: usize = 15;
const TICKS_A_SECOND: u64 = 100;

fn main() {
    let lab = Lab::up(Shape { managers: 1, workers: 0 }, None).unwrap();
    lab.import("page").unwrap();
    let daemon = daemon(&lab);
    println!("one more container of the default bridge on a host with many, in ms");
    println!("{:>10} {:>9} {:>9} {:>9} {:>9} {:>16}", "containers", "run p50", "max", "rm p50", "max", "CPU of daemon");
    let mut there = 0;
    for level in LEVELS {
        fill(&lab, &mut there, level);
        let (mut runs, mut removals) = (Vec::new(), Vec::new());
        let before = cpu(daemon);
        for _ in 0..TRIES {
            runs.push(timed(|| run(&lab, "one-more")));
            removals.push(timed(|| remove(&lab, &["one-more".to_owned()])));
        }
        let busy = (cpu(daemon) - before) / TRIES as u32;
        let ((run, run_max), (rm, rm_max)) = (spread(runs), spread(removals));
        println!("{level:>10} {run:>9.0} {run_max:>9.0} {rm:>9.0} {rm_max:>9.0} {:>16}", busy.as_millis());
    }
    lab.down().unwrap();
}

fn fill(lab: &Lab, there: &mut usize, level: usize) {
    while *there < level {
        run(lab, &format!("c{there}"));
        *there += 1;
    }
    let surplus: Vec<String> = (level..*there).map(|n| format!("c{n}")).collect();
    if !surplus.is_empty() {
        let took = timed(|| remove(lab, &surplus));
        println!("rm -f of {} at once: {:.1} s", surplus.len(), took.as_secs_f64());
        *there = level;
    }
}

fn run(lab: &Lab, name: &str) {
    lab.shoal("m1", ["run", "-d", "--name", name, "page", "idle"]).unwrap().success().unwrap();
}

fn remove(lab: &Lab, names: &[String]) {
    let line = ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str));
    lab.shoal("m1", line).unwrap().success().unwrap();
}

fn timed(f: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    f();
    begin.elapsed()
}

/// The median and the largest, in milliseconds.
fn spread(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let ms = |n: usize| times[n].as_secs_f64() * 1e3;
    (ms(times.len() / 2), ms(times.len() - 1))
}

/// The process id of the host's daemon.
fn daemon(lab: &Lab) -> u32 {
    let data = lab.data("m1").unwrap().display().to_string();
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(&data) && line.split('\0').any(|word| word == "daemon")
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.into_iter().find(is_it).unwrap()
}

/// What a process has used of the processors.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = [11, 12].map(|n: usize| fields[n].parse::<u64>().unwrap()).iter().sum();
    Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
}
