//! The OCI runtime specification of a container: what Docker gives one by default, in the same words.

use serde_json::{Value, json};
use shoal_common::service::Resources;

use std::path::PathBuf;

use crate::{
    Error, capabilities,
    cgroup::{self, Cgroups},
    devices,
    ids::Ids,
    mounts,
    record::{Dir, Record},
    seccomp,
    user::User,
};

const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The group of terminals, on every distribution.
const TTY: u32 = 5;

/// Processes and threads of a container for which nobody said otherwise. Docker sets no limit, and one fork bomb then
/// takes all pids of the host; Podman's is 2,048. Programs with a thread for each connection come to some hundred.
pub const PIDS_LIMIT_DEFAULT: u64 = 4096;

/// The kernel's own default, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// The kernel refuses less.
const CPU_QUOTA_MIN: u64 = 1_000;

/// What the host's kernel offers, which changes what a container is given.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) cgroup_namespaces: bool,
    pub(crate) cgroups: Cgroups,
    pub(crate) ids: Ids,
    /// Of the supervisor.
    pub(crate) oom_score_adj: i32,
    /// What can be given to those who shall have all.
    pub(crate) capabilities: u64,
    /// Whether a container's devices are filtered, so that one that it makes is of no use.
    pub(crate) filters_devices: bool,
    pub(crate) limits_pids: bool,
}

impl Host {
    /// Whatever protects the daemon shall not protect what it runs. Only root of the machine may go below what root
    /// set before (a desktop's programs have some hundreds, say), so anybody else leaves it there.
    fn container_oom_score_adj(&self) -> i32 {
        if self.ids.are_all() { 0 } else { self.oom_score_adj.max(0) }
    }
}

/// The whole of `config.json`.
pub(crate) fn spec(record: &Record, dir: &Dir, user: &User, host: &Host) -> Result<Value, Error> {
    let mut usual = CAPABILITIES.to_vec();
    if host.filters_devices {
        usual.push("CAP_MKNOD");
    }
    let options = &record.options;
    let bounding = capabilities::chosen(&usual, options, host.capabilities)?;
    // As execve would leave it: only root keeps what is in the bounding set.
    let held: &[&str] = if user.uid == 0 { &bounding } else { &[] };

    let mut namespaces =
        vec![json!({ "type": "pid" }), json!({ "type": "ipc" }), json!({ "type": "uts" }), json!({ "type": "mount" })];
    if !options.host_network {
        namespaces.push(json!({ "type": "network", "path": record.netns }));
    }
    if host.cgroup_namespaces {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": { "path": dir.at("rootfs"), "readonly": options.read_only },
        "hostname": record.hostname,
        "process": {
            "terminal": options.tty,
            "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
            "args": record.args,
            "env": user.environment(record.env.clone()),
            "cwd": record.cwd,
            "oomScoreAdj": host.container_oom_score_adj(),
            "capabilities": {
                "bounding": bounding, "permitted": held, "effective": held, "inheritable": [], "ambient": [],
            },
        },
        "mounts": mounts(record, dir, host),
        "linux": {
            "cgroupsPath": record.cgroup,
            "namespaces": namespaces,
            // None: libcontainer would filter devices at the least, and there is nothing to do that with.
            "resources": (host.cgroups != Cgroups::None).then(|| resources(&record.resources, host.limits_pids)),
            "maskedPaths": MASKED,
            "readonlyPaths": read_only(record, cgroup::read_only_paths(host.cgroups)),
            "seccomp": seccomp::profile(&bounding),
            // The namespace is the container's own, so nobody else's ports are meant.
            "sysctl": (!options.host_network).then(|| json!({
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": format!("0 {}", host.ids.last_pinging_group()),
            })),
        },
    });
    if options.privileged {
        let linux = &mut spec["linux"];
        for protection in ["maskedPaths", "readonlyPaths", "seccomp"] {
            linux[protection] = Value::Null;
        }
        if host.cgroups != Cgroups::None {
            linux["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
        }
        linux["devices"] = devices::of_host().into();
    }
    Ok(spec)
}

fn mounts(record: &Record, dir: &Dir, host: &Host) -> Vec<Value> {
    let access = if record.options.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let file = |destination: &str, name: &str| json!({ "destination": destination, "type": "bind", "source": dir.at(name), "options": ["rbind", "rprivate"] });
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if host.ids.have_group(TTY) {
        terminals.push("gid=5");
    }
    let mut out = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &terminals),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
        file("/etc/hosts", "hosts"),
        file("/etc/hostname", "hostname"),
        file("/etc/resolv.conf", "resolv.conf"),
    ];
    if host.cgroups != Cgroups::None {
        out.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]));
    }
    // What the user mounts at one of these places is instead of it.
    let own = mounts::specified(record, dir);
    out.retain(|usual| own.iter().all(|mount| mount["destination"] != usual["destination"]));
    out.extend(own);
    out
}

/// Cgroups that the user mounts are as the user says: an init system in a container writes to them.
fn read_only(record: &Record, cgroups: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_users = |path: &PathBuf| record.options.mounts.iter().any(|mount| path.starts_with(&mount.target));
    READONLY.iter().map(PathBuf::from).chain(cgroups.into_iter().filter(|path| !is_users(path))).collect()
}

fn resources(wanted: &Resources, limits_pids: bool) -> Value {
    let mut out = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if wanted.limits.memory_bytes > 0 {
        out["memory"] = json!({ "limit": i64::try_from(wanted.limits.memory_bytes).unwrap_or(i64::MAX) });
    }
    if wanted.limits.nano_cpus > 0 {
        // A billion of them is one core, which is a whole period; in u128 no number of cores overflows.
        let quota = u128::from(wanted.limits.nano_cpus) * u128::from(CPU_PERIOD) / 1_000_000_000;
        let quota = i64::try_from(quota.max(u128::from(CPU_QUOTA_MIN))).unwrap_or(i64::MAX);
        out["cpu"] = json!({ "quota": quota, "period": CPU_PERIOD });
    }
    // A limit that cannot be kept fails the start if somebody asked for it.
    if wanted.pids_limit > 0 || limits_pids {
        let limit = if wanted.pids_limit > 0 { wanted.pids_limit } else { PIDS_LIMIT_DEFAULT };
        // -1 is none.
        out["pids"] = json!({ "limit": i64::try_from(limit).unwrap_or(-1) });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::service::Amount;

    #[test]
    fn limits_are_said_only_where_there_are_some() {
        let none = resources(&Resources::default(), false);
        assert!(none.get("memory").is_none() && none.get("cpu").is_none() && none.get("pids").is_none());
        assert_eq!(resources(&Resources::default(), true)["pids"], json!({ "limit": PIDS_LIMIT_DEFAULT }));
        let unlimited = Resources { pids_limit: Resources::PIDS_UNLIMITED, ..Resources::default() };
        assert_eq!(resources(&unlimited, true)["pids"], json!({ "limit": -1 }));

        let limits = Amount { nano_cpus: 1_500_000_000, memory_bytes: 64 << 20 };
        let some = resources(&Resources { limits, pids_limit: 7, ..Resources::default() }, true);
        assert_eq!(some["cpu"], json!({ "quota": 150_000, "period": 100_000 }));
        assert_eq!(some["memory"], json!({ "limit": 67_108_864 }));
        assert_eq!(some["pids"], json!({ "limit": 7 }));
    }

    #[test]
    fn a_sliver_of_a_core_is_raised_to_what_the_kernel_takes() {
        let limits = Amount { nano_cpus: 1, memory_bytes: 0 };
        assert_eq!(resources(&Resources { limits, ..Resources::default() }, true)["cpu"]["quota"], 1_000);
    }
}
