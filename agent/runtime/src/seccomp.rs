//! The system calls that no container may make.

use serde_json::{Value, json};

/// What Docker's default profile refuses without further capabilities: the host's clock, modules, mounts,
/// namespaces, swap, keyrings, tracing of kernel and foreign memory, and calls of long ago. Refused with EPERM.
const REFUSED: &[&str] = &[
    "_sysctl",
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_settime",
    "clock_settime64",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "migrate_pages",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vm86",
    "vm86old",
];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const CLONE_NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// `AF_VSOCK` reaches the hypervisor past every network rule.
const AF_VSOCK: u64 = 40;

/// What Docker's profile grants with a capability: who may change the host's clock may call what changes it.
const GRANTED: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    (
        "CAP_SYS_TIME",
        &["clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64", "settimeofday", "stime"],
    ),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// For a container of these capabilities.
pub(crate) fn profile(capabilities: &[&str]) -> Value {
    let granted = |call: &str| {
        GRANTED.iter().any(|(capability, calls)| capabilities.contains(capability) && calls.contains(&call))
    };
    let refused: Vec<&str> = REFUSED.iter().copied().filter(|call| !granted(call)).collect();
    let mut rules = vec![
        json!({ "names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": nix::libc::EPERM }),
        json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": nix::libc::EPERM,
                "args": [{ "index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_EQ" }] }),
    ];
    if !capabilities.contains(&"CAP_SYS_ADMIN") {
        // glibc falls back to clone, whose flags can be looked at.
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": nix::libc::ENOSYS }));
        rules.extend(CLONE_NAMESPACES.into_iter().map(clone_into));
    }
    // What is not named here is killed: the calls of a foreign architecture would pass all rules.
    let architectures: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    };
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules })
}

/// A rule per flag, since a mask compares for equality.
fn clone_into(flag: u64) -> Value {
    json!({ "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": nix::libc::EPERM,
            "args": [{ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" }] })
}
