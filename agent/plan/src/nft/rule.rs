//! What our nftables tables are made of: a closed vocabulary, so that it can be both printed as `nft` reads it and put
//! to the kernel without starting `nft`, which takes 10 to 50 ms of CPU where the kernel itself takes less than one.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shoal_common::{MacAddr, Vni};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use crate::names;

/// By these a container is known to have asked a neighbour by an address of their host: the answer is to come by the
/// host, which alone knows how to undo that. Linux gives them to nobody who asks, since the ephemeral ports are those
/// above (ip-sysctl, `ip_local_port_range`); and there are more of them than of those, so that they never run out first.
pub const RETURN_PORTS: RangeInclusive<u16> = 1024..=32_767;

/// The bit of a packet's mark by which one table tells another that the packet is the first of a connection that is ours.
/// It is cleared before the packet is routed, or is set after that, so rules that route by marks never see it.
pub const TAG: u32 = 0x2000_0000;

/// How long a silent TCP connection is kept, open or half-closed: 5 days, as the kernel keeps open
/// ones (nf_conntrack_tcp_timeout_established). It forgets half-closed ones after 60 s (nf_conntrack_tcp_timeout_close_wait),
/// and what comes then is lost.
pub const IDLE: Duration = Duration::from_secs(432_000);

/// The name of the policy that says so.
pub const IDLE_POLICY: &str = "idle";

/// Of which packets a table gets to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// Those of IPv4 and IPv6.
    Inet,
    /// The frames that bridges handle.
    Bridge,
    /// Those of IPv4 and IPv6, too, in a table of its own that is never replaced: for how long connections are kept
    /// ([`crate::nft::idle`]). With such a table the kernel drops what it says of connections that are under way.
    Idle,
}

impl Family {
    /// The name of our table of this kind.
    pub fn table(self) -> &'static str {
        match self {
            Family::Inet | Family::Bridge => names::TABLE,
            Family::Idle => names::IDLE_TABLE,
        }
    }
}

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
    /// `type filter hook output priority filter`
    FilterOutput,
    /// `type filter hook prerouting priority dstnat + 1`: after translation, and before routing.
    AfterNatPrerouting,
    /// `type filter hook output priority dstnat + 1`
    AfterNatOutput,
    /// `type filter hook postrouting priority srcnat + 1`
    AfterNatPostrouting,
    /// `type filter hook prerouting priority dstnat`, of a bridge: before br_netfilter and everything else.
    BridgePrerouting,
    /// `type filter hook forward priority filter`, of a bridge: from one port to another.
    BridgeForward,
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
    NotIn(Interface),
    Out(Interface),
    NotOut(Interface),
    /// In by one of these, and out by the same.
    Within(BTreeSet<String>),
    Tcp,
    Port(Transport, u16),
    /// Of a protocol that has ports.
    HasPorts,
    /// Of a bridge: in by one link, from the address of another.
    NotOwnMac(BTreeSet<(String, MacAddr)>),
    NotOwnV4(BTreeSet<(String, Ipv4Addr)>),
    /// Link-local addresses aside, which everybody makes for himself.
    NotOwnV6(BTreeSet<(String, Ipv6Addr)>),
    /// ARP that says so.
    NotOwnArp(BTreeSet<(String, MacAddr, Ipv4Addr)>),
    /// A neighbour advertisement (RFC 4861 §4.4) that says so.
    NotOwnNeighbour(BTreeSet<(String, Ipv6Addr)>),
    /// Router advertisements and redirects.
    ActsAsRouter,
    /// Neighbour solicitations and advertisements (RFC 4861 §4.3, §4.4): IPv6's ARP.
    FindsNeighbours,
    /// VXLAN of a network from one of the hosts that are on it. Addresses of one family, and at least one.
    VxlanFrom(BTreeSet<(IpAddr, Vni)>),
    /// Always so, and tags the packet ([`TAG`]).
    Tag,
    Tagged,
    /// Sent by a socket of a process. What the kernel encapsulates itself has no owner in this namespace.
    FromProcess,
    /// Of a bridge: in by one link, from that port, to one of [`RETURN_PORTS`].
    Answers(BTreeSet<(String, Transport, u16)>),
    /// Of a bridge: in a frame to somebody else.
    NotTo(Receiver),
    /// Said by ICMP or ICMPv6.
    Unreachable(Ip),
    /// A part of a packet.
    Fragment(Ip),
}

/// To whom a frame was sent: also if br_netfilter had its destination translated since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Receiver {
    Host,
    /// One other, and not several.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ip {
    V4,
    V6,
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
    /// Of a connection's first packet: [`TAG`]s it, and goes on.
    Tag,
    Untag,
    /// Keeps the connection for [`IDLE`].
    KeepIdle,
    Accept,
    /// And counts.
    Drop,
    Masquerade,
    /// From one of [`RETURN_PORTS`], of the same address.
    MarkByPort,
    /// Of a bridge, which is called so: it takes the frame for its host's.
    TakeIn(MacAddr),
    /// As a port at which nobody listens answers TCP.
    Reset,
    /// As a port at which nobody listens answers UDP.
    Reject,
    /// To one of these, chosen at random for each connection.
    TranslateToOneOf(Addresses),
    TranslateTo(IpAddr, u16),
    /// To one of these, of one family and at least two, chosen at random for each connection.
    TranslateToEither(Vec<SocketAddr>),
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
            Hook::FilterOutput => "type filter hook output priority filter",
            Hook::AfterNatPrerouting => "type filter hook prerouting priority -99",
            Hook::AfterNatOutput => "type filter hook output priority -99",
            Hook::AfterNatPostrouting => "type filter hook postrouting priority 101",
            Hook::BridgePrerouting => "type filter hook prerouting priority dstnat",
            Hook::BridgeForward => "type filter hook forward priority filter",
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
            Match::NotIn(interface) => write!(f, "iifname != {interface}"),
            Match::Out(interface) => write!(f, "oifname {interface}"),
            Match::NotOut(interface) => write!(f, "oifname != {interface}"),
            Match::Within(these) => {
                write!(f, "iifname . oifname {{ {} }}", join(these.iter(), |name| format!("\"{name}\" . \"{name}\"")))
            }
            Match::UnderWay => f.write_str("ct state established,related"),
            Match::Fresh => f.write_str("ct state invalid,new,untracked"),
            Match::Tcp => f.write_str("meta l4proto tcp"),
            Match::NotOwnMac(own) => write!(f, "iifname . ether saddr != {{ {} }}", pairs(own)),
            Match::NotOwnV4(own) => write!(f, "iifname . ip saddr != {{ {} }}", pairs(own)),
            Match::NotOwnV6(own) => write!(f, "ip6 saddr != fe80::/10 iifname . ip6 saddr != {{ {} }}", pairs(own)),
            Match::NotOwnArp(own) => {
                let all = join(own.iter(), |(link, mac, ip)| format!("\"{link}\" . {mac} . {ip}"));
                write!(f, "iifname . arp saddr ether . arp saddr ip != {{ {all} }}")
            }
            Match::NotOwnNeighbour(own) => {
                // nft 1.0.6 has no name for the target.
                let all = join(own.iter(), |(link, ip)| format!("\"{link}\" . {:#034x}", ip.to_bits()));
                f.write_str("icmpv6 type nd-neighbor-advert @th,64,16 & 0xffc0 != 0xfe80 ")?;
                write!(f, "iifname . @th,64,128 != {{ {all} }}")
            }
            Match::ActsAsRouter => f.write_str("icmpv6 type { nd-router-advert, nd-redirect }"),
            Match::FindsNeighbours => f.write_str("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"),
            // The transport header is UDP's 8 bytes; then come 4 of flags, 3 of the VNI, and one that is zero (RFC 7348 §5).
            Match::VxlanFrom(peers) => {
                let one = |(ip, vni): &(IpAddr, Vni)| format!("{ip} . {:#x}", vni.get() << 8);
                let ip = family(peers.iter().map(|(ip, _)| ip));
                write!(f, "{ip} saddr . @th,96,32 {{ {} }}", join(peers.iter(), one))
            }
            // (uid_t)-1 is nobody's. nft has no word for "has an owner", and a packet without one matches no comparison.
            Match::Tag => write!(f, "{}", Action::Tag),
            Match::Tagged => write!(f, "meta mark & {TAG:#010x} == {TAG:#010x}"),
            Match::FromProcess => f.write_str("meta skuid != 4294967295"),
            Match::Port(transport, port) => write!(f, "{transport} dport {port}"),
            Match::HasPorts => f.write_str("meta l4proto { tcp, udp, sctp }"),
            Match::Answers(these) => {
                let all = join(these.iter(), |(link, transport, port)| format!("\"{link}\" . {transport} . {port}"));
                write!(f, "iifname . meta l4proto . th sport {{ {all} }} th dport {}", port_range(&RETURN_PORTS))
            }
            Match::NotTo(Receiver::Host) => f.write_str("meta pkttype != host"),
            Match::NotTo(Receiver::Other) => f.write_str("meta pkttype != other"),
            Match::Unreachable(Ip::V4) => f.write_str("icmp type destination-unreachable"),
            Match::Unreachable(Ip::V6) => f.write_str("icmpv6 type destination-unreachable"),
            // More to come, or at an offset.
            Match::Fragment(Ip::V4) => f.write_str("ip frag-off & 0x3fff != 0"),
            Match::Fragment(Ip::V6) => f.write_str("ip6 nexthdr 44"),
        }
    }
}

fn pairs<T: fmt::Display>(these: &BTreeSet<(String, T)>) -> String {
    join(these.iter(), |(link, address)| format!("\"{link}\" . {address}"))
}

fn port_range(ports: &RangeInclusive<u16>) -> String {
    format!("{}-{}", ports.start(), ports.end())
}

fn family_of(net: &IpNet) -> &'static str {
    family([net.addr()].iter())
}

/// `nft` lists a network of one address as that.
fn net_text(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Inet | Family::Idle => "inet",
            Family::Bridge => "bridge",
        })
    }
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
            Action::Tag => write!(f, "meta mark set meta mark | {TAG:#010x}"),
            Action::Untag => write!(f, "meta mark set meta mark & {:#010x}", !TAG),
            Action::KeepIdle => write!(f, "ct timeout set \"{IDLE_POLICY}\""),
            Action::Accept => f.write_str("accept"),
            Action::Drop => f.write_str("counter drop"),
            Action::Masquerade => f.write_str("masquerade"),
            Action::MarkByPort => write!(f, "snat to :{}", port_range(&RETURN_PORTS)),
            Action::TakeIn(bridge) => write!(f, "ether daddr set {bridge} meta pkttype set host"),
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
            Action::TranslateToEither(these) => {
                let ip = if these.iter().any(SocketAddr::is_ipv6) { "ip6" } else { "ip" };
                let one = |(n, to): (usize, &SocketAddr)| format!("{n} : {} . {}", to.ip(), to.port());
                let all = join(these.iter().enumerate(), one);
                write!(f, "dnat {ip} to numgen random mod {} map {{ {all} }}", these.len())
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
