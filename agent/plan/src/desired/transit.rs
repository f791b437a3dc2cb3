//! The addresses between a sandbox and its host.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use shoal_common::Vni;
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

/// The pair of addresses between a sandbox and its host. They never leave the host, so they come from a block that
/// nobody's network can be in: 240.0.0.0/4 (RFC 1112 §4, reserved; Linux routes it), and a ULA prefix of our own.
/// Unique per network because the VNI is.
pub(super) struct Transit {
    pub(super) host4: Ipv4Addr,
    pub(super) sandbox4: Ipv4Addr,
    pub(super) host6: Ipv6Addr,
    pub(super) sandbox6: Ipv6Addr,
}

const TRANSIT4: u32 = 0xf000_0000;
/// fd73:686f:616c::/48: "shoal" in ASCII, less its first byte.
const TRANSIT6: u128 = 0xfd73_686f_616c_0000_0000_0000_0000_0000;

impl Transit {
    pub(super) fn of(vni: Vni) -> Self {
        let offset = vni.get() * 2;
        let v4 = TRANSIT4 | offset;
        let v6 = TRANSIT6 | u128::from(offset);
        Self { host4: v4.into(), sandbox4: (v4 + 1).into(), host6: v6.into(), sandbox6: (v6 + 1).into() }
    }

    /// All of them.
    pub(super) fn pools() -> [IpNet; 2] {
        [
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(TRANSIT4), 4)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(TRANSIT6), 48)),
        ]
    }

    fn both(v4: Ipv4Addr, v6: Ipv6Addr) -> BTreeSet<IpNet> {
        let nets = [IpNet::new(v4.into(), 31), IpNet::new(v6.into(), 127)];
        nets.into_iter().filter_map(Result::ok).collect()
    }

    pub(super) fn host_addresses(&self) -> BTreeSet<IpNet> {
        Self::both(self.host4, self.host6)
    }

    pub(super) fn sandbox_addresses(&self) -> BTreeSet<IpNet> {
        Self::both(self.sandbox4, self.sandbox6)
    }
}
