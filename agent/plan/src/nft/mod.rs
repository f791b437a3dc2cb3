//! Our nftables tables: what is in each, as text and as values, and the digest by which an observer tells which of
//! our tables it sees. A table's comment bears it.

mod bridge;
mod host;
mod rule;

use data_encoding::HEXLOWER;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use shoal_common::LinkName;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::LazyLock,
};

pub use bridge::{Port, ports};
pub use host::{Bridge, Host, Vxlan, host};
pub use rule::{
    Action, Addresses, Chain, Family, Hook, IDLE, IDLE_POLICY, Interface, Ip, Match, RETURN_PORTS, Receiver, Rule, TAG,
    Transport,
};

use crate::{
    names,
    world::{Backend, Flows, Table},
};

/// The whole table as `nft -f` takes it. nft 1.0.6 wants one statement a line.
pub fn text(family: Family, digest: &str, chains: &[Chain]) -> String {
    format!("table {family} {} {{\n  comment \"{digest}\"\n{}}}\n", family.table(), body(chains))
}

fn body(chains: &[Chain]) -> String {
    let chained = chains.iter().map(ToString::to_string).collect::<String>();
    if has_policy(chains) { policy() + &chained } else { chained }
}

/// Whether some rule names [`IDLE_POLICY`], which then belongs to the table.
pub fn has_policy(chains: &[Chain]) -> bool {
    chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule.action == Action::KeepIdle)
}

fn policy() -> String {
    let seconds = IDLE.as_secs();
    // It serves IPv6 as well: the kernel looks at the transport only.
    format!(
        "  ct timeout {IDLE_POLICY} {{\n    protocol tcp; l3proto ip\n    \
         policy = {{ established : {seconds}, close_wait : {seconds} }}\n  }}\n"
    )
}

/// The table that keeps tagged connections for [`IDLE`]. It depends on nothing: replaced, it would take its policy away
/// from those that are under way.
pub fn idle() -> Table {
    let rules = || {
        let keep = rule([Match::Tagged, Match::Tcp], Action::KeepIdle);
        vec![keep, rule([Match::Tagged], Action::Untag)]
    };
    guard(vec![
        at(Hook::AfterNatPrerouting, "pre", rules()),
        at(Hook::AfterNatOutput, "out", rules()),
        at(Hook::AfterNatPostrouting, "post", rules()),
    ])
}

fn table(chains: Vec<Chain>, leads: BTreeSet<Backend>, flows: Flows) -> Table {
    let digest = HEXLOWER.encode(&Sha256::digest(body(&chains).as_bytes())[..16]);
    Table { chains, digest, leads: Some(leads), flows }
}

/// A table that translates nothing of ours.
fn guard(chains: Vec<Chain>) -> Table {
    table(chains, BTreeSet::new(), Flows::default())
}

/// The table as far as it leads to these; all else that it does, it does.
pub(crate) fn leading_to(of: &Table, these: &BTreeSet<Backend>) -> Table {
    let leads = || of.leads.iter().flatten().copied();
    let others: BTreeSet<Backend> = leads().filter(|lead| !these.contains(lead)).collect();
    let at = |to: &SocketAddr| !others.contains(&backend(*to));
    let mut chains = of.chains.clone();
    for chain in &mut chains {
        chain.rules.retain_mut(|rule| match &mut rule.action {
            Action::TranslateToOneOf(to) => {
                to.retain(|ip| !others.contains(&Backend { ip: *ip, port: None }));
                !to.is_empty()
            }
            Action::TranslateTo(ip, port) => at(&SocketAddr::new(*ip, *port)),
            Action::TranslateToEither(to) => {
                to.retain(at);
                if let [one] = to[..] {
                    rule.action = Action::TranslateTo(one.ip(), one.port());
                    return true;
                }
                !to.is_empty()
            }
            Action::TranslateByPort(to) => {
                to.retain(|_, to| at(to));
                !to.is_empty()
            }
            Action::Tag
            | Action::Untag
            | Action::KeepIdle
            | Action::Accept
            | Action::Drop
            | Action::Masquerade
            | Action::MarkByPort
            | Action::TakeIn(_)
            | Action::Reset
            | Action::Reject
            | Action::GotoByDestination(_) => true,
        });
    }
    table(chains, leads().filter(|lead| these.contains(lead)).collect(), of.flows.clone())
}

/// The table without what it says of these links. A rule about none but them goes; one about all but them, too.
pub(crate) fn without(of: &Table, links: &BTreeSet<LinkName>) -> Table {
    let mut chains = of.chains.clone();
    let lost = |name: &String| links.iter().any(|link| link.as_str() == name);
    for chain in &mut chains {
        chain.rules.retain_mut(|rule| {
            rule.matches.iter_mut().all(|matched| match matched {
                Match::In(interface) | Match::NotIn(interface) | Match::Out(interface) | Match::NotOut(interface) => {
                    match interface {
                        Interface::Named(name) => !lost(name),
                        Interface::Prefixed(_) => true,
                        Interface::OneOf(names) => {
                            names.retain(|name| !lost(name));
                            !names.is_empty()
                        }
                    }
                }
                Match::Within(names) => {
                    names.retain(|name| !lost(name));
                    !names.is_empty()
                }
                Match::Answers(ports) => {
                    ports.retain(|(link, _, _)| !lost(link));
                    !ports.is_empty()
                }
                Match::From(_)
                | Match::To(_)
                | Match::FromNet(_)
                | Match::ToNet(_)
                | Match::NotToNet(_)
                | Match::ToHere
                | Match::ToItself(_)
                | Match::Translated
                | Match::UnderWay
                | Match::Fresh
                | Match::Tcp
                | Match::Port(..)
                | Match::HasPorts
                | Match::NotTo(_)
                | Match::Unreachable(_)
                | Match::Fragment(_)
                | Match::NotOwnMac(_)
                | Match::NotOwnV4(_)
                | Match::NotOwnV6(_)
                | Match::NotOwnArp(_)
                | Match::NotOwnNeighbour(_)
                | Match::ActsAsRouter
                | Match::FindsNeighbours
                | Match::VxlanFrom(_)
                | Match::Tag
                | Match::Tagged
                | Match::FromProcess => true,
            })
        });
    }
    table(chains, of.leads.clone().unwrap_or_default(), of.flows.clone())
}

pub(crate) fn backend(to: SocketAddr) -> Backend {
    Backend { ip: to.ip(), port: Some(to.port()) }
}

fn rule(matches: impl Into<Vec<Match>>, action: Action) -> Rule {
    Rule { matches: matches.into(), action }
}

fn at(hook: Hook, name: &str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(hook), rules }
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publication {
    /// `None`: all addresses that are this namespace's, of the family of `to`.
    pub host_ip: Option<IpAddr>,
    pub transport: Transport,
    pub port: u16,
    pub to: SocketAddr,
}

/// A port of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balanced {
    pub transport: Transport,
    pub port: u16,
    /// Of one family, and at least one.
    pub to: Vec<SocketAddr>,
    /// These are other hosts, which answer us and not the client.
    pub elsewhere: bool,
}

/// `local` is as in [`publish`].
fn balance(ports: &[Balanced], local: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    for of in ports {
        let is_v4 = of.to.iter().all(SocketAddr::is_ipv4);
        let port = || Match::Port(of.transport, of.port);
        let action = || match of.to[..] {
            [to] => Action::TranslateTo(to.ip(), to.port()),
            _ => Action::TranslateToEither(of.to.clone()),
        };
        // What leaves for another host cannot bear 127.0.0.1.
        if local && is_v4 && !of.elsewhere {
            rules.push(rule([Match::To([Ipv4Addr::LOCALHOST.into()].into()), port()], action()));
        }
        let loopback = if is_v4 { "127.0.0.0/8" } else { "::1/128" };
        let not_loopback = loopback.parse().map(Match::NotToNet);
        let matches: Vec<Match> = not_loopback.into_iter().chain([Match::ToHere, port()]).collect();
        rules.push(rule(matches, action()));
    }
    rules
}

/// `local`: for what this namespace's own processes send. Only that comes to a port of a loopback address: whoever on
/// the wire writes such an address on a packet is not to be believed.
fn publish(ports: &[Publication], local: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (is_v4, loopback) in [(true, "127.0.0.0/8"), (false, "::1/128")] {
        let mut to: BTreeMap<Option<IpAddr>, BTreeMap<(Transport, u16), SocketAddr>> = BTreeMap::new();
        for port in ports.iter().filter(|p| p.to.is_ipv4() == is_v4) {
            to.entry(port.host_ip).or_default().insert((port.transport, port.port), port.to);
        }
        let everywhere = to.remove(&None);
        for (host_ip, to) in to {
            if let Some(ip) = host_ip.filter(|ip| local || !ip.is_loopback()) {
                rules.push(rule([Match::To([ip].into())], Action::TranslateByPort(to)));
            }
        }
        let Some(to) = everywhere else { continue };
        if local && is_v4 {
            // And not the whole of 127.0.0.0/8, where other services of the host may be: its resolver, say.
            let matches = [Match::To([Ipv4Addr::LOCALHOST.into()].into())];
            rules.push(rule(matches, Action::TranslateByPort(to.clone())));
        }
        let not_loopback = loopback.parse().map(Match::NotToNet);
        let matches: Vec<Match> = not_loopback.into_iter().chain([Match::ToHere]).collect();
        rules.push(rule(matches, Action::TranslateByPort(to)));
    }
    rules
}

/// A VIP and where its connections go, of one address family each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualService {
    pub vip4: Option<Ipv4Addr>,
    pub vip6: Option<Ipv6Addr>,
    pub backends4: BTreeSet<Ipv4Addr>,
    pub backends6: BTreeSet<Ipv6Addr>,
}

/// What the VIPs of one family make of a sandbox.
#[derive(Default)]
struct Vips {
    chains: Vec<Chain>,
    to_chain: BTreeMap<IpAddr, String>,
    dead: Addresses,
    backends: Addresses,
}

impl Vips {
    fn add(&mut self, vip: IpAddr, backends: Addresses, chain: String) {
        if backends.is_empty() {
            self.dead.insert(vip);
            return;
        }
        self.backends.extend(&backends);
        self.to_chain.insert(vip, chain.clone());
        let rules = vec![rule([], Action::TranslateToOneOf(backends))];
        self.chains.push(Chain { name: chain, hook: None, rules });
    }
}

/// What a sandbox's table is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    pub services: Vec<VirtualService>,
    /// Of containers: they come by the uplink, to its address here.
    pub ports: Vec<Publication>,
    /// What leaves by the uplink bears the uplink's address.
    pub masquerade: bool,
    /// The network's subnets.
    pub pools: BTreeSet<IpNet>,
    /// Whoever is on the network, here and elsewhere.
    pub endpoints: BTreeSet<IpAddr>,
}

/// A network's sandbox: VIPs are translated to a backend chosen at random per connection, so the client's address is
/// kept. A VIP without a backend refuses at once.
pub fn sandbox(of: &Sandbox) -> Table {
    let (mut four, mut six) = (Vips::default(), Vips::default());
    for (n, service) in of.services.iter().enumerate() {
        if let Some(vip) = service.vip4 {
            let backends = service.backends4.iter().copied().map(IpAddr::V4).collect();
            four.add(vip.into(), backends, format!("svc{n}_4"));
        }
        if let Some(vip) = service.vip6 {
            let backends = service.backends6.iter().copied().map(IpAddr::V6).collect();
            six.add(vip.into(), backends, format!("svc{n}_6"));
        }
    }
    let (mut chains, mut pre, mut post, mut input) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut leads = BTreeSet::new();
    for vips in [four, six] {
        chains.extend(vips.chains);
        if !vips.to_chain.is_empty() {
            pre.push(rule([], Action::GotoByDestination(vips.to_chain)));
            leads.extend(vips.backends.iter().map(|ip| Backend { ip: *ip, port: None }));
            // A backend that is sent to itself would see its own address as the client's, and answer past the
            // translation.
            post.push(rule([Match::Translated, Match::ToItself(vips.backends)], Action::Masquerade));
        }
        if !vips.dead.is_empty() {
            input.push(rule([Match::To(vips.dead.clone()), Match::Tcp], Action::Reset));
            input.push(rule([Match::To(vips.dead)], Action::Reject));
        }
    }
    pre.extend(publish(&of.ports, false));
    leads.extend(of.ports.iter().map(|p| backend(p.to)));
    if of.masquerade {
        post.push(rule([Match::Out(Interface::Named(names::uplink().to_string()))], Action::Masquerade));
    }
    chains.push(at(Hook::NatPrerouting, "pre", pre));
    chains.push(at(Hook::NatPostrouting, "post", post));
    chains.push(at(Hook::FilterInput, "in", input));
    let alive = of.endpoints.iter().map(|ip| Backend { ip: *ip, port: None }).collect();
    table(chains, leads, Flows { alive, pools: of.pools.clone(), open: BTreeSet::new() })
}

/// A task: what it asks 127.0.0.11 goes to the resolver's own port, so that port 53 stays free for the container.
pub fn task() -> Table {
    // The same for all, and a host may have hundreds.
    static TABLE: LazyLock<Table> = LazyLock::new(to_resolver);
    TABLE.clone()
}

fn to_resolver() -> Table {
    let resolver = IpAddr::from([127, 0, 0, 11]);
    let redirect = |transport| {
        let matches = [Match::To([resolver].into()), Match::Port(transport, 53)];
        rule(matches, Action::TranslateTo(resolver, names::RESOLVER_PORT))
    };
    let rules = [Transport::Udp, Transport::Tcp].map(redirect).into();
    guard(vec![at(Hook::NatOutput, "out", rules)])
}
