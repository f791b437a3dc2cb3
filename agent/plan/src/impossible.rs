//! Names in the host's namespace that one of our links is to have and somebody else's has: nothing is done to that
//! link, nor by it, and all else is done. But for a VLAN's: the link that is there serves as well.

use shoal_common::LinkName;
use std::collections::BTreeSet;

use crate::{
    names, nft,
    ns::Ns,
    world::{Link, LinkKind, World},
};

/// The part of `desired` that can be had, and the names that cannot; `None` if all can be had.
pub(crate) fn without(desired: &World, actual: &World) -> Option<(World, BTreeSet<LinkName>)> {
    let foreign = &actual.namespaces.get(&Ns::Host)?.foreign;
    let want = desired.namespaces.get(&Ns::Host)?;
    let mut taken: BTreeSet<LinkName> = want.links.keys().filter(|name| foreign.contains(*name)).cloned().collect();
    if taken.is_empty() {
        return None;
    }
    let mut possible = desired.clone();
    let host = possible.namespaces.get_mut(&Ns::Host)?;
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
    for table in host.tables.values_mut() {
        *table = nft::without(table, &taken);
    }
    for (ns, end) in ends {
        if let Some(other) = possible.namespaces.get_mut(&ns) {
            other.links.remove(&end);
            other.routes.retain(|route| route.link != end);
        }
    }
    // A VLAN that is there already will do.
    taken.retain(|name| !matches!(want.links.get(name), Some(Link { kind: LinkKind::Vlan { .. }, .. })));
    Some((possible, taken))
}
