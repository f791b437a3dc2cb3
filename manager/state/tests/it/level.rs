//! Managers of two versions, and managers whose states differ.

use shoal_common::{Level, LogIndex, NodeId, Timestamp, node::Role};
use shoal_state::{Checkpoint, Command, Proposal, Rejection, Reply, State, Verdict, checkpoint::EVERY, digest};

use crate::world::{World, description, init, register};

fn of(name: &str, level: u32) -> shoal_common::node::NodeDescription {
    shoal_common::node::NodeDescription { level: Level(level), ..description(name) }
}

fn describe(node: u64, name: &str, level: u32) -> Command {
    Command::DescribeNode { node: NodeId(node), description: of(name, level) }
}

fn promote(node: u64) -> Command {
    Command::UpdateNode {
        node: NodeId(node),
        availability: None,
        role: Some(Role::Manager),
        labels_add: Default::default(),
        labels_remove: vec![],
    }
}

#[test]
fn a_level_is_raised_once_every_manager_knows_it_and_none_that_does_not_joins_later() {
    let mut w = World::three_nodes();
    assert_eq!(w.state.level, Level(0), "that of the first manager");
    assert_eq!(w.apply(promote(2)), Ok(Reply::Done));
    w.apply(describe(1, "m1", 1)).unwrap();
    assert_eq!(w.state.known_by_all(), Level(0));
    let raise = Command::RaiseLevel { level: Level(1) };
    assert!(matches!(w.apply(raise.clone()), Err(Rejection::LevelUnknown { node, .. }) if node == "w2"));
    w.apply(describe(2, "w2", 1)).unwrap();
    assert_eq!(w.apply(raise.clone()), Ok(Reply::Done));
    assert_eq!(w.state.level, Level(1));
    // Said again, or by a leader that is late: a level is never lowered.
    assert_eq!(w.apply(raise), Ok(Reply::Done));
    assert_eq!(w.apply(Command::RaiseLevel { level: Level(0) }), Ok(Reply::Done));
    assert_eq!(w.state.level, Level(1));
    // w3 runs an older version: as a worker it may.
    assert!(matches!(w.apply(promote(3)), Err(Rejection::LevelUnknown { .. })));
    assert!(matches!(w.apply(register("old", Role::Manager)), Err(Rejection::LevelUnknown { .. })));
    assert!(w.apply(register("old", Role::Worker)).is_ok());
    w.apply(describe(3, "w3", 1)).unwrap();
    assert_eq!(w.apply(promote(3)), Ok(Reply::Done));
}

#[test]
fn a_new_cluster_has_the_level_of_its_first_manager() {
    let Command::InitCluster { cluster, .. } = init() else { unreachable!() };
    let mut w = World::default();
    w.apply(Command::InitCluster { cluster, node: of("m1", 1) }).unwrap();
    assert_eq!(w.state.level, Level(1));
}

#[test]
#[should_panic(expected = "feature level 99 needs a newer version of Shoal")]
fn a_level_that_this_version_does_not_know_ends_the_manager() {
    let mut w = World::three_nodes();
    w.apply(describe(1, "m1", 99)).unwrap();
    let _ = w.apply(Command::RaiseLevel { level: Level(99) });
}

#[test]
fn every_member_digests_the_state_of_the_same_entry_however_it_came_there() {
    let propose = |n: u64| {
        let command = match n {
            1 => init(),
            _ => Command::RotateJoinToken { role: Role::Worker, secret: n.to_string() },
        };
        Proposal { at: Timestamp(n), request: None, command }
    };
    // Not every index has an entry of ours: some are Raft's own, the multiples among them.
    let entries: Vec<u64> = (1..=2 * EVERY + 5).filter(|n| *n % EVERY > 2 || *n < EVERY).collect();
    let mut state = State::default();
    let mut taken = Vec::new();
    let mut from_snapshot: Option<State> = None;
    for &n in &entries {
        state.apply(LogIndex(n), &propose(n)).unwrap();
        if let Some(other) = &mut from_snapshot {
            other.apply(LogIndex(n), &propose(n)).unwrap();
        }
        if n == EVERY + 500 {
            assert_eq!(state.boundary().unwrap().0, LogIndex(EVERY));
            taken.push(digest(&state.boundary().unwrap().1));
            // As a member has it that was sent a snapshot, or has restarted from one.
            let bytes = rmp_serde::to_vec_named(&state).unwrap();
            let sent: State = rmp_serde::from_slice(&bytes).unwrap();
            assert!(sent == state && sent.boundary().is_none());
            from_snapshot = Some(sent);
        }
    }
    let (own, other) = (state.boundary().unwrap(), from_snapshot.unwrap().boundary().unwrap());
    assert_eq!(own.0, LogIndex(2 * EVERY));
    assert_eq!((own.0, digest(&own.1)), (other.0, digest(&other.1)));
    assert_ne!(taken[0], digest(&own.1));
}

#[test]
fn the_majority_of_the_managers_decides_who_differs() {
    let mut w = World::default();
    let Command::InitCluster { cluster, .. } = init() else { unreachable!() };
    w.apply(Command::InitCluster { cluster, node: of("m1", 1) }).unwrap();
    for n in 2..=3 {
        let command = Command::RegisterNode {
            role: Role::Manager,
            description: of(&format!("m{n}"), 1),
            public_key_sha256: n.to_string(),
        };
        w.apply(command).unwrap();
    }
    w.apply(register("w4", Role::Worker)).unwrap();
    let said = |digest: &str| Checkpoint { index: LogIndex(1000), digest: digest.to_owned() };
    let verdicts = |w: &World| ["a", "b"].map(|digest| w.state.verdict(&said(digest)));
    for (node, digest, after) in [
        (1, "a", [Verdict::Open, Verdict::Open]),
        // Workers have no state, and no vote.
        (4, "a", [Verdict::Open, Verdict::Open]),
        (2, "b", [Verdict::Open, Verdict::Open]),
        // A manager that says two things keeps its first word.
        (2, "a", [Verdict::Open, Verdict::Open]),
        (3, "a", [Verdict::Agrees, Verdict::Differs]),
    ] {
        w.apply(Command::Checkpoint { node: NodeId(node), checkpoint: said(digest) }).unwrap();
        assert_eq!(verdicts(&w), after, "after node-{node} said {digest}");
    }
    let next = |digest: &str| Checkpoint { index: LogIndex(2000), digest: digest.to_owned() };
    for (node, digest, after) in [(1, "x", Verdict::Open), (2, "y", Verdict::Open), (3, "z", Verdict::Split)] {
        w.apply(Command::Checkpoint { node: NodeId(node), checkpoint: next(digest) }).unwrap();
        assert_eq!(w.state.verdict(&next("x")), after);
    }
}
