//! The addresses of one subnet: which are in use, and which is next.
//!
//! Next-fit, and then some: the cursor walks on, and an address that was just freed is kept out of its way. While no
//! more than [`Pool::RESTING`] addresses are free, a freed one comes again only after every other has had its turn, so
//! that what hosts remember of its last holder (ARP, FDB, conntrack, a client's DNS cache) has expired.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shoal_common::Subnet;

use crate::table::{Index, Table};

#[cfg(feature = "sim")]
thread_local! {
    /// A fault for the simulation to notice: whether the address that was freed last is taken first.
    pub static REUSES_AT_ONCE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Costs what is in use, never what the subnet could hold: a /64 is as cheap as a /29.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    subnet: Subnet,
    /// Offsets from the base of the range that are not to be taken (in use, resting, or reserved), as maximal runs:
    /// first → last. So the next free offset is found in one look-up, and a full /16 is a single run.
    runs: Table<u64, u64>,
    /// Freed and not handed out since, the longest-freed first. They stand in `runs` too.
    resting: imbl::Vector<u64>,
    /// How many are in use.
    used: u64,
    /// Where the next search begins.
    cursor: u64,
    /// In use, though never handed out: outside of the range, and asked for by name.
    #[serde(default)]
    outside: Index<IpAddr>,
}

impl Pool {
    /// How many freed addresses are kept back, per subnet: what a /22 holds. Each costs 8 bytes of every snapshot.
    pub const RESTING: usize = 1024;

    pub fn new(subnet: Subnet) -> Pool {
        let (runs, resting, outside) = (Table::new(), imbl::Vector::new(), Index::new());
        let mut pool = Pool { subnet, runs, resting, used: 0, cursor: 0, outside };
        for ip in pool.reserved() {
            if let Some(offset) = pool.offset(ip) {
                pool.mark(offset);
            }
        }
        pool
    }

    pub fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    /// The next free address, now in use.
    pub fn take(&mut self) -> Option<IpAddr> {
        #[cfg(feature = "sim")]
        if let Some(offset) = REUSES_AT_ONCE.get().then(|| self.resting.pop_back()).flatten() {
            self.used += 1;
            return Some(self.address(offset));
        }
        let offset = match self.next_free() {
            Some(offset) => {
                self.mark(offset);
                self.cursor = if offset == self.last() { 0 } else { offset + 1 };
                offset
            }
            None => self.resting.pop_front()?,
        };
        self.used += 1;
        Some(self.address(offset))
    }

    /// This one of the subnet, now in use: the range is for those that nobody asks for. False, and nothing happens, if
    /// it is in use or reserved.
    pub fn take_exactly(&mut self, ip: IpAddr) -> bool {
        if !self.subnet.net.contains(&ip) || self.reserved().contains(&ip) || self.is_used(ip) {
            return false;
        }
        let Some(offset) = self.offset(ip) else {
            self.outside.insert(ip);
            return true;
        };
        match self.resting.index_of(&offset) {
            Some(at) => drop(self.resting.remove(at)),
            None => self.mark(offset),
        }
        self.used += 1;
        true
    }

    /// For people: what can be asked for.
    pub fn has(&self) -> String {
        format!("inside of {}, and neither its base nor broadcast address, its gateway or reserved", self.subnet.net)
    }

    /// Frees an address to rest. False, and nothing happens, if it was not in use.
    pub fn release(&mut self, ip: IpAddr) -> bool {
        if self.outside.remove(&ip).is_some() {
            return true;
        }
        let Some(offset) = self.offset(ip).filter(|_| self.is_used(ip)) else {
            return false;
        };
        self.used -= 1;
        self.resting.push_back(offset);
        if self.resting.len() > Self::RESTING
            && let Some(rested) = self.resting.pop_front()
        {
            self.unmark(rested);
        }
        true
    }

    pub fn is_used(&self, ip: IpAddr) -> bool {
        if self.outside.contains(&ip) {
            return true;
        }
        self.offset(ip)
            .is_some_and(|o| self.is_marked(o) && !self.resting.contains(&o) && !self.reserved().contains(&ip))
    }

    /// How many can be taken now.
    pub fn free(&self) -> u128 {
        self.total() - u128::from(self.used)
    }

    /// How many are in use, outside of the range too.
    pub fn used(&self) -> u64 {
        self.used + self.outside.len() as u64
    }

    /// How many there are to hand out, in use or not.
    pub fn total(&self) -> u128 {
        let reserved = self.reserved().into_iter().filter(|ip| self.offset(*ip).is_some()).count();
        u128::from(self.last()) + 1 - reserved as u128
    }

    /// What is wrong with the pool itself.
    pub(crate) fn violation(&self) -> Option<String> {
        let reserved = self.reserved().into_iter().filter(|ip| self.offset(*ip).is_some()).count() as u128;
        let marked: u128 = self.runs.iter().map(|(first, last)| u128::from(last - first) + 1).sum();
        let accounted = reserved + u128::from(self.used) + self.resting.len() as u128;
        let misplaced = |ip: &&IpAddr| !self.subnet.net.contains(*ip) || self.offset(**ip).is_some();
        if let Some(ip) = self.outside.iter().find(misplaced) {
            return Some(format!("{ip} is not outside of {} in {}", self.range(), self.subnet.net));
        }
        let mut ends = None;
        for (first, last) in &self.runs {
            let apart = ends.is_none_or(|end: u64| end.checked_add(1).is_some_and(|next| next < *first));
            if first > last || *last > self.last() || !apart {
                return Some(format!("run {first} to {last} of {} is out of place", self.range()));
            }
            ends = Some(*last);
        }
        (marked != accounted).then(|| format!("{marked} addresses of {} are marked, {accounted} known", self.range()))
    }

    /// Never handed out: the base address (RFC 4291 §2.6.1 gives it to routers), broadcast, gateway, the user's own.
    fn reserved(&self) -> std::collections::BTreeSet<IpAddr> {
        let Subnet { net, gateway, aux, ip_range: _ } = &self.subnet;
        let broadcast = net.addr().is_ipv4().then(|| net.broadcast());
        [net.network(), *gateway].into_iter().chain(broadcast).chain(aux.values().copied()).collect()
    }

    fn range(&self) -> IpNet {
        self.subnet.ip_range.unwrap_or(self.subnet.net)
    }

    /// The last offset of the range. Of a range beyond 2^64 addresses only the first 2^64 are used.
    fn last(&self) -> u64 {
        let range = self.range();
        let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
        1u64.checked_shl(host_bits).map_or(u64::MAX, |n| n - 1)
    }

    fn offset(&self, ip: IpAddr) -> Option<u64> {
        let range = self.range();
        if !range.contains(&ip) {
            return None;
        }
        u64::try_from(number(ip) - number(range.network())).ok()
    }

    fn address(&self, offset: u64) -> IpAddr {
        let base = self.range().network();
        let n = number(base) + u128::from(offset);
        match base {
            IpAddr::V4(_) => {
                Ipv4Addr::from(u32::try_from(n).expect("an offset inside of an IPv4 range is 32 bits")).into()
            }
            IpAddr::V6(_) => Ipv6Addr::from(n).into(),
        }
    }

    /// At or after the cursor, else from the start.
    fn next_free(&self) -> Option<u64> {
        let from = |start: u64| match self.run_of(start) {
            None => Some(start),
            // Runs are maximal: what follows one is free, or beyond the end.
            Some((_, last)) => last.checked_add(1).filter(|next| *next <= self.last()),
        };
        from(self.cursor).or_else(|| from(0))
    }

    fn run_of(&self, offset: u64) -> Option<(u64, u64)> {
        self.runs.range(..=offset).next_back().map(|(first, last)| (*first, *last)).filter(|(_, last)| *last >= offset)
    }

    fn is_marked(&self, offset: u64) -> bool {
        self.run_of(offset).is_some()
    }

    fn mark(&mut self, offset: u64) {
        if self.is_marked(offset) {
            return;
        }
        let below = offset.checked_sub(1).and_then(|o| self.run_of(o));
        let above = offset.checked_add(1).and_then(|o| self.run_of(o));
        if let Some((first, _)) = above {
            self.runs.remove(&first);
        }
        let first = below.map_or(offset, |(first, _)| first);
        let last = above.map_or(offset, |(_, last)| last);
        self.runs.insert(first, last);
    }

    fn unmark(&mut self, offset: u64) {
        let Some((first, last)) = self.run_of(offset) else {
            return;
        };
        self.runs.remove(&first);
        if first < offset {
            self.runs.insert(first, offset - 1);
        }
        if offset < last {
            self.runs.insert(offset + 1, last);
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests;
