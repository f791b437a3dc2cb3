use std::{collections::BTreeMap, time::Duration};

use proptest::{prop_assert, prop_assert_eq, proptest};
use shoal_common::{
    NodeId, Timestamp,
    node::{
        self,
        Liveness::{Down, Ready},
    },
};
use shoal_control::{Liveness, liveness::TIMEOUT};
use shoal_state::{Command, Node, State};

use crate::lab::Lab;

/// Asks every half second until `until`, as the shell does; hears `nodes` meanwhile.
fn run(liveness: &mut Liveness, lab: &mut Lab, from: Timestamp, until: Timestamp, nodes: &[u64]) -> Timestamp {
    let mut now = from;
    while now < until {
        for &node in nodes {
            liveness.heard(NodeId(node), now);
        }
        let verdicts = liveness.verdicts(&lab.state, now);
        for (node, verdict) in verdicts {
            lab.liveness(node.0, verdict);
        }
        now = now + Duration::from_millis(500);
    }
    now
}

fn of(lab: &Lab, node: u64) -> shoal_common::node::Liveness {
    lab.state.nodes.get(&NodeId(node)).unwrap().liveness
}

#[test]
fn a_new_leader_gives_every_node_a_whole_timeout() {
    let mut lab = Lab::new(3);
    let begin = Timestamp(7_000);
    let mut liveness = Liveness::new(begin, TIMEOUT);
    let now = run(&mut liveness, &mut lab, begin, begin + TIMEOUT, &[1, 2]);
    assert_eq!([of(&lab, 1), of(&lab, 2), of(&lab, 3)], [Ready, Ready, Ready]);
    assert_eq!(liveness.verdicts(&lab.state, now), [(NodeId(3), Down)]);
}

#[test]
fn a_node_that_speaks_is_ready_at_once_and_one_that_never_does_goes_down() {
    let mut lab = Lab::new(1);
    let begin = Timestamp(0);
    let mut liveness = Liveness::new(begin, TIMEOUT);
    let now = run(&mut liveness, &mut lab, begin, begin + TIMEOUT * 3, &[1]);
    let (a, b) = (lab.add_node(2), lab.add_node(3));
    assert_eq!(liveness.verdicts(&lab.state, now), [], "a node that has just joined has its time too");
    liveness.heard(a, now);
    assert_eq!(liveness.verdicts(&lab.state, now), [(a, Ready)]);
    run(&mut liveness, &mut lab, now, now + TIMEOUT * 2, &[1, a.0]);
    assert_eq!([of(&lab, a.0), of(&lab, b.0)], [Ready, Down]);
    liveness.heard(b, now + TIMEOUT * 2);
    assert_eq!(liveness.verdicts(&lab.state, now + TIMEOUT * 2), [(b, Ready)]);
}

#[test]
fn of_a_host_that_left_nothing_is_said_any_more() {
    let mut lab = Lab::new(2);
    let mut liveness = Liveness::new(Timestamp(0), TIMEOUT);
    lab.propose(Command::LeaveCluster { node: NodeId(2) }).unwrap();
    liveness.heard(NodeId(2), Timestamp(1));
    assert_eq!(liveness.verdicts(&lab.state, Timestamp(1)), [], "its last heartbeat came late");
}

#[test]
fn a_leader_that_was_asleep_calls_nobody_down_for_it() {
    let mut lab = Lab::new(3);
    let mut liveness = Liveness::new(Timestamp(0), TIMEOUT);
    let now = run(&mut liveness, &mut lab, Timestamp(0), Timestamp(60_000), &[1, 2]);
    assert_eq!(of(&lab, 3), Down);
    let woke = now + Duration::from_secs(60);
    assert_eq!(liveness.verdicts(&lab.state, woke), [], "neither down nor, for those that were down, ready");
    let now = run(&mut liveness, &mut lab, woke, woke + TIMEOUT * 2, &[1]);
    assert_eq!([of(&lab, 1), of(&lab, 2), of(&lab, 3)], [Ready, Down, Down]);
    assert!(liveness.wake_at(now) > now && liveness.wake_at(now) <= now + TIMEOUT / 2);
}

#[test]
fn asking_at_the_wake_up_times_finds_the_silent_node_in_time() {
    let mut lab = Lab::new(1);
    let mut liveness = Liveness::new(Timestamp(0), TIMEOUT);
    let mut now = Timestamp(0);
    while of(&lab, 1) != Down {
        assert!(now <= Timestamp(0) + TIMEOUT, "{now:?}");
        let verdicts = liveness.verdicts(&lab.state, now);
        for (node, verdict) in verdicts {
            lab.liveness(node.0, verdict);
        }
        now = liveness.wake_at(now);
    }
}

/// The rule itself, which looks at every node each time.
#[derive(Default)]
struct Plain {
    contacts: BTreeMap<NodeId, (Timestamp, bool)>,
    attentive_at: Timestamp,
}

impl Plain {
    fn attend(&mut self, now: Timestamp) {
        if now.since(self.attentive_at) >= TIMEOUT {
            self.contacts.values_mut().for_each(|contact| *contact = (now, false));
        }
        self.attentive_at = now;
    }

    fn verdicts(&mut self, state: &State, now: Timestamp) -> Vec<(NodeId, node::Liveness)> {
        self.attend(now);
        self.contacts.retain(|id, _| state.nodes.contains_key(id));
        let mut verdict = |node: &Node| {
            let (at, heard) = *self.contacts.entry(node.id).or_insert((now, false));
            let silent = now.since(at) >= TIMEOUT;
            let verdict = if silent {
                Down
            } else if heard {
                Ready
            } else {
                node.liveness
            };
            (verdict != node.liveness).then_some((node.id, verdict))
        };
        state.nodes.values().filter(|node| !node.left).filter_map(&mut verdict).collect()
    }
}

proptest! {
    #[test]
    fn it_says_what_a_look_at_every_node_says(
        steps in proptest::collection::vec((1u64..7, 0u64..4_000, 0u8..6), 1..80)
    ) {
        let mut lab = Lab::new(4);
        let (mut liveness, mut plain) = (Liveness::new(Timestamp(0), TIMEOUT), Plain::default());
        let mut now = Timestamp(0);
        for (node, pause, what) in steps {
            now = now + Duration::from_millis(pause);
            match what {
                0 | 1 => {
                    liveness.heard(NodeId(node), now);
                    plain.attend(now);
                    plain.contacts.insert(NodeId(node), (now, true));
                }
                2 => drop(lab.state.nodes.remove(&NodeId(node))),
                3 => now = now + TIMEOUT / 2,
                _ => {}
            }
            let verdicts = liveness.verdicts(&lab.state, now);
            prop_assert_eq!(&verdicts, &plain.verdicts(&lab.state, now));
            let after = liveness.wake_at(now);
            prop_assert!(after > now && after <= now + TIMEOUT / 2);
            // Sometimes the proposal is lost.
            if what != 5 {
                for (id, verdict) in verdicts {
                    lab.liveness(id.0, verdict);
                }
            }
        }
    }
}
