//! Which devices a container may open on cgroup v2, where no file of the cgroup says so: a program of the kernel's, which
//! answers for each one that a process of the cgroup opens or makes. Version 1 has its `devices` hierarchy.

#![allow(unsafe_code, reason = "bpf(2) takes a pointer, and no library that calls it does without libelf")]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// Character devices that every container may use, as Docker has it: null, zero, full, random, urandom, tty, console,
/// ptmx, and all of pts, by their numbers.
const ALLOWED: &[(u32, Option<u32>)] = &[
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// linux/bpf.h
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// A program of a cgroup above, systemd's say, is asked too.
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_DEVCG_ACC_MKNOD: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// The beginning of the kernel's `union bpf_attr` for `BPF_PROG_LOAD`.
#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The beginning of the same for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// A program that is in the kernel, and not in force yet.
#[derive(Debug)]
pub(crate) struct Filter(OwnedFd);

impl Filter {
    /// Fails where the kernel has none, and with EPERM for whoever is not root of the machine.
    pub(crate) fn load() -> io::Result<Self> {
        let program = program(ALLOWED);
        let load = Load {
            kind: BPF_PROG_TYPE_CGROUP_DEVICE,
            instructions: u32::try_from(program.len()).unwrap_or(u32::MAX),
            program: program.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..Load::default()
        };
        // SAFETY: `load` is the beginning of the kernel's structure and its size is told; the kernel takes the rest as
        // zero. It points to the program and a text that end with a zero, both of which outlive the call.
        let fd = unsafe { nix::libc::syscall(nix::libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just given it to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// From now on it is in force for all processes of this cgroup and those below, until the cgroup is removed.
    pub(crate) fn attach(&self, cgroup: &Path) -> io::Result<()> {
        let cgroup = File::open(cgroup)?;
        let number = |fd: i32| u32::try_from(fd).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e));
        let attach = Attach {
            target: number(cgroup.as_raw_fd())?,
            program: number(self.0.as_raw_fd())?,
            kind: BPF_CGROUP_DEVICE,
            flags: BPF_F_ALLOW_MULTI,
        };
        // SAFETY: as above; both descriptors are open during the call.
        let done =
            unsafe { nix::libc::syscall(nix::libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// One instruction: what it does, with which registers, how far it jumps, and its constant.
const fn instruction(code: u8, to: u8, from: u8, jump: u16, constant: i32) -> u64 {
    (code as u64) | ((to as u64 | (from as u64) << 4) << 8) | ((jump as u64) << 16) | ((constant as u32 as u64) << 32)
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

const ANSWER: u8 = 0;
/// `struct bpf_cgroup_dev_ctx`: access (upper half) and type (lower half), major, minor.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// A node of any device may be made, as with Docker: it is opened that counts. Beyond that only these devices.
fn program(allowed: &[(u32, Option<u32>)]) -> Vec<u64> {
    let answer = |yes: bool| [instruction(SET, ANSWER, 0, 0, i32::from(yes)), instruction(EXIT, 0, 0, 0, 0)];
    let constant = |number: u32| i32::from_ne_bytes(number.to_ne_bytes());
    let mut out = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(COPY, ACCESS, KIND, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
        instruction(JUMP_IF_NOT, ACCESS, 0, 2, BPF_DEVCG_ACC_MKNOD),
    ];
    out.extend(answer(true));
    out.push(instruction(JUMP_IF_NOT, KIND, 0, 0, BPF_DEVCG_DEV_CHAR));
    let kind = out.len() - 1;
    for (major, minor) in allowed {
        let over = if minor.is_some() { 3 } else { 2 };
        out.push(instruction(JUMP_IF_NOT, MAJOR, 0, over, constant(*major)));
        out.extend(minor.map(|minor| instruction(JUMP_IF_NOT, MINOR, 0, 2, constant(minor))));
        out.extend(answer(true));
    }
    // Of anything but a character device: to the answer below.
    let jump = u16::try_from(out.len() - kind - 1).unwrap_or(u16::MAX);
    out[kind] = instruction(JUMP_IF_NOT, KIND, 0, jump, BPF_DEVCG_DEV_CHAR);
    out.extend(answer(false));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

    /// Where cgroup v2 is, also beside version 1.
    fn unified() -> PathBuf {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let of_v2 = |line: &str| {
            let mut fields = line.split(' ').skip(1);
            let at = fields.next()?;
            (fields.next()? == "cgroup2").then(|| at.into())
        };
        mounts.lines().find_map(of_v2).expect("cgroup v2 is mounted")
    }

    struct Group(PathBuf);

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn a_process_of_the_cgroup_opens_what_every_container_has_and_no_other_device() {
        let group = Group(unified().join(format!("shdev{}", std::process::id())));
        fs::create_dir(&group.0).unwrap();
        Filter::load().unwrap().attach(&group.0).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // kmsg is 1:11 and needs nothing else of a root that has all capabilities; loop-control is 10:237.
        let script = format!(
            "echo $$ > {0}/cgroup.procs; cd {1}; mknod null c 1 3 && mknod kmsg c 1 11 && mknod loop b 7 0 || exit 9
             for d in null kmsg loop; do (: < $d) 2>/dev/null && echo $d; done; : < /dev/zero && echo zero
             echo $$ > {2}/cgroup.procs",
            group.0.display(),
            dir.path().display(),
            unified().display(),
        );
        let ended = Command::new("sh").args(["-c", &script]).process_group(0).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(said.lines().collect::<Vec<_>>(), ["null", "zero"], "{}", String::from_utf8_lossy(&ended.stderr));
    }
}
