//! What cannot be had on this host as it is: nothing is done for it nor to what is in its way, and all else is done.

use serde::{Deserialize, Serialize};
use shoal_common::{LinkName, network::MacvlanMode};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crate::{
    names, nft,
    ns::Ns,
    op::Op,
    world::{Link, LinkKind, Namespace, World},
};

/// Why a link is not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Somebody else's link in the host's namespace has the name that one of ours is to have.
    NameTaken(LinkName),
    /// A link in mode passthru takes every frame that comes by its parent, the host's own too.
    CutsOff { parent: LinkName, addresses: BTreeSet<IpAddr> },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NameTaken(link) => write!(
                f,
                "this host has a link {link} that is not shoal's: give the network's bridge another name, or remove \
                 or rename the link"
            ),
            Why::CutsOff { parent, addresses } => {
                let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                write!(
                    f,
                    "link {parent} has addresses of this host ({}), and macvlan_mode passthru would give all that \
                     comes by it to the container: use a parent link without addresses, or macvlan_mode bridge",
                    addresses.join(", ")
                )
            }
        }
    }
}

/// The part of `desired` that can be had, and an [`Op::Impossible`] for each link that cannot; `None`: all can be had.
pub(crate) fn without(desired: &World, actual: &World, looked_at: &BTreeSet<Ns>) -> Option<(World, Vec<Op>)> {
    let host = actual.namespaces.get(&Ns::Host)?;
    let (taken, cutting) = (taken(desired, host), cutting(desired, actual, host, looked_at));
    if taken.is_empty() && cutting.is_empty() {
        return None;
    }
    let mut possible = desired.clone();
    leave_names(&mut possible, &taken);
    let mut refused = Vec::new();
    for link in taken {
        // A VLAN that is there already will do.
        let is_vlan = |link: &Link| matches!(link.kind, LinkKind::Vlan { .. });
        if !desired.namespaces.get(&Ns::Host).and_then(|want| want.links.get(&link)).is_some_and(is_vlan) {
            refused.push(Op::Impossible { ns: Ns::Host, link: link.clone(), why: Why::NameTaken(link) });
        }
    }
    for ((ns, link), why) in cutting {
        if let Some(namespace) = possible.namespaces.get_mut(&ns) {
            without_link(namespace, &link);
        }
        refused.push(Op::Impossible { ns, link, why });
    }
    Some((possible, refused))
}

/// Links of the host's namespace whose names others have.
fn taken(desired: &World, host: &Namespace) -> BTreeSet<LinkName> {
    let wanted = desired.namespaces.get(&Ns::Host).into_iter().flat_map(|want| want.links.keys());
    wanted.filter(|name| host.foreign.contains_key(*name)).cloned().collect()
}

/// Links that are to be made and would take the host's own frames. One that is there already stays.
fn cutting(
    desired: &World,
    actual: &World,
    host: &Namespace,
    looked_at: &BTreeSet<Ns>,
) -> BTreeMap<(Ns, LinkName), Why> {
    let mut found = BTreeMap::new();
    for (ns, want) in desired.namespaces.iter().filter(|(ns, _)| looked_at.contains(ns)) {
        for (name, link) in &want.links {
            let LinkKind::Macvlan { parent, mode: MacvlanMode::Passthru } = &link.kind else { continue };
            let have = actual.namespaces.get(ns).and_then(|have| have.links.get(name));
            let ours = host.links.get(parent).map(|parent| &parent.addresses);
            let nets = [ours, host.foreign.get(parent)].into_iter().flatten().flatten();
            let addresses: BTreeSet<IpAddr> = nets.map(|net| net.addr()).collect();
            if have.is_none_or(|have| have.kind != link.kind) && !addresses.is_empty() {
                found.insert((*ns, name.clone()), Why::CutsOff { parent: parent.clone(), addresses });
            }
        }
    }
    found
}

/// Nothing by these names in the host's namespace, nor on the other side of what hangs on them.
fn leave_names(possible: &mut World, taken: &BTreeSet<LinkName>) {
    let Some(host) = possible.namespaces.get_mut(&Ns::Host) else { return };
    let is_lost = |name: &LinkName, link: &Link| {
        taken.contains(name) || link.master.as_ref().is_some_and(|master| taken.contains(master))
    };
    let mut ends = Vec::new();
    host.links.retain(|name, link| {
        let lost = is_lost(name, link);
        if let (true, LinkKind::Veth { peer: Some(end) }) = (lost, &link.kind) {
            ends.push(end.clone());
        }
        !lost
    });
    host.sysctls.retain(|path, _| !taken.iter().any(|name| names::sysctl_link(path) == Some(name.as_str())));
    if !taken.is_empty() {
        for table in host.tables.values_mut() {
            *table = nft::without(table, taken);
        }
    }
    for (ns, end) in ends {
        if let Some(other) = possible.namespaces.get_mut(&ns) {
            without_link(other, &end);
        }
    }
}

fn without_link(namespace: &mut Namespace, link: &LinkName) {
    namespace.links.remove(link);
    namespace.routes.retain(|route| route.link != *link);
}
