//! What a cluster of five lab hosts on this machine costs and how fast it is: a table.
//!
//! `cargo build --release -p shoal && cargo bench -p shoal-tests --bench cluster` as root. The floor that the second
//! table is compared with, the same OCI runtime in a bare loop, is `cargo bench -p shoal-runtime --bench start`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a bench a panic is the report")]

use serde::Deserialize;
use shoal_tests::{Lab, Shape, eventually};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const ROUNDS: usize = 5;
const REMOVALS_A_ROUND: usize = 40;
const REPLICAS: usize = 100;
/// How often each host's resolver is asked while addresses go.
const ASK_EVERY: Duration = Duration::from_millis(1);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    node: String,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, verb, name] = args.as_slice()
        && verb == "probe"
    {
        return probe(name);
    }
    let lab = Lab::up(Shape { managers: 3, workers: 2 }, None).unwrap();
    lab.import("page").unwrap();
    lab.shoal("m1", ["network", "create", "-d", "overlay", "--subnet", "10.9.0.0/16", "blue"])
        .unwrap()
        .success()
        .unwrap();
    many_replicas(&lab);
    removals(&lab);
    lab.down().unwrap();
}

/// `service create --replicas 100` on an overlay.
fn many_replicas(lab: &Lab) {
    println!(
        "{REPLICAS} replicas on an overlay of 5 hosts: until all run, and CPU of the whole machine beside an idle lab"
    );
    println!("{:>8} {:>12} {:>14} {:>14}", "round", "seconds", "CPU-ms/task", "rm: seconds");
    for round in 1..=3 {
        let idle = {
            let (begin, cpu) = (Instant::now(), cpu_seconds());
            thread::sleep(Duration::from_secs(3));
            (cpu_seconds() - cpu) / begin.elapsed().as_secs_f64()
        };
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        let replicas = REPLICAS.to_string();
        lab.shoal(
            "m1",
            [
                "service",
                "create",
                "--detach",
                "--name",
                "many",
                "--network",
                "blue",
                "--replicas",
                &replicas,
                "page",
                "idle",
            ],
        )
        .unwrap()
        .success()
        .unwrap();
        let took = wait_for_running(lab, "many", REPLICAS, begin);
        let busy = cpu_seconds() - cpu - idle * begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        lab.shoal("m1", ["service", "rm", "many"]).unwrap().success().unwrap();
        eventually("no namespace is left", Duration::from_secs(60), || {
            for host in lab.hosts() {
                let left = lab.exec(host, ["sh", "-c", "ls /run/shoal/netns | wc -l"])?.success()?;
                anyhow::ensure!(left.trim() == "0", "{host}: {left}");
            }
            Ok(())
        })
        .unwrap();
        let removed = begin.elapsed().as_secs_f64();
        println!("{round:>8} {:>12.2} {:>14.1} {:>14.2}", took.as_secs_f64(), busy * 1e3 / REPLICAS as f64, removed);
    }
}

fn wait_for_running(lab: &Lab, service: &str, count: usize, begin: Instant) -> Duration {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Service {
        name: String,
        replicas: String,
    }
    let running = |s: &Service| s.replicas.split('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    loop {
        let all = lab.shoal("m2", ["service", "ls", "--format", "json"]).unwrap().json::<Service>().unwrap();
        if all.iter().any(|s| s.name == service && running(s) >= count) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "not all run");
        thread::sleep(Duration::from_millis(50));
    }
}

/// From `service scale` down to the last host that still answers with the removed address.
fn removals(lab: &Lab) {
    let create = ["service", "create", "--name", "client", "--mode", "global", "--network", "blue", "page", "idle"];
    lab.shoal("m1", create).unwrap().success().unwrap();
    let create = ["service", "create", "--name", "web", "--network", "blue", "--replicas", "1", "page", "idle"];
    lab.shoal("m1", create).unwrap().success().unwrap();
    let clients = lab.shoal("m1", ["service", "ps", "client", "--format", "json"]).unwrap().json::<Task>().unwrap();
    let probes: Vec<Probe> = clients.iter().map(|t| Probe::start(lab, t)).collect();
    assert_eq!(probes.len(), 5);

    let (mut from_call, mut from_reply) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut size = REMOVALS_A_ROUND + 1;
        lab.shoal("m1", ["service", "scale", &format!("web={size}")]).unwrap().success().unwrap();
        for probe in &probes {
            probe.wait_for(size);
        }
        while size > 1 {
            size -= 1;
            let call = now_us();
            lab.shoal("m1", ["service", "scale", "--detach", &format!("web={size}")]).unwrap().success().unwrap();
            let reply = now_us();
            let gone = probes.iter().map(|p| p.wait_for(size)).max().unwrap();
            from_call.push(gone.saturating_sub(call));
            from_reply.push(gone.saturating_sub(reply));
        }
    }
    println!("\n{} removals, 5 hosts: until no host answers with the removed address, in ms", from_call.len());
    println!("{:<48} {:>8} {:>8} {:>8}", "", "p50", "p99", "max");
    row("from calling `shoal service scale` (process and all)", &mut from_call);
    row("from its end", &mut from_reply);
}

fn row(what: &str, times: &mut [u64]) {
    times.sort_unstable();
    let ms = |n: usize| times[n.min(times.len() - 1)] as f64 / 1e3;
    println!(
        "{what:<52} {:>8.1} {:>8.1} {:>8.1}",
        ms(times.len() / 2),
        ms(times.len() * 99 / 100),
        ms(times.len() - 1)
    );
}

/// A process in a container's network that asks for `tasks.web` all the time, and tells when the answer changes.
struct Probe {
    child: Child,
    sizes: Receiver<(u64, usize)>,
}

impl Probe {
    fn start(lab: &Lab, client: &Task) -> Self {
        let procs = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
            .map(|root| format!("{root}/shoal/{}/{}/{}/cgroup.procs", lab.name(), client.node, client.id))
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .unwrap();
        let pid = procs.lines().next().unwrap();
        let mut child = Command::new("nsenter")
            .args(["-t", pid, "-n", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["probe", "tasks.web"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tx, sizes) = mpsc::sync_channel(4096);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let (at, size) = line.split_once(' ').unwrap();
                if tx.send((at.parse().unwrap(), size.parse().unwrap())).is_err() {
                    return;
                }
            }
        });
        Self { child, sizes }
    }

    /// When the answer became this long.
    fn wait_for(&self, size: usize) -> u64 {
        loop {
            let (at, now) = self.sizes.recv_timeout(Duration::from_secs(60)).unwrap();
            if now == size {
                return at;
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn probe(name: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    let mut last = BTreeMap::new();
    let mut buffer = [0; 4096];
    for id in (0..=u16::MAX).cycle() {
        socket.send(&query(id, name)).unwrap();
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let Some(found) = addresses(&buffer[..length], id) else { continue };
        if found != last {
            let mut out = std::io::stdout().lock();
            if writeln!(out, "{} {}", now_us(), found.len()).and_then(|()| out.flush()).is_err() {
                return;
            }
            last = found;
        }
        thread::sleep(ASK_EVERY);
    }
}

/// An A query with EDNS(0), so that long answers fit (RFC 1035 §4, RFC 6891).
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut q = id.to_be_bytes().to_vec();
    q.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.') {
        q.push(u8::try_from(label.len()).unwrap());
        q.extend(label.bytes());
    }
    q.extend([0, 0, 1, 0, 1]);
    q.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    q
}

/// The A records of an answer to this query.
fn addresses(answer: &[u8], id: u16) -> Option<BTreeMap<Ipv4Addr, ()>> {
    let u16_at = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    if u16_at(0)? != id || answer.get(2)? & 2 != 0 {
        return None;
    }
    let mut at = name_end(answer, 12)? + 4;
    let mut found = BTreeMap::new();
    for _ in 0..u16_at(6)? {
        at = name_end(answer, at)?;
        let (kind, length) = (u16_at(at)?, usize::from(u16_at(at + 8)?));
        at += 10;
        if kind == 1 {
            let octets: [u8; 4] = answer.get(at..at + 4)?.try_into().ok()?;
            found.insert(octets.into(), ());
        }
        at += length;
    }
    Some(found)
}

fn name_end(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            label => at += 1 + usize::from(label),
        }
    }
}

fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// Of the whole machine, all but idle and waiting, since boot (proc_stat(5)); its unit is 1/100 s.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).map(|f| f.parse().unwrap()).collect();
    (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / 100.0
}
