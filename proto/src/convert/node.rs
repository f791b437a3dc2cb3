//! Hosts of the cluster.

use crate::pb;
use shoal_common::{
    Invalid, Level, Mtu,
    node::{Availability, DefaultBridge, Liveness, NodeDescription, Role, hostname},
    service::Amount,
};

use super::{
    field::{
        A_SOCKET_ADDRESS, A_SUBNET, Inside, address, enumeration, read, read_unless_empty, required, subnet, text,
    },
    network::mtu,
};

enumeration!(Role, pb::Role, "role", [Worker, Manager]);
enumeration!(Availability, pb::Availability, "availability", [Active, Pause, Drain]);
enumeration!(Liveness, pb::Liveness, "liveness", [Unknown, Ready, Down]);

/// Links of a host that are told. A host with many containers of its own may have hundreds.
const LINKS: usize = 1024;
/// Addresses by which a host is reached: one of each family.
const ADDRESSES: usize = 2;
/// Linux counts no more CPUs (`NR_CPUS`).
const CPUS: u64 = 8192;
/// What Linux can map on x86-64 with five levels of page tables.
const MEMORY_BYTES: u64 = 4 << 50;

impl TryFrom<pb::NodeDescription> for NodeDescription {
    type Error = Invalid;

    fn try_from(d: pb::NodeDescription) -> Result<Self, Invalid> {
        for (field, count, most) in [("underlay", d.underlay.len(), LINKS), ("addresses", d.addresses.len(), ADDRESSES)]
        {
            if count > most {
                return Err(Invalid::new(field, format!("{count} of them"), format!("at most {most}")));
            }
        }
        Ok(Self {
            hostname: hostname(&d.hostname)?,
            control_addr: read("control_addr", &d.control_addr, A_SOCKET_ADDRESS)?,
            vtep: address("vtep", &d.vtep)?,
            underlay_mtu: Mtu::try_from(d.underlay_mtu).map_err(|e| e.at("underlay_mtu"))?,
            underlay: d
                .underlay
                .iter()
                .enumerate()
                .map(|(i, s)| subnet(format!("underlay[{i}]"), s))
                .collect::<Result<_, _>>()?,
            capacity: required("capacity", d.capacity)
                .and_then(|a| a.try_into().inside("capacity"))
                .and_then(capacity)?,
            os: word("os", d.os)?,
            arch: word("arch", d.arch)?,
            version: word("version", d.version)?,
            level: Level(d.level),
            addresses: d
                .addresses
                .iter()
                .enumerate()
                .map(|(i, ip)| address(format!("addresses[{i}]"), ip))
                .collect::<Result<_, _>>()?,
            default_bridge: d.default_bridge.map(|b| b.try_into().inside("default_bridge")).transpose()?,
        })
    }
}

/// The scheduler believes it, and would send everything to the host that says the most.
fn capacity(amount: Amount) -> Result<Amount, Invalid> {
    if amount.nano_cpus > CPUS * 1_000_000_000 {
        return Err(Invalid::new("capacity.nano_cpus", amount.nano_cpus, format!("at most {CPUS} CPUs")));
    }
    if amount.memory_bytes > MEMORY_BYTES {
        return Err(Invalid::new("capacity.memory_bytes", amount.memory_bytes, "at most 4 PiB"));
    }
    Ok(amount)
}

/// Such as `linux`, `x86_64` or `0.1.0-rc.1+abc`.
fn word(field: &str, text: String) -> Result<String, Invalid> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '/');
    if text.len() <= 64 && text.chars().all(fits) {
        return Ok(text);
    }
    let expected = "at most 64 letters, digits and . - _ + /";
    Err(Invalid::new(field, shoal_common::text::cut(text, 100), expected))
}

impl From<NodeDescription> for pb::NodeDescription {
    fn from(d: NodeDescription) -> Self {
        Self {
            hostname: d.hostname,
            control_addr: d.control_addr.to_string(),
            vtep: d.vtep.to_string(),
            underlay_mtu: d.underlay_mtu.get(),
            underlay: d.underlay.iter().map(ToString::to_string).collect(),
            capacity: Some(d.capacity.into()),
            os: d.os,
            arch: d.arch,
            version: d.version,
            level: d.level.0,
            addresses: d.addresses.iter().map(ToString::to_string).collect(),
            default_bridge: d.default_bridge.map(Into::into),
        }
    }
}

impl TryFrom<pb::DefaultBridge> for DefaultBridge {
    type Error = Invalid;

    fn try_from(b: pb::DefaultBridge) -> Result<Self, Invalid> {
        Ok(Self {
            bip: read_unless_empty("bip", &b.bip, A_SUBNET)?,
            fixed_cidr: read_unless_empty("fixed_cidr", &b.fixed_cidr, A_SUBNET)?,
            ipv6: b.ipv6,
            fixed_cidr_v6: read_unless_empty("fixed_cidr_v6", &b.fixed_cidr_v6, A_SUBNET)?,
            mtu: mtu("mtu", b.mtu)?,
        })
    }
}

impl From<DefaultBridge> for pb::DefaultBridge {
    fn from(b: DefaultBridge) -> Self {
        Self {
            bip: text(b.bip),
            fixed_cidr: text(b.fixed_cidr),
            ipv6: b.ipv6,
            fixed_cidr_v6: text(b.fixed_cidr_v6),
            mtu: b.mtu.map_or(0, Mtu::get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> pb::NodeDescription {
        pb::NodeDescription {
            hostname: "w1".to_owned(),
            control_addr: "192.0.2.1:2377".to_owned(),
            vtep: "192.0.2.1".to_owned(),
            underlay_mtu: 1500,
            capacity: Some(pb::Amount { nano_cpus: 1_000_000_000, memory_bytes: 1 << 30 }),
            ..Default::default()
        }
    }

    #[test]
    fn what_a_host_says_of_itself_has_bounds() {
        type Wrong = fn(&mut pb::NodeDescription);
        let cases: [(&str, Wrong); 8] = [
            ("hostname", |d| d.hostname = "w1\u{1b}]0;owned\u{7}".to_owned()),
            ("hostname", |d| d.hostname = String::new()),
            ("underlay", |d| d.underlay = vec!["10.0.0.0/24".to_owned(); LINKS + 1]),
            ("addresses", |d| d.addresses = vec!["192.0.2.1".to_owned(); ADDRESSES + 1]),
            ("capacity.nano_cpus", |d| d.capacity = Some(pb::Amount { nano_cpus: u64::MAX, memory_bytes: 1 })),
            ("capacity.memory_bytes", |d| d.capacity = Some(pb::Amount { nano_cpus: 1, memory_bytes: u64::MAX })),
            ("os", |d| d.os = "linux\n".to_owned()),
            ("version", |d| d.version = "1".repeat(65)),
        ];
        assert!(NodeDescription::try_from(described()).is_ok());
        for (field, spoil) in cases {
            let mut spoilt = described();
            spoil(&mut spoilt);
            assert_eq!(NodeDescription::try_from(spoilt).map_err(|e| e.field), Err(field.to_owned()));
        }
    }
}
