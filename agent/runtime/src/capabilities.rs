//! Which capabilities a container has: the usual ones, more, or fewer.

use std::{fs, io};

use crate::{Error, Options};

/// capabilities(7), in the order of their numbers.
const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What this process has to give: a bit for each capability.
pub(crate) fn held() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = |field| status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix(field)?.trim(), 16).ok());
    Ok(mask("CapPrm:").unwrap_or(0) & mask("CapBnd:").unwrap_or(0))
}

/// What is left of `usual` and added to it. `ALL` is meant first, so `--cap-drop ALL --cap-add CHOWN` leaves one; it
/// means all of those that are `held`, while one that is named and not held fails the start.
pub(crate) fn chosen(usual: &[&'static str], options: &Options, held: u64) -> Result<Vec<&'static str>, Error> {
    let (add, add_all) = parse(&options.cap_add)?;
    let (drop, drop_all) = parse(&options.cap_drop)?;
    let has = |number: usize, one: &&'static str| {
        let given = held & (1 << number) != 0;
        let kept = (usual.contains(one) && !drop_all) || (add_all && given);
        if options.privileged { given } else { (kept && !drop.contains(one)) || add.contains(one) }
    };
    Ok(ALL.iter().enumerate().filter(|(number, one)| has(*number, one)).map(|(_, one)| *one).collect())
}

/// The names in the kernel's own spelling, and whether all were meant.
fn parse(names: &[String]) -> Result<(Vec<&'static str>, bool), Error> {
    let mut out = Vec::new();
    let mut all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            all = true;
        } else {
            let known = ALL.iter().find(|known| &known["CAP_".len()..] == short);
            out.push(*known.ok_or_else(|| Error::Capability(name.clone()))?);
        }
    }
    Ok((out, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_and_dropped_as_with_docker() {
        let usual = ["CAP_CHOWN", "CAP_KILL"];
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let of = |add: &[&str], drop: &[&str]| {
            chosen(&usual, &Options { cap_add: list(add), cap_drop: list(drop), ..Options::default() }, u64::MAX)
        };
        assert_eq!(of(&[], &[]).unwrap(), usual);
        assert_eq!(of(&["net_admin"], &["CAP_KILL"]).unwrap(), ["CAP_CHOWN", "CAP_NET_ADMIN"]);
        assert_eq!(of(&["SYS_TIME"], &["ALL"]).unwrap(), ["CAP_SYS_TIME"]);
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), ALL.len() - 1);
        assert!(matches!(of(&["FLY"], &[]), Err(Error::Capability(name)) if name == "FLY"));
        let privileged = Options { privileged: true, ..Options::default() };
        assert_eq!(chosen(&usual, &privileged, u64::MAX).unwrap(), ALL);
        assert_eq!(chosen(&usual, &privileged, 0b10_0001).unwrap(), ["CAP_CHOWN", "CAP_KILL"]);
    }
}
