//! Which system calls a container may make: a list of those that are allowed, equivalent to Docker's default profile
//! (github.com/moby/profiles, June 2026). A call that is not on it is refused, so a call that a later kernel adds is
//! closed until somebody has judged it.
//!
//! A refused call that this file knows answers EPERM, as with Docker. Any other answers ENOSYS, as runc has it for calls
//! newer than its profile: C libraries try an older call on ENOSYS, and give up on EPERM.
//!
//! Known limits, all Docker's own: on 32-bit x86 `socketcall` is allowed, whose arguments a filter cannot see, so
//! `AF_VSOCK` and `AF_ALG` are reachable by it; `personality` with other values answers ENOSYS here. A name that this
//! host's libseccomp does not know (`mseal` before 2.6) answers ENOSYS too.

use serde_json::{Value, json};

/// Allowed to every container, whatever its capabilities.
const ALLOWED: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown \
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer \
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount \
    listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack \
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 \
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 \
    read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages \
    removexattr removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 \
    send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid \
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid \
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid \
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask \
    sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync \
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime \
    utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Refused with EPERM, unless a capability grants it: the host's clock, modules, mounts, namespaces, swap, keyrings,
/// tracing of the kernel, `io_uring` (which passes this filter), and calls of long ago.
const REFUSED: &str = "\
    _sysctl acct add_key bpf chroot clock_settime clock_settime64 create_module delete_module fanotify_init \
    finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module io_uring_enter \
    io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie \
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount \
    move_pages nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise \
    query_module quotactl quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node setdomainname \
    sethostname setns settimeofday stime swapoff swapon sysfs syslog umount umount2 unshare uselib userfaultfd \
    ustat vhangup vm86 vm86old";

/// What a capability grants: a container that may change the host's clock may call what changes it.
const GRANTED: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
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
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// The architectures of one kernel, the native one first, and what they have beyond [`ALLOWED`]. A call of an
/// architecture that is not named ends the process: its numbers mean other calls.
struct Machine {
    architectures: &'static [&'static str],
    allowed: &'static [&'static str],
}

const MACHINE: Machine = if cfg!(target_arch = "x86_64") {
    Machine { architectures: &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], allowed: &["arch_prctl", "modify_ldt"] }
} else if cfg!(target_arch = "aarch64") {
    Machine {
        architectures: &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        allowed: &[
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "breakpoint",
            "cacheflush",
            "set_tls",
            "sync_file_range2",
        ],
    }
} else {
    Machine { architectures: &[], allowed: &[] }
};

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const CLONE_NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// `AF_ALG` is the kernel's cryptography, a large surface that no server needs.
const AF_ALG: u64 = 38;
/// `AF_VSOCK` reaches the hypervisor past every network rule. No family lies between the two but 39.
const AF_VSOCK: u64 = 40;

/// Linux, `UNAME26`, both for 32-bit programs, and the question which it is.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// For a container of these capabilities.
pub(crate) fn profile(capabilities: &[&str]) -> Value {
    let granted = |call: &str| {
        GRANTED.iter().any(|(capability, calls)| capabilities.contains(capability) && calls.contains(&call))
    };
    let (more, refused): (Vec<&str>, Vec<&str>) = words(REFUSED).partition(|call| granted(call));
    let allowed: Vec<&str> = words(ALLOWED).chain(MACHINE.allowed.iter().copied()).chain(more).collect();
    let mut rules = vec![allow(&allowed, None), refuse(&refused, nix::libc::EPERM, None)];
    for (op, family) in [("LT", AF_ALG), ("EQ", AF_ALG + 1), ("GT", AF_VSOCK)] {
        rules.push(allow(&["socket"], Some(argument(op, family))));
    }
    for family in [AF_ALG, AF_VSOCK] {
        rules.push(refuse(&["socket"], nix::libc::EPERM, Some(argument("EQ", family))));
    }
    rules.extend(PERSONALITIES.map(|persona| allow(&["personality"], Some(argument("EQ", persona)))));
    if granted("clone") {
        rules.push(allow(&["clone", "clone3"], None));
    } else {
        // glibc falls back to clone, whose flags can be looked at: those of clone3 are in memory.
        rules.push(refuse(&["clone3"], nix::libc::ENOSYS, None));
        let all = CLONE_NAMESPACES.iter().fold(0, |all, flag| all | flag);
        rules.push(allow(&["clone"], Some(masked(all, 0))));
        // A rule for each flag, since a mask compares for equality.
        rules.extend(CLONE_NAMESPACES.map(|flag| refuse(&["clone"], nix::libc::EPERM, Some(masked(flag, flag)))));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": nix::libc::ENOSYS,
        "architectures": MACHINE.architectures,
        "syscalls": rules,
    })
}

fn words(names: &str) -> impl Iterator<Item = &str> {
    names.split_ascii_whitespace()
}

fn allow(names: &[&str], argument: Option<Value>) -> Value {
    rule(json!({ "names": names, "action": "SCMP_ACT_ALLOW" }), argument)
}

fn refuse(names: &[&str], errno: i32, argument: Option<Value>) -> Value {
    rule(json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno }), argument)
}

fn rule(mut rule: Value, argument: Option<Value>) -> Value {
    if let Some(argument) = argument {
        rule["args"] = json!([argument]);
    }
    rule
}

/// Of the first argument of a call.
fn argument(op: &str, value: u64) -> Value {
    json!({ "index": 0, "value": value, "op": format!("SCMP_CMP_{op}") })
}

/// The first argument, of which `mask` is to leave `value`. libcontainer 0.7 takes the mask from `valueTwo`; runc takes
/// it from `value`. Should that change, no container can fork, which the tests would show.
fn masked(mask: u64, value: u64) -> Value {
    json!({ "index": 0, "value": value, "valueTwo": mask, "op": "SCMP_CMP_MASKED_EQ" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The names that are allowed whatever their arguments.
    fn allowed(capabilities: &[&str]) -> BTreeSet<String> {
        let profile = profile(capabilities);
        let rules = profile["syscalls"].as_array().unwrap().iter();
        let plain = rules.filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none());
        plain.flat_map(|rule| rule["names"].as_array().unwrap()).map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn no_call_is_both_allowed_and_refused_and_each_list_is_in_order() {
        for list in [ALLOWED, REFUSED] {
            assert!(words(list).is_sorted(), "{list}");
        }
        let refused: BTreeSet<&str> = words(REFUSED).collect();
        assert!(words(ALLOWED).chain(MACHINE.allowed.iter().copied()).all(|call| !refused.contains(call)));
        let known = |call: &&str| refused.contains(call) || ["clone", "clone3"].contains(call);
        assert!(GRANTED.iter().flat_map(|(_, calls)| *calls).all(known));
    }

    #[test]
    fn a_call_is_open_only_by_name_or_by_a_capability() {
        let usual = allowed(&["CAP_CHOWN", "CAP_SYS_CHROOT"]);
        for open in ["accept4", "epoll_pwait2", "futex_waitv", "chroot", "ptrace", "landlock_restrict_self"] {
            assert!(usual.contains(open), "{open}");
        }
        for shut in
            ["mount", "io_uring_setup", "bpf", "keyctl", "clone", "clone3", "socket", "personality", "open_tree_attr"]
        {
            assert!(!usual.contains(shut), "{shut}");
        }
        assert!(!allowed(&[]).contains("chroot"));
        let admin = allowed(&["CAP_SYS_ADMIN"]);
        assert!(admin.contains("mount") && admin.contains("clone3") && !admin.contains("io_uring_setup"));
        assert!(allowed(&["CAP_SYS_TIME"]).contains("clock_settime"));
    }
}
