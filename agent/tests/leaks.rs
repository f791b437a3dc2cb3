//! What many tasks leave behind on a host: nothing. Needs root, `ip` and a static busybox.
//!
//! `SHOAL_TASKS=2000 cargo test -p shoal-agent --test leaks -- --nocapture` runs as many as an hour of a service that
//! restarts each second; without the variable it is a few hundred.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod fixture;

use fixture::{
    Daemon, Machine, eventually,
    managers::{Authority, Record},
    told::{self, ELSEWHERE},
};
use shoal_common::{assignment::Assignment, task::TaskState};
use shoal_plan::Ns;
use std::{
    fmt, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Tasks that are on the host at a time.
const BATCH: u64 = 20;
/// For all of them, on a machine that is busy with other tests.
const BATCH_LIMIT: Duration = Duration::from_secs(90);
/// Batches before the first look: pools, caches and threads of the runtime have come up by then.
const WARM_UP: u64 = 3;
/// Ended containers whose logs are kept (`tasks::KEPT`), each with its descriptors closed.
const KEPT: usize = 10;
/// tokio's blocking pool hands work to the thread that has waited longest, so a pool that once grew ends its threads
/// late. What a task keeps shows all the same: each half of the run has many times as many tasks.
const NOISE_THREADS: usize = 16;
/// Memory that may come and go without being a leak: the allocator's arenas, and what this test notes of each task.
const NOISE_BYTES: u64 = 8 << 20;
const NOISE_BYTES_PER_TASK: u64 = 2 << 10;

/// What one process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    fds: usize,
    /// Network namespaces that it has a descriptor on.
    namespaces: usize,
    threads: usize,
    bytes: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fds, namespaces, threads, bytes } = self;
        write!(f, "{fds} descriptors, {namespaces} namespaces, {threads} threads, {} KiB", bytes >> 10)
    }
}

fn held(pid: i32) -> Held {
    let proc = Path::new("/proc").join(pid.to_string());
    let targets: Vec<_> =
        fs::read_dir(proc.join("fd")).unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    // Bind mounts of nsfs have a path, others are called net:[INODE].
    let is_netns = |to: &&std::path::PathBuf| {
        to.to_string_lossy().contains("net:[") || to.components().any(|c| c.as_os_str() == "netns")
    };
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let field = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Held {
        fds: targets.len(),
        namespaces: targets.iter().filter(is_netns).count(),
        threads: usize::try_from(field("Threads:")).unwrap(),
        bytes: field("VmRSS:") << 10,
    }
}

/// Supervisors of this machine's containers.
fn supervisors(machine: &Machine) -> Vec<i32> {
    let data = machine.dir.path().as_os_str().as_encoded_bytes().to_vec();
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        words.nth(1) == Some(b"supervise") && words.next().is_some_and(|dir| dir.starts_with(&data))
    };
    all.filter(is_ours).collect()
}

/// One task that stays, so that its supervisor can be looked at.
const STAYS: u64 = 1;

async fn batch(daemon: &Daemon, record: &Record, first: u64) {
    let ids: Vec<u64> = (first..first + BATCH).collect();
    record.change(|a| {
        let mut more = scripted(&ids, "exit 0");
        a.tasks.append(&mut more.tasks);
        a.endpoints.append(&mut more.endpoints);
    });
    let begun = Instant::now();
    loop {
        let states: Vec<_> = ids.iter().map(|id| (*id, record.last(*id))).collect();
        if states.iter().all(|(_, state)| *state == Some(TaskState::Complete)) {
            break;
        }
        assert!(begun.elapsed() < BATCH_LIMIT, "not all of a batch have run: {states:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    record.change(|a| {
        a.tasks.retain(|id, _| id.0 == STAYS);
        a.endpoints.retain(|(_, id), _| id.0 == STAYS);
    });
    let is_left = |id: u64| daemon.has(Ns::Task(shoal_common::TaskId(id)));
    eventually("their namespaces are gone", || !ids.iter().any(|id| is_left(*id))).await;
}

fn scripted(ids: &[u64], script: &str) -> Assignment {
    let mut assignment = told::many(ids);
    for task in assignment.tasks.values_mut().map(Arc::make_mut) {
        task.container.args = ["sh", "-c", script].map(String::from).to_vec();
        task.container.stop_grace = Duration::from_millis(200);
    }
    assignment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_leave_no_descriptor_namespace_thread_or_memory_behind() {
    let count: u64 = std::env::var("SHOAL_TASKS").map_or(200, |n| n.parse().unwrap());
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let mut first = scripted(&[STAYS], "exec sleep 100000");
    first.node.as_mut().unwrap().managers.clear();
    let record = Record::new(first);
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("the one that stays runs", || record.last(STAYS) == Some(TaskState::Running)).await;

    let looks = || async {
        // What goes with the last batch goes a moment later.
        let resolver = machine.resolver().as_raw();
        eventually("the resolver serves one", || held(resolver).namespaces == 0).await;
        eventually("only one is supervised", || supervisors(&machine).len() == 1).await;
        eventually("few are kept", || daemon.host.runtime().list().len() <= KEPT + 1).await;
        let supervisor = supervisors(&machine)[0];
        [std::process::id().cast_signed(), resolver, supervisor].map(held)
    };
    let mut next = 1_000;
    let mut run = async |batches: u64| {
        for _ in 0..batches {
            batch(&daemon, &record, next).await;
            next += BATCH;
        }
    };
    run(WARM_UP).await;
    let before = looks().await;
    let begun = Instant::now();
    let half = count.div_ceil(2 * BATCH);
    run(half).await;
    // The allocator's arenas grow at first, one for each thread that ever ran: memory is compared from here.
    let between = looks().await;
    run(half).await;
    let after = looks().await;
    eprintln!("{} tasks in {:?}", 2 * half * BATCH, begun.elapsed());
    let mut leaks = Vec::new();
    for (i, who) in ["daemon", "resolver", "supervisor"].iter().enumerate() {
        let (before, between, after) = (before[i], between[i], after[i]);
        eprintln!("{who}: {before}\n  then {between}\n  then {after}");
        let most = between.bytes + NOISE_BYTES + NOISE_BYTES_PER_TASK * half * BATCH;
        // A few descriptors come and go: a connection that is renewed.
        let threads = between.threads + NOISE_THREADS;
        if after.fds > before.fds + 4
            || after.namespaces > before.namespaces
            || after.threads > threads
            || after.bytes > most
        {
            leaks.push(who);
        }
    }
    assert!(leaks.is_empty(), "{leaks:?} keep what belonged to tasks that ended");
    record.change(|a| a.tasks.clear());
    eventually("nothing is left", || supervisors(&machine).is_empty()).await;
    daemon.stop().await;
}
