//! Our nftables tables: what is in each, as text and as values, and the digest by which an observer tells which of
//! our tables it sees. A table's comment bears it.

mod rule;

use data_encoding::HEXLOWER;
use ipnet::{IpNet, Ipv4Net};
use sha2::{Digest, Sha256};
use shoal_common::LinkName;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use rule::{Action, Addresses, Chain, Hook, Interface, Match, Rule, Transport};

use crate::{names, world::Table};

/// The whole table as `nft -f` takes it. nft 1.0.6 wants one statement a line.
pub fn text(name: &str, digest: &str, chains: &[Chain]) -> String {
    format!("table inet {name} {{\n  comment \"{digest}\"\n{}}}\n", body(chains))
}

fn body(chains: &[Chain]) -> String {
    chains.iter().map(ToString::to_string).collect()
}

fn table(chains: Vec<Chain>, backends: BTreeSet<IpAddr>) -> Table {
    let digest = HEXLOWER.encode(&Sha256::digest(body(&chains).as_bytes())[..16]);
    Table { chains, digest, backends }
}

fn rule(matches: impl Into<Vec<Match>>, action: Action) -> Rule {
    Rule { matches: matches.into(), action }
}

fn at(hook: Hook, name: &str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(hook), rules }
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

/// A network's sandbox: VIPs are translated to a backend chosen at random per connection, so the client's address is
/// kept. A VIP without a backend refuses at once. `masquerade`: what leaves by the uplink bears the uplink's address.
/// `published`: ports that come in by the uplink and go to containers of this network.
pub fn sandbox(services: &[VirtualService], published: &[Published], masquerade: bool) -> Table {
    let (mut four, mut six) = (Vips::default(), Vips::default());
    for (n, service) in services.iter().enumerate() {
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
    let mut all = BTreeSet::new();
    for vips in [four, six] {
        chains.extend(vips.chains);
        if !vips.to_chain.is_empty() {
            pre.push(rule([], Action::GotoByDestination(vips.to_chain)));
            all.extend(&vips.backends);
            // A backend that is sent to itself would see its own address as the client's, and answer past the
            // translation.
            post.push(rule([Match::Translated, Match::ToItself(vips.backends)], Action::Masquerade));
        }
        if !vips.dead.is_empty() {
            input.push(rule([Match::To(vips.dead.clone()), Match::Tcp], Action::Reset));
            input.push(rule([Match::To(vips.dead)], Action::Reject));
        }
    }
    for port in published {
        let by_uplink = Match::In(Interface::Named(names::uplink().to_string()));
        let to = Match::Port(port.transport, port.host_port);
        let of_family = Match::ToHost(port.to);
        pre.push(rule([by_uplink, of_family, to], Action::TranslateTo(port.to, port.container_port)));
        all.insert(port.to);
    }
    if masquerade {
        post.push(rule([Match::Out(Interface::Named(names::uplink().to_string()))], Action::Masquerade));
    }
    chains.push(at(Hook::NatPrerouting, "pre", pre));
    chains.push(at(Hook::NatPostrouting, "post", post));
    chains.push(at(Hook::FilterInput, "in", input));
    table(chains, all)
}

/// A task: what it asks 127.0.0.11 goes to the resolver's own port, so that port 53 stays free for the container.
pub fn task() -> Table {
    let resolver = IpAddr::from([127, 0, 0, 11]);
    let redirect = |transport| {
        let matches = [Match::To([resolver].into()), Match::Port(transport, 53)];
        rule(matches, Action::TranslateTo(resolver, names::RESOLVER_PORT))
    };
    let rules = [Transport::Udp, Transport::Tcp].map(redirect).into();
    table(vec![at(Hook::NatOutput, "out", rules)], BTreeSet::new())
}

/// A port that leads to one address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// An address of the host; none: all of them of the other side's family.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub transport: Transport,
    /// A container's address; of a container on an overlay, that of the network's sandbox.
    pub to: IpAddr,
    pub container_port: u16,
    /// By which link of the host it is reached.
    pub by: LinkName,
}

/// A bridge network of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub link: LinkName,
    pub subnets: Vec<IpNet>,
    pub internal: bool,
    pub masquerade: bool,
    pub icc: bool,
}

fn named(link: &LinkName) -> Interface {
    Interface::Named(link.to_string())
}

/// What containers on bridges may reach. Each bridge is apart from every other and from the overlays; from outside
/// comes only what was asked for or is published; an internal one has no way in or out.
fn forward(bridges: &[Bridge], published: bool) -> Vec<Rule> {
    let uplinks = || Interface::Prefixed(names::HOST_LINK_PREFIX.to_owned());
    let mut rules = Vec::new();
    if published {
        rules.push(rule([Match::Translated], Action::Accept));
    }
    rules.push(rule([Match::In(uplinks()), Match::Out(uplinks())], Action::Drop));
    for bridge in bridges {
        let link = || named(&bridge.link);
        if bridge.internal {
            rules.push(rule([Match::In(link()), Match::NotOut(link())], Action::Drop));
            rules.push(rule([Match::NotIn(link()), Match::Out(link())], Action::Drop));
            continue;
        }
        rules.push(rule([Match::In(link()), Match::Out(uplinks())], Action::Drop));
        for other in bridges.iter().filter(|other| other.link != bridge.link) {
            rules.push(rule([Match::In(link()), Match::Out(named(&other.link))], Action::Drop));
        }
        rules.push(rule([Match::NotIn(link()), Match::Out(link()), Match::Established], Action::Accept));
        rules.push(rule([Match::NotIn(link()), Match::Out(link())], Action::Drop));
        if !bridge.icc {
            rules.push(rule([Match::In(link()), Match::Out(link())], Action::Drop));
        }
    }
    rules
}

/// The host: the way out of the sandboxes, none from one to another, and VXLAN from hosts of the cluster only;
/// bridges, and published ports.
pub fn host(peers: &BTreeSet<IpAddr>, data_path_port: u16, bridges: &[Bridge], published: &[Published]) -> Table {
    let uplinks = || Interface::Prefixed(names::HOST_LINK_PREFIX.to_owned());
    let forward = forward(bridges, !published.is_empty());
    let mut post = vec![rule([Match::In(uplinks()), Match::NotOut(uplinks())], Action::Masquerade)];
    for bridge in bridges.iter().filter(|b| b.masquerade && !b.internal) {
        for net in &bridge.subnets {
            post.push(rule([Match::Within(*net), Match::NotOut(named(&bridge.link))], Action::Masquerade));
        }
    }
    let loopback: IpNet = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into();
    let by: BTreeSet<&LinkName> = published.iter().map(|p| &p.by).collect();
    for bridge in bridges.iter().filter(|b| by.contains(&b.link)) {
        for net in &bridge.subnets {
            // A container that is reached by way of the host would answer its neighbour, or itself, past the
            // translation.
            let hairpin = [Match::Translated, Match::Within(*net), Match::Out(named(&bridge.link))];
            post.push(rule(hairpin, Action::Masquerade));
        }
    }
    // And localhost not at all.
    post.extend(by.iter().map(|link| rule([Match::Within(loopback), Match::Out(named(link))], Action::Masquerade)));
    let mut translate = Vec::new();
    for port in published {
        let to = match port.host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(ip) => Match::To([ip].into()),
            None => Match::ToHost(port.to),
        };
        let matches = [to, Match::Port(port.transport, port.host_port)];
        translate.push(rule(matches, Action::TranslateTo(port.to, port.container_port)));
    }
    let vxlan = || Match::Port(Transport::Udp, data_path_port);
    let (v4, v6): (Addresses, Addresses) = peers.iter().partition(|ip| ip.is_ipv4());
    let known = [v4, v6].into_iter().filter(|these| !these.is_empty());
    let mut input: Vec<Rule> = known.map(|these| rule([vxlan(), Match::From(these)], Action::Accept)).collect();
    input.push(rule([vxlan()], Action::Drop));
    // These links route to localhost, for what is published there; nobody else is to come there by them.
    for link in &by {
        let to_localhost = || vec![Match::In(named(link)), Match::Into(loopback)];
        let answers = [to_localhost(), vec![Match::Established]].concat();
        input.push(rule(answers, Action::Accept));
        input.push(rule(to_localhost(), Action::Drop));
    }
    let mut chains = Vec::new();
    if !translate.is_empty() {
        chains.push(at(Hook::NatPrerouting, "pre", translate.clone()));
        chains.push(at(Hook::NatOutput, "out", translate));
    }
    chains.extend([
        at(Hook::FilterForward, "forward", forward),
        at(Hook::NatPostrouting, "post", post),
        at(Hook::FilterInput, "in", input),
    ]);
    table(chains, published.iter().map(|p| p.to).collect())
}
