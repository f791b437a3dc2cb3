//! Where to look: as few namespaces as do.

use shoal_common::network::MacvlanMode;
use shoal_plan::{Ns, Op, World};
use std::collections::BTreeSet;

/// Namespaces of which other things are wanted than before.
pub(crate) fn changed(before: &World, after: &World) -> BTreeSet<Ns> {
    let all = before.namespaces.keys().chain(after.namespaces.keys());
    all.filter(|ns| before.namespaces.get(ns) != after.namespaces.get(ns)).copied().collect()
}

/// Whether more is broken than a look at `scope` shows: a pair of links lost an end that was not looked at, or a
/// namespace that was right (`done`) is gone, and with it the other ends of its links; or a link takes all that comes
/// by one of the host's, which was not looked at.
pub(crate) fn is_too_narrow(ops: &[Op], scope: &BTreeSet<Ns>, done: &BTreeSet<Ns>) -> bool {
    ops.iter().any(|op| match op {
        Op::AddVeth { peer_ns, .. } => !scope.contains(peer_ns),
        Op::AddNetns { ns } => done.contains(ns),
        Op::AddMacvlan { mode: MacvlanMode::Passthru, .. } => !scope.contains(&Ns::Host),
        Op::DelNetns { .. }
        | Op::SetSysctl { .. }
        | Op::LoopbackUp { .. }
        | Op::AddBridge { .. }
        | Op::AddVxlan { .. }
        | Op::AddMacvlan { .. }
        | Op::AddVlan { .. }
        | Op::Mark { .. }
        | Op::Impossible { .. }
        | Op::DelLink { .. }
        | Op::SetMac { .. }
        | Op::SetMtu { .. }
        | Op::SetMaster { .. }
        | Op::SetPort { .. }
        | Op::SetUp { .. }
        | Op::AddAddress { .. }
        | Op::DelAddress { .. }
        | Op::AddFdb { .. }
        | Op::DelFdb { .. }
        | Op::AddBridgeFdb { .. }
        | Op::DelBridgeFdb { .. }
        | Op::SetNeighbour { .. }
        | Op::DelNeighbour { .. }
        | Op::AddRoute { .. }
        | Op::DelRoute { .. }
        | Op::ReplaceTable { .. }
        | Op::DelTable { .. }
        | Op::ForgetFlows { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use shoal_common::{Mtu, TaskId};
    use shoal_plan::{HostFacts, desired, plan};

    fn world(tasks: &[u64]) -> World {
        let facts = HostFacts {
            vtep: "192.0.2.1".parse().unwrap(),
            underlay_mtu: Mtu::ETHERNET,
            keeps_idle: true,
            closed: BTreeSet::new(),
        };
        desired(&fixture::assignment(1, &[1, 2, 3]), &facts, &tasks.iter().map(|t| TaskId(*t)).collect())
    }

    const SANDBOX: Ns = Ns::Sandbox(fixture::NETWORK);

    #[test]
    fn a_task_that_comes_concerns_its_own_namespace_and_its_networks() {
        let (before, after) = (world(&[1, 2]), world(&[1, 2, 3]));
        let scope = changed(&before, &after);
        assert_eq!(scope, [SANDBOX, Ns::Task(TaskId(3))].into());
        let ops = plan(&after, &before.restrict(&scope), &scope);
        assert!(!ops.is_empty() && !is_too_narrow(&ops, &scope, &[SANDBOX].into()));
        assert!(changed(&after, &after).is_empty());
    }

    #[test]
    fn a_port_that_somebody_deleted_asks_for_its_other_end() {
        let wanted = world(&[1]);
        let mut actual = wanted.clone();
        actual.namespaces.get_mut(&SANDBOX).unwrap().links.remove(&shoal_plan::names::port(TaskId(1)));
        let scope = [SANDBOX].into();
        assert!(is_too_narrow(&plan(&wanted, &actual.restrict(&scope), &scope), &scope, &scope));
        let scope = [SANDBOX, Ns::Task(TaskId(1))].into();
        assert!(!is_too_narrow(&plan(&wanted, &actual.restrict(&scope), &scope), &scope, &scope));
    }

    #[test]
    fn a_namespace_that_somebody_deleted_asks_for_its_networks() {
        let wanted = world(&[1]);
        let scope: BTreeSet<Ns> = [Ns::Task(TaskId(1))].into();
        let ops = plan(&wanted, &World::default(), &scope);
        assert!(is_too_narrow(&ops, &scope, &scope) && !is_too_narrow(&ops, &scope, &BTreeSet::new()));
    }
}
