//! What our nftables tables are made of: a closed vocabulary, so that it can be both printed as `nft` reads it and put
//! to the kernel without starting `nft`, which takes 10 to 50 ms of CPU where the kernel itself takes less than one.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shoal_common::service::Protocol;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

/// Addresses of one family, and at least one.
pub type Addresses = BTreeSet<IpAddr>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    /// Where packets enter it; none of a chain that others go to.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// A chain at a hook accepts what no rule of it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// `type nat hook prerouting priority dstnat`
    NatPrerouting,
    /// `type nat hook output priority dstnat`
    NatOutput,
    /// `type nat hook postrouting priority srcnat`
    NatPostrouting,
    /// `type filter hook input priority filter`
    FilterInput,
    /// `type filter hook forward priority filter`
    FilterForward,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Match {
    From(Addresses),
    To(Addresses),
    /// From one of these to the same.
    ToItself(Addresses),
    /// From this subnet.
    Within(IpNet),
    /// To this subnet.
    Into(IpNet),
    /// Its destination was translated.
    Translated,
    /// Of a connection that was let through before.
    Established,
    /// To an address of this host, of the family of this one.
    ToHost(IpAddr),
    In(Interface),
    NotIn(Interface),
    Out(Interface),
    NotOut(Interface),
    Tcp,
    Port(Transport, u16),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interface {
    Named(String),
    Prefixed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Accept,
    /// And counts.
    Drop,
    Masquerade,
    /// As a port at which nobody listens answers TCP.
    Reset,
    /// As a port at which nobody listens answers UDP.
    Reject,
    /// To one of these, chosen at random for each connection.
    TranslateToOneOf(Addresses),
    TranslateTo(IpAddr, u16),
    /// To the chain that stands with its destination, if one does. Of one family, and at least one.
    GotoByDestination(BTreeMap<IpAddr, String>),
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  chain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            writeln!(f, "    {hook}; policy accept")?;
        }
        for rule in &self.rules {
            writeln!(f, "    {rule}")?;
        }
        writeln!(f, "  }}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::NatPrerouting => "type nat hook prerouting priority dstnat",
            // nft has no name for this priority at this hook.
            Hook::NatOutput => "type nat hook output priority -100",
            Hook::NatPostrouting => "type nat hook postrouting priority srcnat",
            Hook::FilterInput => "type filter hook input priority filter",
            Hook::FilterForward => "type filter hook forward priority filter",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for matched in &self.matches {
            write!(f, "{matched} ")?;
        }
        self.action.fmt(f)
    }
}

/// As `nft` calls the family of the first.
fn family<'a>(mut addresses: impl Iterator<Item = &'a IpAddr>) -> &'static str {
    if addresses.next().is_some_and(IpAddr::is_ipv6) { "ip6" } else { "ip" }
}

fn join<T>(items: impl Iterator<Item = T>, text: impl Fn(T) -> String) -> String {
    items.map(text).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |addresses: &Addresses| join(addresses.iter(), ToString::to_string);
        match self {
            Match::From(these) => write!(f, "{} saddr {{ {} }}", family(these.iter()), all(these)),
            Match::To(these) => write!(f, "{} daddr {{ {} }}", family(these.iter()), all(these)),
            Match::ToItself(these) => {
                let ip = family(these.iter());
                write!(f, "{ip} saddr . {ip} daddr {{ {} }}", join(these.iter(), |ip| format!("{ip} . {ip}")))
            }
            Match::Within(net) => write!(f, "{} saddr {net}", family([net.addr()].iter())),
            Match::Into(net) => write!(f, "{} daddr {net}", family([net.addr()].iter())),
            Match::Translated => f.write_str("ct status dnat"),
            Match::Established => f.write_str("ct state established,related"),
            Match::ToHost(IpAddr::V4(_)) => f.write_str("meta nfproto ipv4 fib daddr type local"),
            Match::ToHost(IpAddr::V6(_)) => f.write_str("meta nfproto ipv6 fib daddr type local"),
            Match::In(interface) => write!(f, "iifname {interface}"),
            Match::NotIn(interface) => write!(f, "iifname != {interface}"),
            Match::Out(interface) => write!(f, "oifname {interface}"),
            Match::NotOut(interface) => write!(f, "oifname != {interface}"),
            Match::Tcp => f.write_str("meta l4proto tcp"),
            Match::Port(Transport::Tcp, port) => write!(f, "tcp dport {port}"),
            Match::Port(Transport::Udp, port) => write!(f, "udp dport {port}"),
            Match::Port(Transport::Sctp, port) => write!(f, "sctp dport {port}"),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Named(name) => write!(f, "\"{name}\""),
            Interface::Prefixed(prefix) => write!(f, "\"{prefix}*\""),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Accept => f.write_str("accept"),
            Action::Drop => f.write_str("counter drop"),
            Action::Masquerade => f.write_str("masquerade"),
            Action::Reset => f.write_str("reject with tcp reset"),
            Action::Reject => f.write_str("reject"),
            Action::TranslateToOneOf(these) if these.len() == 1 => {
                write!(f, "dnat {} to {}", family(these.iter()), join(these.iter(), ToString::to_string))
            }
            Action::TranslateToOneOf(these) => write!(
                f,
                "dnat {} to numgen random mod {} map {{ {} }}",
                family(these.iter()),
                these.len(),
                join(these.iter().enumerate(), |(n, ip)| format!("{n} : {ip}"))
            ),
            Action::TranslateTo(ip, port) => {
                write!(f, "dnat {} to {}", family([ip].into_iter()), std::net::SocketAddr::new(*ip, *port))
            }
            Action::GotoByDestination(chains) => write!(
                f,
                "{} daddr vmap {{ {} }}",
                family(chains.keys()),
                join(chains.iter(), |(ip, chain)| format!("{ip} : goto {chain}"))
            ),
        }
    }
}
