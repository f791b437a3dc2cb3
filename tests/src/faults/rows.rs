//! The faults, a function each. What they must not do is the same for all: lose a write that was acknowledged, or give
//! one thing to two owners.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rand::{Rng as _, seq::IndexedRandom as _};

use super::stage::{MANAGERS, Stage};
use crate::eventually;

/// How long a fault that only lasts a while does so.
const LASTS: Duration = Duration::from_secs(4);
/// A manager whose disk has room again is one again within this (features of faults.md, M5).
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// A new snapshot is made every 5,000 entries.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(120);

/// One kind of fault.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// As in the table of faults: `M3-all`.
    pub name: &'static str,
    pub what: &'static str,
    /// Does it, and undoes what does not heal by itself.
    pub fault: fn(&Stage) -> anyhow::Result<()>,
    /// Clients that write meanwhile.
    pub clients: usize,
    pub needs_disks: bool,
}

pub const ROWS: &[Row] = &[
    Row { name: "M1", what: "the leader is killed", fault: leader_killed, clients: 64, needs_disks: false },
    Row { name: "M3-one", what: "power cut of the leader", fault: power_cut_of_one, clients: 16, needs_disks: true },
    Row { name: "M3-two", what: "power cut of two managers", fault: power_cut_of_two, clients: 16, needs_disks: true },
    Row { name: "M3-all", what: "power cut of all managers", fault: power_cut_of_all, clients: 16, needs_disks: true },
    Row {
        name: "M3-again",
        what: "three power cuts of all managers in a row",
        fault: power_cuts_in_a_row,
        clients: 16,
        needs_disks: true,
    },
    Row {
        name: "M3-snapshot",
        what: "power cut of all managers right after a snapshot",
        fault: power_cut_after_a_snapshot,
        clients: 64,
        needs_disks: true,
    },
    Row { name: "M4", what: "a file of a manager's log is damaged", fault: damage, clients: 4, needs_disks: false },
    Row { name: "M5-one", what: "a follower's disk is full", fault: follower_full, clients: 8, needs_disks: true },
    Row { name: "M5-leader", what: "the leader's disk is full", fault: leader_full, clients: 8, needs_disks: true },
    Row { name: "M6-eio", what: "the leader's disk fails one sync", fault: sync_fails, clients: 8, needs_disks: false },
    Row {
        name: "M6-stall",
        what: "each sync of the leader takes 1 s",
        fault: sync_stalls,
        clients: 8,
        needs_disks: false,
    },
    Row {
        name: "M7",
        what: "the leader stands still, then goes on",
        fault: leader_paused,
        clients: 16,
        needs_disks: false,
    },
    Row { name: "M9", what: "the leader is cut off, then back", fault: partition, clients: 16, needs_disks: false },
    Row {
        name: "M11",
        what: "a manager is demoted and promoted, the leader killed",
        fault: membership,
        clients: 8,
        needs_disks: false,
    },
    Row { name: "A1", what: "a worker's daemon is killed", fault: agent_killed, clients: 4, needs_disks: false },
    Row {
        name: "A2",
        what: "all daemons are killed, the workers' start alone",
        fault: no_managers,
        clients: 4,
        needs_disks: false,
    },
    Row { name: "A3", what: "a worker's links and rules are deleted", fault: sabotage, clients: 4, needs_disks: false },
    Row {
        name: "A4-lost",
        what: "a worker's daemon hears of no change in its kernel",
        fault: notifications_lost,
        clients: 4,
        needs_disks: false,
    },
    Row {
        name: "A4-refused",
        what: "a worker's kernel refuses every other send",
        fault: kernel_refuses,
        clients: 4,
        needs_disks: false,
    },
    Row {
        name: "A4-slow",
        what: "a worker's kernel answers slowly",
        fault: kernel_slow,
        clients: 4,
        needs_disks: false,
    },
    Row { name: "A5", what: "a manager's host reboots during a deploy", fault: reboot, clients: 4, needs_disks: false },
    Row { name: "A6", what: "a /28 is filled and emptied again", fault: exhaustion, clients: 4, needs_disks: false },
];

fn leader_killed(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    stage.lab.lab(["kill", &leader])?.success()?;
    // Until another one leads: the clients' silence tells how long that took.
    eventually("another one leads", WHOLE_WITHIN, || {
        let now = stage.leader()?;
        ensure!(now != leader, "it is still {now}");
        Ok(())
    })?;
    stage.start(&[&leader])
}

fn power_cut_of_one(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    power_cut(stage, &[&leader])
}

fn power_cut_of_two(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    let other = MANAGERS.into_iter().find(|m| *m != leader).context("there are three")?;
    power_cut(stage, &[&leader, other])
}

fn power_cut_of_all(stage: &Stage) -> anyhow::Result<()> {
    power_cut(stage, &MANAGERS)
}

fn power_cuts_in_a_row(stage: &Stage) -> anyhow::Result<()> {
    for _ in 0..3 {
        power_cut(stage, &MANAGERS)?;
    }
    Ok(())
}

fn power_cut_after_a_snapshot(stage: &Stage) -> anyhow::Result<()> {
    let dir = stage.lab.data("m1")?.join("raft");
    let before = snapshots(&dir)?;
    eventually("a snapshot is made", SNAPSHOT_WITHIN, || {
        ensure!(snapshots(&dir)? != before, "there is none yet");
        Ok(())
    })?;
    power_cut(stage, &MANAGERS)
}

/// The names of whatever has to do with snapshots.
fn snapshots(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = files(dir)?.into_iter().filter(|f| f.to_string_lossy().contains("snap")).collect();
    found.sort();
    Ok(found)
}

/// Cuts the power of all of them within milliseconds, and boots them again.
fn power_cut(stage: &Stage, hosts: &[&str]) -> anyhow::Result<()> {
    for host in hosts {
        stage.disk(host)?.cut()?;
    }
    stage.lab.lab([&["power-off"], hosts].concat())?.success()?;
    for host in hosts {
        stage.disk(host)?.recover()?;
    }
    stage.start(hosts)
}

/// Flips a bit, cuts the end off, zeroes a block or removes a file of what a follower has acknowledged. It must go on
/// as if nothing was, or not vote; then it gets its files back.
fn damage(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    let victim = MANAGERS.into_iter().find(|m| *m != leader).context("there are three")?;
    stage.lab.lab(["power-off", victim])?.success()?;
    let raft = stage.lab.data(victim)?.join("raft");
    let safe = tempfile::tempdir()?;
    let copy = |from: &Path, to: &Path| {
        let ended = Command::new("cp").arg("-a").arg(from).arg(to).output()?;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        Ok(())
    };
    copy(&raft, &safe.path().join("raft"))?;
    let all = files(&raft)?;
    let file = all.choose(&mut rand::rng()).context("a manager has files")?;
    spoil(file)?;
    stage.start(&[victim])?;
    // Whole again, or refused: both are right, and nothing else is.
    let is_whole = eventually("it votes", WHOLE_WITHIN, || stage.is_whole()).is_ok();
    if !is_whole {
        let info = stage.shoal(victim, &["info"])?;
        ensure!(info.contains("E-"), "after damage to {} it neither votes nor says why:\n{info}", file.display());
        stage.lab.lab(["power-off", victim])?.success()?;
        fs::remove_dir_all(&raft)?;
        copy(&safe.path().join("raft"), &raft)?;
        stage.start(&[victim])?;
    }
    Ok(())
}

fn spoil(path: &Path) -> anyhow::Result<()> {
    let mut rng = rand::rng();
    let file = fs::File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    match rng.random_range(0..4) {
        0 if length > 0 => {
            let at = rng.random_range(0..length);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << rng.random_range(0..8);
            file.write_all_at(&byte, at)?;
        }
        1 if length > 0 => file.set_len(rng.random_range(0..length))?,
        2 if length > 0 => {
            let at = rng.random_range(0..length);
            let zeroes = usize::try_from((length - at).min(512))?;
            file.write_all_at(&vec![0; zeroes], at)?;
        }
        _ => fs::remove_file(path)?,
    }
    Ok(())
}

fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn follower_full(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    full(stage, MANAGERS.into_iter().find(|m| *m != leader).context("there are three")?)
}

fn leader_full(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    full(stage, &leader)
}

fn full(stage: &Stage, host: &str) -> anyhow::Result<()> {
    let filler = stage.disk(host)?.fill()?;
    let begin = Instant::now();
    while begin.elapsed() < LASTS {
        // As systemd does with a daemon that ended.
        stage.start(&[host])?;
        thread::sleep(Duration::from_millis(500));
    }
    fs::remove_file(filler)?;
    let freed = Instant::now();
    eventually("it is whole again", WHOLE_WITHIN, || {
        stage.start(&[host])?;
        stage.is_whole()
    })
    .with_context(|| format!("{:?} after there was room again", freed.elapsed()))?;
    Ok(())
}

fn sync_fails(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    inject(stage, &leader, "error=EIO:when=1", LASTS)?;
    // It must not have trusted the disk again.
    let state = stage.lab.state_of(&leader)?;
    ensure!(state != "up", "after a failed sync the daemon of {leader} is {state}");
    stage.start(&[&leader])
}

fn sync_stalls(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    inject(stage, &leader, "delay_enter=1000000", LASTS)
}

/// Tampers with every sync of a daemon.
fn inject(stage: &Stage, host: &str, how: &str, lasts: Duration) -> anyhow::Result<()> {
    Tampering::begin(stage, host, "fsync,fdatasync", how)?.last(lasts)
}

/// A tracer that changes what a daemon's system calls do.
struct Tampering {
    tracer: Child,
    begun: Instant,
}

impl Tampering {
    /// `calls` and `how` as strace's `inject` has them. Returns once the daemon is traced.
    fn begin(stage: &Stage, host: &str, calls: &str, how: &str) -> anyhow::Result<Self> {
        let pid = stage.daemon(host)?;
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}")]);
        let tracer = strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("run strace")?;
        let mut tampering = Self { tracer, begun: Instant::now() };
        let status = format!("/proc/{pid}/status");
        eventually("the daemon is traced", WHOLE_WITHIN, || {
            // A daemon that the fault has ended already was traced.
            let Ok(status) = fs::read_to_string(&status) else { return Ok(()) };
            if let Some(ended) = tampering.tracer.try_wait()? {
                bail!("strace ended, {ended}");
            }
            ensure!(!status.contains("TracerPid:\t0\n"), "it is not");
            Ok(())
        })?;
        Ok(tampering)
    }

    /// Goes on until this long after the beginning.
    fn last(mut self, lasts: Duration) -> anyhow::Result<()> {
        while self.begun.elapsed() < lasts && self.tracer.try_wait()?.is_none() {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Tampering {
    /// An interrupted tracer lets go of the daemon; it is waited for, so that nothing is tampered with later.
    fn drop(&mut self) {
        let _ = signal("-INT", &self.tracer.id().to_string());
        let _ = self.tracer.wait();
    }
}

fn leader_paused(stage: &Stage) -> anyhow::Result<()> {
    let pid = stage.daemon(&stage.leader()?)?.to_string();
    signal("-STOP", &pid)?;
    thread::sleep(Duration::from_millis(rand::rng().random_range(100..8000)));
    signal("-CONT", &pid)
}

fn signal(which: &str, pid: &str) -> anyhow::Result<()> {
    let ended = Command::new("kill").args([which, pid]).output()?;
    ensure!(ended.status.success(), "kill {which}: {}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

fn partition(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    stage.lab.lab(["partition", &leader])?.success()?;
    thread::sleep(LASTS);
    stage.lab.lab(["heal"])?.success().map(drop)
}

fn membership(stage: &Stage) -> anyhow::Result<()> {
    let leader = stage.leader()?;
    let other = MANAGERS.into_iter().find(|m| *m != leader).context("there are three")?;
    stage.shoal(&leader, &["node", "demote", other])?;
    stage.lab.lab(["kill", &leader])?.success()?;
    stage.start(&[&leader])?;
    eventually("it is promoted", WHOLE_WITHIN, || {
        let asked = stage.leader()?;
        stage.shoal(&asked, &["node", "promote", other])
    })
    .map(drop)
}

fn agent_killed(stage: &Stage) -> anyhow::Result<()> {
    stage.lab.lab(["kill", "w1"])?.success()?;
    stage.start(&["w1"])
}

fn no_managers(stage: &Stage) -> anyhow::Result<()> {
    stage.lab.lab(["kill", "m1", "m2", "m3", "w1", "w2"])?.success()?;
    stage.start(&["w1", "w2"])?;
    thread::sleep(LASTS);
    stage.start(&["m1", "m2", "m3"])
}

/// Everything of ours that a careless hand could delete on a host; the reconciler puts it back.
const SABOTAGE: &str = "nft flush ruleset
for ns in /run/shoal/netns/*; do
    nsenter --net=$ns nft flush ruleset
    for link in $(nsenter --net=$ns ip -o link show type vxlan | cut -d: -f2); do
        nsenter --net=$ns ip link delete $link
    done
done";

/// Everything that the reconciler answers for on a host, without what counts or is numbered anew.
const PICTURE: &str = "look() {
    echo \"== $1\"
    $2 nft list tables | sort | while read table; do $2 nft -s list $table; done
    $2 ip -br link | sed 's/@[^ ]*//' | sort
    $2 ip -br address | sed 's/@[^ ]*//' | sort
    $2 bridge fdb show | grep -v ' dev lo ' | sort
    $2 ip neigh show nud permanent | sort
    $2 ip route
}
look host
for ns in /run/shoal/netns/*; do look $ns \"nsenter --net=$ns\"; done";

/// Tampers with all of ours on a worker while `meanwhile` makes it hard to notice or to mend. Then it is as it was.
fn sabotage_and(stage: &Stage, meanwhile: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let picture = || stage.lab.exec("w1", ["sh", "-c", PICTURE])?.success();
    // Two looks that are the same: nothing is on its way.
    let before = eventually("the worker is at rest", WHOLE_WITHIN, || {
        let (one, other) = (picture()?, picture()?);
        same(&one, &other)?;
        Ok(one)
    })?;
    meanwhile()?;
    eventually("the worker is as it was", WHOLE_WITHIN, || same(&before, &picture()?))
}

fn same(before: &str, now: &str) -> anyhow::Result<()> {
    let differs = before.lines().zip(now.lines()).find(|(before, now)| before != now);
    ensure!(
        before == now,
        "{} lines, then {}; the first that differs: {differs:?}",
        before.lines().count(),
        now.lines().count()
    );
    Ok(())
}

fn sabotage(stage: &Stage) -> anyhow::Result<()> {
    sabotage_and(stage, || delete_all(stage))
}

fn delete_all(stage: &Stage) -> anyhow::Result<()> {
    stage.lab.exec("w1", ["sh", "-c", SABOTAGE])?.success().map(drop)
}

/// More changes, in each namespace, than a socket's buffer holds.
const STORM: &str = "storm() {
    for n in $(seq 500); do
        echo address add 127.9.9.9/32 dev lo
        echo address delete 127.9.9.9/32 dev lo
    done | $1 ip -batch -
}
storm
for ns in /run/shoal/netns/*; do storm \"nsenter --net=$ns\"; done";

/// The daemon stands still while a storm of changes fills its sockets; what is deleted after that is not told.
fn notifications_lost(stage: &Stage) -> anyhow::Result<()> {
    sabotage_and(stage, || {
        let pid = stage.daemon("w1")?.to_string();
        signal("-STOP", &pid)?;
        let done = stage.lab.exec("w1", ["sh", "-c", STORM]).and_then(|storm| storm.success());
        let done = done.and_then(|_| delete_all(stage));
        signal("-CONT", &pid)?;
        done
    })
}

/// Every other send fails, those to the kernel among them, as when it is out of memory or at something else.
fn kernel_refuses(stage: &Stage) -> anyhow::Result<()> {
    let errno = ["ENOBUFS", "EBUSY", "EEXIST"].choose(&mut rand::rng()).copied().unwrap_or("ENOBUFS");
    sabotage_and(stage, || {
        let tampering = Tampering::begin(stage, "w1", "sendto", &format!("error={errno}:when=1+2"))?;
        delete_all(stage)?;
        tampering.last(LASTS)
    })
}

fn kernel_slow(stage: &Stage) -> anyhow::Result<()> {
    sabotage_and(stage, || {
        let tampering = Tampering::begin(stage, "w1", "sendto", "delay_enter=100000")?;
        delete_all(stage)?;
        tampering.last(LASTS)
    })
}

fn reboot(stage: &Stage) -> anyhow::Result<()> {
    stage.shoal("m1", &["service", "create", "--detach", "--name", "deployed", "--replicas", "10", "page", "idle"])?;
    let leader = stage.leader()?;
    stage.lab.lab(["power-off", &leader])?.success()?;
    stage.start(&[&leader])?;
    eventually("all ten run", WHOLE_WITHIN, || {
        let services = stage.shoal("w1", &["service", "ls"]).or_else(|_| stage.shoal("m1", &["service", "ls"]))?;
        let line = services.lines().find(|l| l.contains("deployed")).context("it is not listed")?;
        ensure!(line.contains("10/10"), "{line}");
        Ok(())
    })?;
    let asked = stage.leader()?;
    stage.shoal(&asked, &["service", "rm", "deployed"]).map(drop)
}

fn exhaustion(stage: &Stage) -> anyhow::Result<()> {
    stage.shoal("m1", &["network", "create", "-d", "overlay", "--subnet", "192.168.77.0/28", "small"])?;
    let create = ["service", "create", "--detach", "--name", "full", "--network", "small", "--replicas", "40"];
    stage.shoal("m1", &[&create[..], &["page", "idle"]].concat())?;
    let running = || {
        let tasks =
            stage.lab.shoal("m1", ["service", "ps", "full", "--format", "json"])?.json::<serde_json::Value>()?;
        let address = |t: &serde_json::Value| t["Endpoints"][0]["IPv4"].as_str().map(str::to_owned);
        let running = tasks.iter().filter(|t| t["State"] == "running");
        anyhow::Ok(running.filter_map(address).collect::<Vec<_>>())
    };
    let addresses = eventually("the network is full", WHOLE_WITHIN, || {
        let addresses = running()?;
        ensure!(addresses.len() >= 10, "{} run", addresses.len());
        Ok(addresses)
    })?;
    let mut distinct = addresses.clone();
    distinct.sort();
    distinct.dedup();
    ensure!(distinct.len() == addresses.len(), "an address was given twice: {addresses:?}");
    stage.shoal("m1", &["service", "rm", "full"])?;
    eventually("the network can go", WHOLE_WITHIN, || stage.shoal("m1", &["network", "rm", "small"])).map(drop)
}
