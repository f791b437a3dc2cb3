//! The hosts of a lab, without a cluster: what is in them, their cables, their power, and that nothing is left. Needs
//! root, as a lab does. The daemon is a stand-in that listens and counts signals: hosts are what is tried here.

#![allow(clippy::unwrap_used)]

use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;
use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// Where the stand-in listens.
const SOCKET_VARIABLE: &str = "SHOAL_TEST_SOCKET";

/// What the hosts run for a daemon: this test, with SIGTERM kept for [`stand_in`].
fn stand_in_script() -> String {
    let this = std::env::current_exe().unwrap();
    format!(
        "#!/bin/sh\nwhile [ \"$1\" != --socket ]; do shift; done\n\
         {SOCKET_VARIABLE}=\"$2\" exec env --block-signal=TERM '{}' --ignored --exact stand_in \"$2\" --nocapture\n",
        this.display()
    )
}

#[test]
#[ignore = "the daemon of the other tests"]
fn stand_in() {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else { return };
    if Path::new(&socket).exists() {
        fs::remove_file(&socket).unwrap();
    }
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    SigSet::from(Signal::SIGTERM).wait().unwrap();
    eprintln!("asked to end");
    std::process::exit(0);
}

/// A lab in a directory of its own, removed whatever happens.
struct Lab {
    name: String,
    dir: TempDir,
}

impl Lab {
    fn new(purpose: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("lab").tempdir_in("/tmp").unwrap();
        let stand_in = dir.path().join("stand-in");
        fs::write(&stand_in, stand_in_script()).unwrap();
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
        Self { name: format!("{purpose}-{}", std::process::id()), dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("labs")
    }

    fn of(&self, file: &str) -> PathBuf {
        self.root().join(&self.name).join(file)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut shoal = Command::new(env!("CARGO_BIN_EXE_shoal"));
        shoal.args(["lab", "--name", &self.name]).args(args).env("SHOAL_LAB_DIR", self.root());
        shoal.output().unwrap()
    }

    /// What it printed; it must end well.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The exit code and what it said; it must not end well.
    fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn up(&self, managers: &str, workers: &str) -> String {
        let stand_in = self.dir.path().join("stand-in");
        let stand_in = stand_in.to_str().unwrap();
        self.ok(&["up", "--no-cluster", "--managers", managers, "--workers", workers, "--daemon", stand_in])
    }

    fn sh(&self, host: &str, script: &str) -> String {
        self.ok(&["exec", host, "--", "sh", "-c", script])
    }

    fn reaches(&self, from: &str, address: &str) -> bool {
        self.run(&["exec", from, "--", "ping", "-q", "-n", "-c1", "-W1", address]).status.success()
    }

    /// `up`, `daemon down` or `off`, of each host.
    fn states(&self) -> Vec<String> {
        let rows = self.ok(&["ls", "--format", "json"]);
        let state = |line: &str| serde_json::from_str::<Value>(line).unwrap()["state"].as_str().unwrap().to_owned();
        rows.lines().map(state).collect()
    }

    fn pid(&self, file: &str) -> String {
        fs::read_to_string(self.of(file)).unwrap().split(' ').next().unwrap().to_owned()
    }

    fn cgroups(&self, below: &str) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|e| e.unwrap().path());
        hierarchies.map(|h| h.join("shoal").join(&self.name).join(below)).filter(|dir| dir.exists()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.root().join(&self.name).exists() {
            self.run(&["down"]);
        }
    }
}

/// The processes that have this text in their command line.
fn processes(text: &str) -> Vec<String> {
    let line = |pid: &str| fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    pids.map(|pid| String::from_utf8_lossy(&line(&pid)).replace('\0', " ")).filter(|line| line.contains(text)).collect()
}

#[test]
fn hosts_are_hosts() {
    let lab = Lab::new("hosts");
    let said = lab.up("2", "1");
    assert!(said.starts_with(&format!("Lab {} is up: m1 m2 w1.", lab.name)), "{said}");
    assert_eq!(lab.states(), ["up", "up", "up"]);
    // Its own name, links, processes and /run; the machine's cgroups.
    assert_eq!(
        lab.sh("w1", "hostname; ls /sys/class/net; cat /proc/1/comm; ls /run | wc -l"),
        "w1\neth0\nlo\nshoal\n0"
    );
    assert_eq!(lab.sh("w1", "ls /sys/fs/cgroup"), lab_free("ls /sys/fs/cgroup"));
    assert_eq!(lab.sh("m2", "echo $SHOAL_HOST"), lab.of("hosts/m2/shoal.sock").to_str().unwrap());
    let ours = Path::new(env!("CARGO_BIN_EXE_shoal"));
    assert_eq!(lab.sh("m2", "command -v shoal"), ours.to_str().unwrap());
    for address in ["172.31.0.12", "172.31.0.101", "fd5a:10ab::c"] {
        assert!(lab.reaches("m1", address), "{address}");
    }
    // Exit codes and signals come through.
    assert_eq!(lab.fails(&["exec", "m1", "--", "sh", "-c", "exit 7"]).0, 7);
    assert_eq!(lab.fails(&["exec", "m1", "--", "sh", "-c", "kill -9 $$"]).0, 137);
    assert_eq!(lab.fails(&["exec", "m1", "--", "no-such-program"]).0, 127);
    let (code, said) = lab.fails(&["exec", "m3", "--", "true"]);
    assert!(code == 3 && said.contains("there are m1, m2, w1"), "{said}");
    let (code, said) = lab.fails(&["up"]);
    assert!(code == 4 && said.contains("exists"), "{said}");
}

fn lab_free(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_partition_cuts_and_heal_joins_again() {
    let lab = Lab::new("cables");
    lab.up("2", "2");
    lab.ok(&["partition", "m1", "w1"]);
    assert!(lab.reaches("m1", "172.31.0.101") && lab.reaches("m2", "172.31.0.102"), "within each side");
    for (from, to) in [("m1", "172.31.0.12"), ("m2", "172.31.0.11"), ("w2", "172.31.0.101"), ("w1", "fd5a:10ab::66")] {
        assert!(!lab.reaches(from, to), "{from} to {to}");
    }
    lab.ok(&["partition", "w1"]);
    assert!(!lab.reaches("m1", "172.31.0.101"), "cut off from those it was cut off with");
    // Losing its power mends no cable.
    lab.ok(&["power-off", "w1"]);
    lab.ok(&["start", "w1"]);
    assert!(!lab.reaches("w1", "172.31.0.11") && !lab.reaches("w1", "172.31.0.12"));
    lab.ok(&["heal"]);
    for (from, to) in [("m1", "172.31.0.12"), ("w1", "172.31.0.11"), ("w1", "172.31.0.102"), ("m2", "172.31.0.11")] {
        assert!(lab.reaches(from, to), "{from} to {to}");
    }
    lab.ok(&["heal"]);
}

#[test]
fn a_daemon_dies_alone_and_power_takes_all() {
    let lab = Lab::new("power");
    lab.up("1", "1");
    let marker = format!("1{:08}", std::process::id());
    let asleep = || processes(&format!("sleep {marker}")).len();
    lab.sh("w1", &format!("sleep {marker} >/dev/null 2>&1 & touch /run/x {}/kept", lab.of("hosts/w1/data").display()));
    let group = format!("mkdir -p $g/shoal/{0}/w1/task && echo 0 > $g/shoal/{0}/w1/task/cgroup.procs", lab.name);
    let in_group = format!(
        "for g in /sys/fs/cgroup/pids /sys/fs/cgroup/unified; do [ ! -d $g ] || {{ {group}; }}; done; \
                            sleep {marker} >/dev/null 2>&1 &"
    );
    lab.sh("w1", &in_group);
    assert_eq!(asleep(), 2);

    lab.ok(&["kill", "w1"]);
    assert_eq!((lab.states(), asleep()), (vec!["up".to_owned(), "daemon down".to_owned()], 2));
    lab.ok(&["start", "w1"]);
    assert_eq!((lab.states(), asleep()), (vec!["up".to_owned(), "up".to_owned()], 2));
    lab.ok(&["stop", "w1"]);
    let log = fs::read_to_string(lab.of("hosts/w1/daemon.log")).unwrap();
    assert_eq!(log.matches("asked to end").count(), 1, "SIGTERM once, and never after SIGKILL: {log}");
    assert_eq!((lab.states()[1].as_str(), asleep()), ("daemon down", 2));

    assert!(!lab.cgroups("w1/task").is_empty(), "the test made one");
    lab.ok(&["power-off", "w1"]);
    assert_eq!((lab.states()[1].as_str(), asleep()), ("off", 0));
    assert_eq!(lab.cgroups("w1"), Vec::<PathBuf>::new());
    assert!(!lab.reaches("m1", "172.31.0.101"));
    let (code, said) = lab.fails(&["exec", "w1", "--", "true"]);
    assert!(code == 4 && said.contains("host w1 is off"), "{said}");
    lab.ok(&["power-off", "w1"]);

    lab.ok(&["start", "w1"]);
    assert_eq!(lab.states(), ["up", "up"]);
    assert!(lab.reaches("m1", "172.31.0.101"));
    let left = lab.sh("w1", &format!("ls /run {}", lab.of("hosts/w1/data").display()));
    assert!(left.contains("kept") && !left.lines().any(|l| l == "x"), "disks keep, /run forgets: {left}");
}

#[test]
fn down_leaves_nothing_even_of_half_a_lab() {
    let lab = Lab::new("down");
    lab.up("2", "0");
    lab.sh("m1", "sleep 100000 >/dev/null 2>&1 &");
    // A crash of this and that.
    let switch = lab.pid("switch/init.pid");
    Command::new("kill").args(["-9", &switch]).status().unwrap();
    fs::remove_file(lab.of("lab.json")).unwrap();
    fs::write(lab.of("hosts/m2/daemon.pid"), "12").unwrap();
    // Its number is a stranger's now.
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let record = fs::read_to_string(lab.of("switch/init.pid")).unwrap();
    fs::write(lab.of("switch/init.pid"), record.replacen(&switch, &stranger.id().to_string(), 1)).unwrap();

    lab.ok(&["down"]);
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let dir = lab.root();
    assert_eq!(processes(dir.to_str().unwrap()), Vec::<String>::new());
    assert_eq!(lab.cgroups(""), Vec::<PathBuf>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()));
    assert!(!dir.exists(), "the last lab takes the directory with it");
    assert_eq!(lab.fails(&["down"]).0, 3);
    assert!(!dir.exists(), "and nothing brings it back");
}

#[test]
fn a_daemon_that_ends_at_once_is_told_with_its_last_words_and_the_lab_goes_again() {
    let lab = Lab::new("words");
    let daemon = lab.dir.path().join("ends");
    fs::write(&daemon, "#!/bin/sh\necho 'cannot listen: no luck today' >&2\nexit 1\n").unwrap();
    fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
    let up = ["up", "--no-cluster", "--managers", "1", "--workers", "1", "--daemon", daemon.to_str().unwrap()];
    let (code, said) = lab.fails(&up);
    assert!(code == 1 && said.contains("the daemon of m1 did not start") && said.contains("no luck today"), "{said}");
    assert!(!lab.root().exists());
    assert_eq!(processes(lab.root().to_str().unwrap()), Vec::<String>::new());
}
