//! What every fault happens to: three managers with disks of their own, two workers with containers that talk.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::{
    disk::Disk,
    history::{Listed, longest_gap},
    load::{self, Load},
};
use crate::{Lab, Shape, eventually};

pub(super) const MANAGERS: [&str; 3] = ["m1", "m2", "m3"];
/// A machine with two cores that does all of this takes its time.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// Dropped in this order: the disks leave before the lab is taken down.
#[derive(Debug)]
pub struct Stage {
    traffic: Option<Traffic>,
    disks: BTreeMap<String, Disk>,
    images: tempfile::TempDir,
    pub lab: Lab,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    hostname: String,
    status: String,
    raft: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    state: String,
}

impl Stage {
    pub fn new() -> anyhow::Result<Self> {
        let lab = Lab::up(Shape { managers: 3, workers: 2 }, None)?;
        lab.import("page")?;
        let stage = Self { traffic: None, disks: BTreeMap::new(), images: tempfile::tempdir()?, lab };
        stage.shoal("m1", &["network", "create", "-d", "overlay", "stage"])?;
        let on_workers = ["--constraint", "node.role==worker", "--network", "stage"];
        let web: Vec<&str> =
            ["service", "create", "--name", "web", "--replicas", "2"].into_iter().chain(on_workers).collect();
        stage.shoal("m1", &[&web[..], &["page", "serve"]].concat())?;
        let client: Vec<&str> = ["service", "create", "--name", "client"].into_iter().chain(on_workers).collect();
        stage.shoal("m1", &[&client[..], &["page", "idle"]].concat())?;
        Ok(stage)
    }

    /// Has the managers keep their data on disks whose power can be cut.
    pub fn with_disks(mut self, megabytes: u32) -> anyhow::Result<Self> {
        self.lab.lab([&["power-off"], &MANAGERS[..]].concat())?.success()?;
        for manager in MANAGERS {
            self.disks.insert(manager.to_owned(), Disk::new(&self.lab, manager, megabytes, self.images.path())?);
        }
        self.start(&MANAGERS)?;
        self.settled()?;
        Ok(self)
    }

    /// Switches hosts on, or starts their daemons.
    pub fn start(&self, hosts: &[&str]) -> anyhow::Result<()> {
        self.lab.lab([&["start"], hosts].concat())?.success().map(drop)
    }

    pub fn disk(&self, host: &str) -> anyhow::Result<&Disk> {
        self.disks.get(host).with_context(|| format!("{host} has no disk of its own"))
    }

    pub fn shoal(&self, host: &str, args: &[&str]) -> anyhow::Result<String> {
        self.lab.shoal(host, args)?.success()
    }

    pub fn socket(&self, host: &str) -> anyhow::Result<PathBuf> {
        Ok(self.lab.dir(host)?.join("shoal.sock"))
    }

    pub fn load(&self, run: usize, clients: usize) -> anyhow::Result<Load> {
        let sockets: Vec<PathBuf> = MANAGERS.iter().map(|m| self.socket(m)).collect::<anyhow::Result<_>>()?;
        Load::start(run, clients, &sockets)
    }

    /// Who leads, as the first manager that answers says.
    pub fn leader(&self) -> anyhow::Result<String> {
        eventually("somebody leads", SETTLES_WITHIN, || {
            let answered = MANAGERS.iter().find_map(|m| self.nodes(m).ok()).context("no manager answers")?;
            answered.into_iter().find(|n| n.raft == "leader").map(|n| n.hostname).context("nobody leads")
        })
    }

    /// Every host is ready and every manager votes, as each manager says.
    pub fn is_whole(&self) -> anyhow::Result<()> {
        for manager in MANAGERS {
            let nodes = self.nodes(manager)?;
            let voters = nodes.iter().filter(|n| n.raft == "leader" || n.raft == "voter").count();
            let ready = nodes.iter().filter(|n| n.status == "Ready").count();
            ensure!(voters == 3 && ready == 5, "{manager}: {nodes:?}");
        }
        Ok(())
    }

    /// Waits until the cluster is whole and all managers list the same networks; gives them. Nobody writes meanwhile.
    pub fn settled(&self) -> anyhow::Result<Vec<Listed>> {
        eventually("the cluster is whole", SETTLES_WITHIN, || {
            self.is_whole()?;
            let lists: Vec<_> = MANAGERS.iter().map(|m| load::list(&self.socket(m)?)).collect::<anyhow::Result<_>>()?;
            ensure!(lists.windows(2).all(|two| two[0] == two[1]), "the managers list different networks");
            lists.into_iter().next().context("no manager")
        })
    }

    /// Every host on, every daemon up, every cable in.
    pub fn start_all(&self) -> anyhow::Result<()> {
        self.lab.lab(["heal"])?.success()?;
        self.start(&self.lab.hosts().collect::<Vec<_>>())
    }

    /// Removes what the clients of a run have left.
    pub fn clean(&self) -> anyhow::Result<()> {
        let left = load::list(&self.socket("m1")?)?;
        let names: Vec<&str> = left.iter().map(|l| l.name.as_str()).filter(|n| *n != "stage").collect();
        for some in names.chunks(200) {
            self.shoal("m1", &[&["network", "rm"], some].concat())?;
        }
        Ok(())
    }

    /// The daemon's process, as this machine counts.
    pub fn daemon(&self, host: &str) -> anyhow::Result<u32> {
        let path = self.lab.dir(host)?.join("daemon.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let digits: String =
            text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("{} holds no process id: {text}", path.display()))
    }

    /// A container's connections to another host's service by its VIP, from now on, one after the other.
    pub fn watch_traffic(&mut self) -> anyhow::Result<()> {
        let task = eventually("the client runs", SETTLES_WITHIN, || {
            let tasks = self.lab.shoal("m1", ["service", "ps", "client", "--format", "json"])?.json::<Task>()?;
            tasks.into_iter().find(|t| t.state == "running").context("it does not run")
        })?;
        let vip =
            self.shoal("m1", &["service", "inspect", "web", "--format", "{{(index .Endpoint.VirtualIPs 0).Addr}}"])?;
        self.traffic = Some(Traffic::start(&self.lab, &task, vip.trim())?);
        Ok(())
    }

    /// The longest time in this window in which no connection came about.
    pub fn longest_outage(&self, from: Instant, to: Instant) -> Duration {
        self.traffic.as_ref().map_or(Duration::ZERO, |traffic| {
            let moments = traffic.answered.lock().unwrap_or_else(PoisonError::into_inner);
            longest_gap(moments.iter().copied(), from, to)
        })
    }

    fn nodes(&self, at: &str) -> anyhow::Result<Vec<Node>> {
        self.lab.shoal(at, ["node", "ls", "--format", "json"])?.json()
    }
}

/// A process in a container's network that connects all the time.
#[derive(Debug)]
struct Traffic {
    child: Child,
    answered: Arc<Mutex<Vec<Instant>>>,
}

/// Connects every 20 ms, gives up each try after 200 ms, and prints a line for each that came about.
const PROBE: &str = r#"use IO::Socket::INET; $| = 1;
while (1) {
    my $socket = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => 80, Proto => "tcp", Timeout => 0.2);
    print "\n" if $socket;
    close $socket if $socket;
    select(undef, undef, undef, 0.02);
}"#;

impl Traffic {
    fn start(lab: &Lab, client: &Task, vip: &str) -> anyhow::Result<Self> {
        let procs = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
            .map(|root| format!("{root}/shoal/{}/{}/{}/cgroup.procs", lab.name(), client.node, client.id))
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .context("the client has no cgroup")?;
        let pid = procs.lines().next().context("the client has no process")?;
        let mut child = Command::new("nsenter")
            .args(["-t", pid, "-n", "--", "perl", "-e", PROBE, vip])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("it has an output")?).lines();
        let answered = Arc::<Mutex<Vec<Instant>>>::default();
        let seen = Arc::clone(&answered);
        thread::spawn(move || {
            for _ in lines.map_while(Result::ok) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            }
        });
        Ok(Self { child, answered })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
