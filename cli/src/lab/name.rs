//! Names: of a lab, and of the hosts in it.

use serde::{Deserialize, Serialize};
use shoal_common::node::Role;
use std::{
    cmp::Ordering,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A lab's name is part of paths and of cgroups.
const MAX_NAME_BYTES: usize = 32;

/// Addresses .11 to .60; more voters than that nobody wants.
pub(crate) const MAX_MANAGERS: i64 = 50;
/// Addresses .101 to .250.
pub(crate) const MAX_WORKERS: i64 = 150;

const FIRST_MANAGER: u8 = 11;
const FIRST_WORKER: u8 = 101;

/// Lower case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LabName(String);

impl FromStr for LabName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if s.is_empty() || s.len() > MAX_NAME_BYTES || !s.chars().all(good) || s.starts_with('-') {
            return Err(format!("a lab's name has up to {MAX_NAME_BYTES} lower case letters, digits and hyphens"));
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `m2`: the second of the hosts that begin as managers. All else about the host follows from it: each lab's switch
/// is a network of its own, so every lab has the same addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct HostName {
    role: Role,
    /// From 1.
    number: u8,
}

impl HostName {
    /// The hosts of a lab, managers first.
    pub(super) fn all(managers: u8, workers: u8) -> impl Iterator<Item = Self> {
        let of = |role, count| (1..=count).map(move |number| Self { role, number });
        of(Role::Manager, managers).chain(of(Role::Worker, workers))
    }

    pub(super) fn role(self) -> Role {
        self.role
    }

    fn last_byte(self) -> u8 {
        let first = match self.role {
            Role::Manager => FIRST_MANAGER,
            Role::Worker => FIRST_WORKER,
        };
        first + (self.number - 1)
    }

    pub(super) fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, 0, self.last_byte())
    }

    pub(super) fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd5a, 0x10ab, 0, 0, 0, 0, 0, self.last_byte().into())
    }

    /// The same after power-off and start, as a network card's: others may still have it in their caches.
    pub(super) fn mac(self) -> String {
        format!("02:5a:ac:1f:00:{:02x}", self.last_byte())
    }
}

/// Managers first.
impl Ord for HostName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.last_byte().cmp(&other.last_byte())
    }
}

impl PartialOrd for HostName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.role {
            Role::Manager => 'm',
            Role::Worker => 'w',
        };
        write!(f, "{letter}{}", self.number)
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s} is not the name of a host: m1, m2, … and w1, w2, … are");
        let (role, number, max) = match s.split_at_checked(1) {
            Some(("m", number)) => (Role::Manager, number, MAX_MANAGERS),
            Some(("w", number)) => (Role::Worker, number, MAX_WORKERS),
            Some(_) | None => return Err(bad()),
        };
        let host = Self { role, number: number.parse().map_err(|_| bad())? };
        if i64::from(host.number) > max || host.to_string() != s || host.number == 0 { Err(bad()) } else { Ok(host) }
    }
}

impl From<HostName> for String {
    fn from(host: HostName) -> Self {
        host.to_string()
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_host_of_the_largest_lab_has_its_own_addresses_and_is_read_back() {
        let all: Vec<HostName> = HostName::all(50, 150).collect();
        assert_eq!(all.iter().map(|h| h.v4()).collect::<BTreeSet<_>>().len(), 200);
        assert_eq!(all.iter().map(|h| h.mac()).collect::<BTreeSet<_>>().len(), 200);
        for host in all {
            assert_eq!(host.to_string().parse(), Ok(host));
        }
        let m1: HostName = "m1".parse().unwrap();
        assert_eq!((m1.v4().to_string(), m1.v6().to_string()), ("172.31.0.11".into(), "fd5a:10ab::b".into()));
        assert_eq!("w2".parse::<HostName>().unwrap().v4().to_string(), "172.31.0.102");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for name in ["", "m", "m0", "m01", "m51", "w151", "w256", "x1", "1", "m+1", "ü1", "../m1"] {
            assert!(name.parse::<HostName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_labs_name_cannot_leave_its_directory() {
        for name in ["", ".", "..", "a/b", "-x", "Lab", "a b", &"a".repeat(33)] {
            assert!(name.parse::<LabName>().is_err(), "{name}");
        }
        assert!("test-3".parse::<LabName>().is_ok());
    }
}
