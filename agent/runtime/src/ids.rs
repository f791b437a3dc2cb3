//! Which users and groups there are for this process: all, or those of the user namespace it is in. Without root there
//! is one of each, whoever started it, and it is called 0.

use std::{fs, io, ops::RangeInclusive};

/// An extent that has them all: 4,294,967,295 is no id.
const ALL: RangeInclusive<u32> = 0..=u32::MAX - 1;

/// The kernel takes no higher one for `net.ipv4.ping_group_range`.
const LAST_PINGING_GROUP: u32 = i32::MAX as u32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    users: Vec<RangeInclusive<u32>>,
    groups: Vec<RangeInclusive<u32>>,
    setgroups: bool,
}

impl Ids {
    /// Of the calling process.
    pub(crate) fn read() -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}"));
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/uid_map is not understood");
        Self::parse(&read("uid_map")?, &read("gid_map")?, &read("setgroups")?).ok_or_else(garbled)
    }

    /// user_namespaces(7): each line has the first id inside, the first outside, and how many.
    fn parse(uid_map: &str, gid_map: &str, setgroups: &str) -> Option<Self> {
        let extent = |line: &str| {
            let numbers: Option<Vec<u32>> = line.split_whitespace().map(|n| n.parse().ok()).collect();
            let [inside, _, count] = numbers?[..] else { return None };
            Some(inside..=inside.checked_add(count.checked_sub(1)?)?)
        };
        let extents = |map: &str| map.lines().map(extent).collect::<Option<Vec<_>>>();
        Some(Self { users: extents(uid_map)?, groups: extents(gid_map)?, setgroups: setgroups.trim() == "allow" })
    }

    #[cfg(test)]
    pub(crate) fn all() -> Self {
        Self { users: vec![ALL], groups: vec![ALL], setgroups: true }
    }

    #[cfg(test)]
    pub(crate) fn roots_alone() -> Self {
        Self { users: vec![0..=0], groups: vec![0..=0], setgroups: false }
    }

    /// Whether there are all of them, so that root is root of the machine.
    pub(crate) fn are_all(&self) -> bool {
        self.users == [ALL] && self.groups == [ALL]
    }

    /// Whether there is nobody but root: then all files are root's.
    pub(crate) fn are_roots_alone(&self) -> bool {
        self.users == [0..=0]
    }

    pub(crate) fn have_user(&self, id: u32) -> bool {
        self.users.iter().any(|extent| extent.contains(&id))
    }

    pub(crate) fn have_group(&self, id: u32) -> bool {
        self.groups.iter().any(|extent| extent.contains(&id))
    }

    /// Whether a process may be given further groups.
    pub(crate) fn allow_setgroups(&self) -> bool {
        self.setgroups
    }

    /// The last of the groups from 0 on that may send pings.
    pub(crate) fn last_pinging_group(&self) -> u32 {
        let first = self.groups.iter().find(|extent| extent.contains(&0));
        first.map_or(0, |extent| *extent.end()).min(LAST_PINGING_GROUP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let all = "         0          0 4294967295\n";
        let machine = Ids::parse(all, all, "allow\n").unwrap();
        assert_eq!(machine, Ids::all());
        assert!(machine.are_all() && machine.allow_setgroups() && machine.have_user(u32::MAX - 1));
        assert_eq!(machine.last_pinging_group(), 2_147_483_647);

        let alone = Ids::parse("         0      65534          1\n", "0 65534 1\n", "deny\n").unwrap();
        assert_eq!(alone, Ids::roots_alone());
        assert!(!alone.are_all() && alone.are_roots_alone() && !alone.allow_setgroups());
        assert!(alone.have_user(0) && !alone.have_user(1) && !alone.have_group(5));
        assert_eq!(alone.last_pinging_group(), 0);

        let many = Ids::parse("0 1000 1\n1 100000 65536\n", "0 100000 65536\n", "allow\n").unwrap();
        assert!(!many.are_all() && !many.are_roots_alone());
        assert!(many.have_user(65536) && !many.have_user(65537) && many.have_group(5));
        assert_eq!(many.last_pinging_group(), 65535);

        for damaged in ["0 0", "0 0 0", "4294967295 0 2", "a b c"] {
            assert_eq!(Ids::parse(damaged, all, "allow"), None, "{damaged}");
        }
    }
}
