//! The difference between two worlds, as operations in an order that works.
//!
//! Stop anywhere, look again, plan again: whatever was done is not planned a second time, and there is nothing to undo.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use shoal_common::LinkName;

use crate::{
    impossible, names,
    nft::{self, Family},
    ns::Ns,
    op::Op,
    world::{Backend, Flow, Link, LinkKind, Namespace, Table, World},
};

/// What makes `actual` equal `desired` in the namespaces that were looked at; elsewhere nothing is touched.
/// Whoever looks at one end of a veth pair that is to be made looks at the other too.
pub fn plan(desired: &World, actual: &World, looked_at: &BTreeSet<Ns>) -> Vec<Op> {
    let mut steps = Steps::default();
    let mut now = actual.restrict(looked_at);
    let desired = &match impossible::without(desired, &now, looked_at) {
        Some((possible, refused)) => {
            steps.refused = refused;
            Cow::Owned(possible)
        }
        None => Cow::Borrowed(desired),
    };
    let wanted: BTreeMap<Ns, &Namespace> =
        desired.namespaces.iter().filter(|(ns, _)| looked_at.contains(ns)).map(|(ns, n)| (*ns, n)).collect();

    for ns in looked_at {
        match (wanted.contains_key(ns), now.namespaces.contains_key(ns)) {
            (false, true) if *ns != Ns::Host => {
                steps.del_netns.push(Op::DelNetns { ns: *ns });
                now.namespaces.remove(ns);
            }
            (true, false) => {
                steps.add_netns.push(Op::AddNetns { ns: *ns });
                now.namespaces.insert(*ns, Namespace::default());
            }
            (true | false, true | false) => {}
        }
    }
    for (ns, want) in &wanted {
        surplus_links(*ns, want, &mut now, &mut steps);
    }
    for ns in wanted.keys() {
        missing_links(*ns, &wanted, looked_at, &mut now, &mut steps);
    }
    let nothing = Namespace::default();
    for (ns, want) in &wanted {
        let have = now.namespaces.get(ns).unwrap_or(&nothing);
        settings(*ns, want, have, &mut steps);
        for (name, link) in &want.links {
            if let Some(have) = have.links.get(name) {
                differences(*ns, name, link, have, &mut steps);
            }
        }
        routes(*ns, want, have, &mut steps);
        tables(*ns, want, have, &mut steps);
    }
    steps.in_order()
}

/// Operations by phase.
#[derive(Default)]
struct Steps {
    lead_away: Vec<Op>,
    del_routes: Vec<Op>,
    del_tables: Vec<Op>,
    del_links: Vec<Op>,
    del_netns: Vec<Op>,
    add_netns: Vec<Op>,
    refused: Vec<Op>,
    add_guards: Vec<Op>,
    settings: Vec<Op>,
    add_links: Vec<Op>,
    link_settings: Vec<Op>,
    attributes: Vec<Op>,
    addresses: Vec<Op>,
    up: Vec<Op>,
    entries: Vec<Op>,
    add_routes: Vec<Op>,
    add_tables: Vec<Op>,
    lead_there: Vec<Op>,
    forget_flows: Vec<Op>,
}

impl Steps {
    /// Whether links come to this namespace.
    fn brings_links(&self, to: Ns) -> bool {
        let other_end = |op: &Op| matches!(op, Op::AddVeth { peer_ns, .. } if *peer_ns == to);
        self.add_links.iter().any(|op| op.ns() == to || other_end(op))
    }

    fn in_order(self) -> Vec<Op> {
        [
            // The host's before the sandboxes', to which it leads: in the order of namespaces.
            self.lead_away,
            self.del_routes,
            self.del_links,
            self.del_netns,
            // After the links that a table keeps apart, and before them.
            self.del_tables,
            self.add_netns,
            self.add_guards,
            // Before the links: a new link inherits the defaults of its namespace.
            self.settings,
            self.refused,
            self.add_links,
            // They come with their links, and some are for what follows: no IPv6 address where IPv6 is off.
            self.link_settings,
            self.attributes,
            self.addresses,
            self.up,
            self.entries,
            // After up: the kernel refuses a route by a link that is down.
            self.add_routes,
            // After the entries by which a new backend is reached.
            self.add_tables,
            // The host leads to the sandboxes.
            self.lead_there,
            // Under the new tables, or they would be back at once.
            self.forget_flows,
        ]
        .concat()
    }
}

fn is_ours(ns: Ns, link: &LinkName) -> bool {
    match ns {
        // No other is observed there.
        Ns::Host => true,
        Ns::Sandbox(_) => true,
        // A container may make links of its own.
        Ns::Task(_) => link.as_str().starts_with("eth"),
    }
}

fn same_kind(want: &LinkKind, have: &LinkKind) -> bool {
    match (want, have) {
        (LinkKind::Veth { peer: Some(want) }, LinkKind::Veth { peer: Some(have) }) => want == have,
        // One of the two does not know.
        (LinkKind::Veth { .. }, LinkKind::Veth { .. }) => true,
        (want, have) => want == have,
    }
}

fn surplus_links(ns: Ns, want: &Namespace, now: &mut World, steps: &mut Steps) {
    let Some(have) = now.namespaces.get(&ns) else { return };
    let surplus: Vec<LinkName> = have
        .links
        .iter()
        .filter(|(name, link)| {
            is_ours(ns, name) && !want.links.get(*name).is_some_and(|w| same_kind(&w.kind, &link.kind))
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in surplus {
        delete(ns, &name, now, steps);
    }
}

/// Deletes a link and what the kernel deletes along with it: a veth's other end, what is on a VLAN.
fn delete(ns: Ns, name: &LinkName, now: &mut World, steps: &mut Steps) {
    let gone = now.namespaces.get_mut(&ns).and_then(|n| n.links.remove(name));
    if let Some(Link { kind: LinkKind::Veth { peer: Some((peer_ns, peer)) }, .. }) = &gone
        && let Some(n) = now.namespaces.get_mut(peer_ns)
    {
        n.links.remove(peer);
    }
    if let Some(Link { kind: LinkKind::Vlan { .. }, .. }) = &gone {
        let is_on_it = |link: &Link| matches!(&link.kind, LinkKind::Macvlan { parent, .. } if parent == name);
        for task in now.namespaces.values_mut() {
            task.routes.retain(|route| !task.links.get(&route.link).is_some_and(is_on_it));
            task.links.retain(|_, link| !is_on_it(link));
        }
    }
    if let Some(n) = now.namespaces.get_mut(&ns) {
        n.routes.retain(|r| r.link != *name);
        n.sysctls.retain(|path, _| names::sysctl_link(path) != Some(name.as_str()));
    }
    steps.del_links.push(Op::DelLink { ns, link: name.clone() });
}

fn missing_links(
    ns: Ns,
    wanted: &BTreeMap<Ns, &Namespace>,
    looked_at: &BTreeSet<Ns>,
    now: &mut World,
    steps: &mut Steps,
) {
    let Some(want) = wanted.get(&ns) else { return };
    for (name, link) in &want.links {
        let here = now.namespaces.get(&ns).is_some_and(|n| n.links.contains_key(name));
        match &link.kind {
            LinkKind::Bridge if !here => {
                let (mac, mtu, marked) = (link.mac, link.mtu, link.marked);
                steps.add_links.push(Op::AddBridge { ns, link: name.clone(), mac, mtu, marked });
                made(ns, name, link, now);
            }
            LinkKind::Vxlan { vni, local, port } if !here => {
                let (vni, local, port, mtu) = (*vni, *local, *port, link.mtu);
                steps.add_links.push(Op::AddVxlan { ns, link: name.clone(), vni, local, port, mtu });
                made(ns, name, link, now);
            }
            LinkKind::Veth { peer: Some((peer_ns, peer)) } if makes_pairs(ns, *peer_ns) => {
                let there = if looked_at.contains(peer_ns) {
                    now.namespaces.get(peer_ns).is_some_and(|n| n.links.contains_key(peer))
                } else {
                    here
                };
                if here && there {
                    continue;
                }
                if here {
                    delete(ns, name, now, steps);
                }
                if there {
                    delete(*peer_ns, peer, now, steps);
                }
                let peer_mac = wanted.get(peer_ns).and_then(|n| n.links.get(peer)).and_then(|l| l.mac);
                steps.add_links.push(Op::AddVeth {
                    ns,
                    link: name.clone(),
                    mtu: link.mtu,
                    mac: link.mac,
                    peer_ns: *peer_ns,
                    peer: peer.clone(),
                    peer_mac,
                });
                made(ns, name, link, now);
                if let Some(there) = now.namespaces.get_mut(peer_ns).and_then(|n| n.links.get_mut(peer)) {
                    there.mac = peer_mac;
                }
            }
            LinkKind::Macvlan { parent, mode } if !here => {
                let (parent, mode, mac, mtu) = (parent.clone(), *mode, link.mac, link.mtu);
                steps.add_links.push(Op::AddMacvlan { ns, link: name.clone(), parent, mode, mac, mtu });
                made(ns, name, link, now);
            }
            LinkKind::Vlan { parent, id } if !here => {
                let (parent, id, mtu) = (parent.clone(), *id, link.mtu);
                steps.add_links.push(Op::AddVlan { ns, link: name.clone(), parent, id, mtu });
                made(ns, name, link, now);
            }
            LinkKind::Bridge
            | LinkKind::Vxlan { .. }
            | LinkKind::Veth { .. }
            | LinkKind::Macvlan { .. }
            | LinkKind::Vlan { .. }
            | LinkKind::Other(_) => {}
        }
    }
}

/// From which end a pair is made: that of the bridge, or of the sandbox's way out.
fn makes_pairs(ns: Ns, peer: Ns) -> bool {
    matches!((ns, peer), (Ns::Sandbox(_), _) | (Ns::Host, Ns::Task(_)))
}

/// Notes a link as the kernel makes it: down, without addresses.
fn made(ns: Ns, name: &LinkName, link: &Link, now: &mut World) {
    let fresh = |kind: LinkKind| Link { up: false, mac: link.mac, marked: link.marked, ..Link::new(kind, link.mtu) };
    if let Some(n) = now.namespaces.get_mut(&ns) {
        n.links.insert(name.clone(), fresh(link.kind.clone()));
    }
    if let LinkKind::Veth { peer: Some((peer_ns, peer)) } = &link.kind
        && let Some(n) = now.namespaces.get_mut(peer_ns)
    {
        let kind = LinkKind::Veth { peer: Some((ns, name.clone())) };
        n.links.insert(peer.clone(), Link { up: false, ..Link::new(kind, link.mtu) });
    }
}

fn settings(ns: Ns, want: &Namespace, have: &Namespace, steps: &mut Steps) {
    for (path, value) in want.sysctls.iter().filter(|(path, value)| have.sysctls.get(*path) != Some(value)) {
        let of_link = names::sysctl_link(path).is_some();
        let step = if of_link { &mut steps.link_settings } else { &mut steps.settings };
        step.push(Op::SetSysctl { ns, path: path.clone(), value: value.clone() });
    }
    if want.loopback_up && !have.loopback_up && ns != Ns::Host {
        steps.settings.push(Op::LoopbackUp { ns });
    }
}

fn differences(ns: Ns, name: &LinkName, want: &Link, have: &Link, steps: &mut Steps) {
    let link = || name.clone();
    if want.marked && !have.marked {
        steps.attributes.push(Op::Mark { ns, link: link() });
    }
    if let Some(mac) = want.mac
        && have.mac != Some(mac)
    {
        steps.attributes.push(Op::SetMac { ns, link: link(), mac });
    }
    if want.mtu != have.mtu {
        steps.attributes.push(Op::SetMtu { ns, link: link(), mtu: want.mtu });
    }
    if want.master != have.master {
        steps.attributes.push(Op::SetMaster { ns, link: link(), master: want.master.clone() });
    }
    // A port that changes its bridge starts with the kernel's flags.
    let port_now = if want.master == have.master { have.port } else { Default::default() };
    if want.master.is_some() && want.port != port_now {
        steps.attributes.push(Op::SetPort { ns, link: link(), port: want.port });
    }
    for address in have.addresses.difference(&want.addresses) {
        steps.addresses.push(Op::DelAddress { ns, link: link(), address: *address });
    }
    for address in want.addresses.difference(&have.addresses) {
        steps.addresses.push(Op::AddAddress { ns, link: link(), address: *address });
    }
    if want.up != have.up {
        steps.up.push(Op::SetUp { ns, link: link(), up: want.up });
    }
    for entry in have.fdb.difference(&want.fdb) {
        steps.entries.push(Op::DelFdb { ns, link: link(), entry: *entry });
    }
    for entry in want.fdb.difference(&have.fdb) {
        steps.entries.push(Op::AddFdb { ns, link: link(), entry: *entry });
    }
    let bridge_fdb_now = if want.master == have.master { &have.bridge_fdb } else { &BTreeSet::new() };
    for mac in bridge_fdb_now.difference(&want.bridge_fdb) {
        steps.entries.push(Op::DelBridgeFdb { ns, link: link(), mac: *mac });
    }
    for mac in want.bridge_fdb.difference(bridge_fdb_now) {
        steps.entries.push(Op::AddBridgeFdb { ns, link: link(), mac: *mac });
    }
    let kept: BTreeSet<_> = want.neighbours.iter().map(|n| n.ip).collect();
    for neighbour in have.neighbours.iter().filter(|n| !kept.contains(&n.ip)) {
        steps.entries.push(Op::DelNeighbour { ns, link: link(), ip: neighbour.ip });
    }
    for entry in want.neighbours.difference(&have.neighbours) {
        steps.entries.push(Op::SetNeighbour { ns, link: link(), entry: *entry });
    }
}

fn routes(ns: Ns, want: &Namespace, have: &Namespace, steps: &mut Steps) {
    // The host's routes are its own: we have none there, and take none away.
    if ns == Ns::Host {
        return;
    }
    for route in have.routes.difference(&want.routes).filter(|r| is_ours(ns, &r.link)) {
        steps.del_routes.push(Op::DelRoute { ns, route: route.clone() });
    }
    for route in want.routes.difference(&have.routes) {
        steps.add_routes.push(Op::AddRoute { ns, route: route.clone() });
    }
}

fn tables(ns: Ns, want: &Namespace, have: &Namespace, steps: &mut Steps) {
    for (family, table) in have.tables.iter().filter(|(family, _)| !want.tables.contains_key(*family)) {
        let leads = table.leads.as_ref().is_none_or(|leads| !leads.is_empty());
        let step = if leads { &mut steps.lead_away } else { &mut steps.del_tables };
        step.push(Op::DelTable { ns, family: *family });
    }
    for (family, table) in &want.tables {
        let before = have.tables.get(family);
        if before.is_none_or(|b| b.digest != table.digest) {
            replace(ns, *family, table, before, steps);
        }
        let flows: BTreeSet<Flow> = have.flows.iter().filter(|flow| table.is_stray(flow)).copied().collect();
        if *family == Family::Inet && !flows.is_empty() {
            steps.forget_flows.push(Op::ForgetFlows { ns, flows });
        }
    }
}

/// Nothing leads to a place before that place answers, nor after: a table gives up first what goes, and gets last what
/// comes. What it keeps apart is kept apart from before the links are there until after they are gone.
fn replace(ns: Ns, family: Family, table: &Table, before: Option<&Table>, steps: &mut Steps) {
    let op = |table: &Table| Op::ReplaceTable {
        ns,
        family,
        chains: table.chains.clone(),
        digest: table.digest.clone(),
        leads: table.leads.clone().unwrap_or_default(),
    };
    let new = table.leads.clone().unwrap_or_default();
    // Not known: as if it led where it is to lead.
    let old =
        before.map_or_else(|| Some(BTreeSet::new()), |before| before.leads.clone()).unwrap_or_else(|| new.clone());
    let loses = old.difference(&new).any(|lead| !table.flows.alive.contains(lead) && !holds_all(table, lead));
    let gains = !new.is_subset(&old);
    let is_guard = !(matches!(ns, Ns::Sandbox(_)) && family == Family::Inet);
    let in_between = nft::leading_to(table, &old);
    let differs = before.is_none_or(|before| before.digest != in_between.digest);
    if loses {
        steps.lead_away.push(op(&in_between));
    } else if is_guard && (!gains || steps.brings_links(ns)) && differs {
        steps.add_guards.push(op(&in_between));
    }
    if gains || !(loses || is_guard) {
        let step = if ns == Ns::Host { &mut steps.lead_there } else { &mut steps.add_tables };
        step.push(op(table));
    }
}

/// Whether somebody may finish at each port of this one's address.
fn holds_all(table: &Table, lead: &Backend) -> bool {
    table.flows.alive.contains(&Backend { port: None, ..*lead })
}
