//! Small values of Linux networking.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::Invalid;

/// A VXLAN network identifier (RFC 7348 §5): 24 bits, and never zero here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The lowest that is allocated; Docker Swarm begins here too, and the first 4095 invite mix-ups with VLAN ids.
    pub const FIRST: Vni = Vni(4096);
    pub const LAST: Vni = Vni(0x00ff_ffff);

    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = Invalid;
    fn try_from(n: u32) -> Result<Self, Invalid> {
        if (1..=Self::LAST.0).contains(&n) {
            Ok(Self(n))
        } else {
            Err(Invalid::new("vni", n, "a number from 1 to 16777215"))
        }
    }
}

impl From<Vni> for u32 {
    fn from(v: Vni) -> u32 {
        v.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address of a VXLAN tunnel end point: a host's underlay address.
pub type Vtep = IpAddr;

/// A link's maximum transmission unit in bytes: at least what IPv6 demands (RFC 8200 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    pub const MIN: Mtu = Mtu(1280);
    pub const ETHERNET: Mtu = Mtu(1500);

    pub fn get(self) -> u32 {
        self.0
    }

    /// What is left of an underlay's MTU inside VXLAN: outer IP, UDP 8, VXLAN 8, inner Ethernet 14.
    pub fn inside_vxlan(self, underlay: IpAddr) -> Mtu {
        let overhead = match underlay {
            IpAddr::V4(_) => 50,
            IpAddr::V6(_) => 70,
        };
        Mtu((self.0.saturating_sub(overhead)).max(Self::MIN.0))
    }
}

impl TryFrom<u32> for Mtu {
    type Error = Invalid;
    fn try_from(n: u32) -> Result<Self, Invalid> {
        if (Self::MIN.0..=65_535).contains(&n) {
            Ok(Self(n))
        } else {
            Err(Invalid::new("mtu", n, "a number from 1280 to 65535"))
        }
    }
}

impl From<Mtu> for u32 {
    fn from(m: Mtu) -> u32 {
        m.0
    }
}

/// The Ethernet address of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of an endpoint: locally administered, unicast, and a function of its IPv4 address, so that
    /// whoever still remembers the pair after the address was handed on remembers something true.
    pub fn of_v4(ip: Ipv4Addr) -> MacAddr {
        let [a, b, c, d] = ip.octets();
        MacAddr([0x02, 0x42, a, b, c, d])
    }

    /// The same for an endpoint that has no IPv4 address: the last 32 bits of its IPv6 address.
    pub fn of_v6(ip: Ipv6Addr) -> MacAddr {
        let o = ip.octets();
        MacAddr([0x02, 0x43, o[12], o[13], o[14], o[15]])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("mac address", s, "six pairs of hex digits such as 02:42:0a:00:01:03");
        let mut bytes = [0u8; 6];
        let mut parts = s.split(':');
        for b in &mut bytes {
            let p = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *b = u8::from_str_radix(p, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        // is_valid_ether_addr() of linux/etherdevice.h.
        if bytes == [0; 6] || bytes[0] & 1 == 1 {
            return Err(Invalid::new("mac address", s, "a unicast address: not all zeros, and its first byte even"));
        }
        Ok(Self(bytes))
    }
}

/// The name of a network link. The kernel answers ERANGE beyond 15 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

impl LinkName {
    /// IFNAMSIZ less its NUL (`linux/if.h`).
    pub const MAX_BYTES: usize = 15;

    /// What the names of Shoal's own links in a host's namespace begin with: bridges, their ports, and ways out.
    pub const OWN_BRIDGE: &'static str = "shb";
    pub const OWN_PORT: &'static str = "shp";
    pub const OWN_UPLINK: &'static str = "shx";

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether no user may give it to a link: an agent knows links of its own by such names.
    pub fn is_reserved(&self) -> bool {
        [Self::OWN_BRIDGE, Self::OWN_PORT, Self::OWN_UPLINK].iter().any(|own| self.0.starts_with(own))
    }

    /// `eth0.50` is VLAN 50 on eth0; what follows the last dot is a number, or else the name a plain one.
    pub fn vlan(&self) -> Result<Option<(LinkName, u16)>, Invalid> {
        let is_number = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        let parts = self.0.rsplit_once('.').filter(|(parent, id)| !parent.is_empty() && is_number(id));
        let Some((parent, id)) = parts else { return Ok(None) };
        match id.parse().ok().filter(|id| VLAN_IDS.contains(id)) {
            Some(id) => Ok(Some((parent.parse()?, id))),
            None => Err(Invalid::new("link name", self, "a VLAN id from 1 to 4094 behind the dot, as in eth0.50")),
        }
    }
}

/// IEEE 802.1Q: 0 is no VLAN, and 4095 reserved.
const VLAN_IDS: std::ops::RangeInclusive<u16> = 1..=4094;

impl FromStr for LinkName {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        // dev_valid_name() of net/core/dev.c.
        let fits = !s.is_empty()
            && s.len() <= Self::MAX_BYTES
            && s != "."
            && s != ".."
            && s.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
        if fits {
            Ok(Self(s.to_owned()))
        } else {
            Err(Invalid::new("link name", s, "1 to 15 printable ASCII characters without '/' and ':'"))
        }
    }
}

impl TryFrom<String> for LinkName {
    type Error = Invalid;
    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<LinkName> for String {
    fn from(n: LinkName) -> String {
        n.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_the_kernel_are_the_limits_of_the_types() {
        assert!(Vni::try_from(0).is_err() && Vni::try_from(1 << 24).is_err() && Vni::try_from(1).is_ok());
        assert!("a23456789012345".parse::<LinkName>().is_ok());
        assert!("a234567890123456".parse::<LinkName>().is_err());
        assert!("a/b".parse::<LinkName>().is_err());
    }

    #[test]
    fn a_vlan_is_a_number_behind_a_dot() {
        let link = |text: &str| text.parse::<LinkName>().unwrap();
        for (name, id) in [("eth0.1", 1), ("eth0.4094", 4094), ("br-lan.x.50", 50)] {
            let parent = link(name.rsplit_once('.').unwrap().0);
            assert_eq!(link(name).vlan(), Ok(Some((parent, id))), "{name}");
        }
        for name in ["eth0", "eth0.foo", "eth0.", ".5", "eth0.5a", "eth0.+5"] {
            assert_eq!(link(name).vlan(), Ok(None), "{name}");
        }
        for name in ["eth0.0", "eth0.4095", "eth0.5000", "eth0.99999999"] {
            assert!(link(name).vlan().unwrap_err().to_string().contains("1 to 4094"), "{name}");
        }
    }

    #[test]
    fn a_mac_address_reads_back_what_it_prints() {
        let mac = MacAddr::of_v4(Ipv4Addr::new(10, 0, 1, 3));
        assert_eq!(mac.to_string(), "02:42:0a:00:01:03");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert!("02:42:0a:00:01".parse::<MacAddr>().is_err());
        assert!("02:42:0a:00:01:03:04".parse::<MacAddr>().is_err());
        for nobodys in ["00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff"] {
            let refused = nobodys.parse::<MacAddr>().unwrap_err().to_string();
            assert!(refused.contains(nobodys) && refused.contains("unicast"), "{refused}");
        }
    }

    #[test]
    fn vxlan_takes_fifty_bytes_over_v4_and_seventy_over_v6() {
        assert_eq!(Mtu::ETHERNET.inside_vxlan(IpAddr::V4(Ipv4Addr::LOCALHOST)).get(), 1450);
        assert_eq!(Mtu::ETHERNET.inside_vxlan(IpAddr::V6(Ipv6Addr::LOCALHOST)).get(), 1430);
        assert_eq!(Mtu::MIN.inside_vxlan(IpAddr::V4(Ipv4Addr::LOCALHOST)), Mtu::MIN);
    }
}
