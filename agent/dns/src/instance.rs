//! One endpoint of a service, as SRV answers name it.

use hickory_proto::rr::Name;
use shoal_common::service::{NamedPort, Protocol};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A serving endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// The task's name: `web.1.`
    pub(crate) target: Name,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

/// A service's ports and who serves them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) instances: Vec<Instance>,
}

impl Offer {
    /// The port that `_name._protocol` stands for. Both labels come in lower case, with their underscore.
    pub(crate) fn port(&self, name: &[u8], protocol: &[u8]) -> Option<u16> {
        let protocol = match protocol {
            b"_tcp" => Protocol::Tcp,
            b"_udp" => Protocol::Udp,
            _ => return None,
        };
        let name = name.strip_prefix(b"_")?;
        self.ports.iter().find(|p| p.protocol == protocol && p.name.as_str().as_bytes() == name).map(|p| p.port)
    }
}
