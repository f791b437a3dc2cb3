//! What our nftables tables are made of: a closed vocabulary, so that it can be both printed as `nft` reads it and put
//! to the kernel without starting `nft`, which takes 10 to 50 ms of CPU where the kernel itself takes less than one.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
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
    FromNet(IpNet),
    ToNet(IpNet),
    NotToNet(IpNet),
    /// To an address of this host.
    ToHere,
    /// From one of these to the same.
    ToItself(Addresses),
    /// Its destination was translated.
    Translated,
    /// Of a connection that was let through before.
    UnderWay,
    /// Of none that was.
    Fresh,
    In(Interface),
    Out(Interface),
    NotOut(Interface),
    /// In by one of these, and out by the same.
    Within(BTreeSet<String>),
    Tcp,
    Port(Transport, u16),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interface {
    Named(String),
    Prefixed(String),
    /// At least one.
    OneOf(BTreeSet<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
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
    /// To what stands with its destination port, if something does. Of one family, and at least one.
    TranslateByPort(BTreeMap<(Transport, u16), SocketAddr>),
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
            Match::FromNet(net) => write!(f, "{} saddr {}", family_of(net), net_text(net)),
            Match::ToNet(net) => write!(f, "{} daddr {}", family_of(net), net_text(net)),
            Match::NotToNet(net) => write!(f, "{} daddr != {}", family_of(net), net_text(net)),
            Match::ToHere => f.write_str("fib daddr type local"),
            Match::ToItself(these) => {
                let ip = family(these.iter());
                write!(f, "{ip} saddr . {ip} daddr {{ {} }}", join(these.iter(), |ip| format!("{ip} . {ip}")))
            }
            Match::Translated => f.write_str("ct status dnat"),
            Match::In(interface) => write!(f, "iifname {interface}"),
            Match::Out(interface) => write!(f, "oifname {interface}"),
            Match::NotOut(interface) => write!(f, "oifname != {interface}"),
            Match::Within(these) => {
                write!(f, "iifname . oifname {{ {} }}", join(these.iter(), |name| format!("\"{name}\" . \"{name}\"")))
            }
            Match::UnderWay => f.write_str("ct state established,related"),
            Match::Fresh => f.write_str("ct state invalid,new,untracked"),
            Match::Tcp => f.write_str("meta l4proto tcp"),
            Match::Port(transport, port) => write!(f, "{transport} dport {port}"),
        }
    }
}

fn family_of(net: &IpNet) -> &'static str {
    family([net.addr()].iter())
}

/// `nft` lists a network of one address as that.
fn net_text(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Named(name) => write!(f, "\"{name}\""),
            Interface::Prefixed(prefix) => write!(f, "\"{prefix}*\""),
            Interface::OneOf(names) => write!(f, "{{ {} }}", join(names.iter(), |name| format!("\"{name}\""))),
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
                write!(f, "dnat {} to {}", family([ip].into_iter()), SocketAddr::new(*ip, *port))
            }
            Action::TranslateByPort(ports) => {
                let ip = if ports.values().next().is_some_and(SocketAddr::is_ipv6) { "ip6" } else { "ip" };
                let one = |((transport, port), to): (&(Transport, u16), &SocketAddr)| {
                    format!("{transport} . {port} : {} . {}", to.ip(), to.port())
                };
                write!(f, "dnat {ip} to meta l4proto . th dport map {{ {} }}", join(ports.iter(), one))
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
