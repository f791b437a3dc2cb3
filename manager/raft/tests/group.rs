//! Members of one group in one process, over loopback.

#![allow(clippy::unwrap_used)]

mod members;

use members::{Group, describe, eventually, network, proposal, register};
use shoal_common::{NodeId, node::Role};
use shoal_raft::ProposeError;
use shoal_state::{Command, Rejection, Reply};
use std::time::Duration;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_remembers_what_it_acknowledged() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    let (index, outcome) = group.member(1).propose(network("blue")).await.unwrap();
    assert!(matches!(outcome, Ok(Reply::Network(_))), "{outcome:?}");
    assert_eq!(group.member(1).read().await.unwrap().applied, index);
    let taken = group.member(1).propose(network("blue")).await.unwrap().1;
    assert!(matches!(taken, Err(Rejection::NameTaken { .. })), "{taken:?}");

    group.restart(1).await;
    assert!(group.member(1).is_initialised());
    let state = group.member(1).read().await.unwrap();
    assert!(state.find_network("blue", None).is_some());
}

/// The log begins with a group in which the first member was alone: it must not take itself for that again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_member_may_leave_and_come_back_with_nothing() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    for n in 0..200 {
        group.member(1).propose(network(&format!("n{n}"))).await.unwrap().1.unwrap();
    }
    group.grow(&[1, 2, 3]).await;
    for _ in 0..4 {
        group.grow(&[2, 3]).await;
        let seen = group.member(2).read().await.unwrap().applied;
        group.restart_empty(1, seen).await;
        group.grow(&[1, 2, 3]).await;
        assert_eq!(group.member(1).read().await.unwrap().networks.len(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_group_says_so() {
    let mut group = Group::new();
    group.open(7).await;
    assert!(!group.member(7).is_initialised());
    assert_eq!(group.member(7).read().await.unwrap_err(), ProposeError::NotInitialised);
    assert_eq!(group.member(7).propose(network("blue")).await.unwrap_err(), ProposeError::NotInitialised);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_take_proposals_anywhere_and_survive_two_losses() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    group.grow(&[1, 2, 3, 4, 5]).await;

    for (id, name) in [(1, "a"), (3, "c"), (5, "e")] {
        let (index, outcome) = group.member(id).propose(network(name)).await.unwrap();
        assert!(outcome.is_ok());
        // Read your writes, on any other member.
        let state = group.member(id % 5 + 1).read().await.unwrap();
        assert!(state.applied >= index && state.find_network(name, None).is_some());
    }

    let first = group.leader().await;
    group.stop(first).await;
    let second = group.leader().await;
    assert_ne!(first, second);
    group.stop(second).await;
    let third = group.leader().await;
    let follower = group.running().into_iter().find(|id| *id != third).unwrap();
    assert!(group.member(follower).propose(network("late")).await.unwrap().1.is_ok());

    // Those that were away learn what they missed.
    group.restart(first).await;
    let back = group.member(first);
    eventually("the first leader knows the late network", async || {
        back.state().borrow().find_network("late", None).is_some()
    })
    .await;
}

/// 40 MiB in one entry deposed the leader: it cannot be replicated within the second that a message may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_too_large_is_refused_by_whoever_is_asked_and_deposes_nobody() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    group.grow(&[1, 2]).await;
    let before = group.member(1).leadership().borrow().clone();
    for id in [1, 2] {
        let large = describe(1, &"h".repeat(1 << 20));
        let error = group.member(id).propose(large).await.unwrap_err();
        assert!(matches!(error, ProposeError::TooLarge { bytes } if bytes > 1 << 20), "{error}");
        assert!(error.to_string().contains("1048576"), "{error}");
        // One that just fits goes through.
        assert!(group.member(id).propose(describe(1, &"h".repeat(1_000_000))).await.is_ok());
    }
    assert_eq!(*group.member(1).leadership().borrow(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_the_answer_is_an_error_within_the_deadline() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    group.grow(&[1, 2, 3]).await;
    let leader = group.leader().await;
    for id in [1, 2, 3] {
        if id != leader {
            group.stop(id).await;
        }
    }
    let alone = group.member(leader);
    let begun = tokio::time::Instant::now();
    let error = alone.propose(network("blue")).await.unwrap_err();
    assert!(matches!(error, ProposeError::NoQuorum(_) | ProposeError::NoLeader { .. }), "{error}");
    assert!(begun.elapsed() < members::DEADLINE * 2, "{:?}", begun.elapsed());
    assert!(alone.read().await.is_err());
    eventually("a leader that nobody answers steps back", async || !alone.leadership().borrow().is_self).await;

    // What is refused from then on is not made later, when a majority is back.
    assert!(alone.propose(network("red")).await.is_err());
    for id in [1, 2, 3] {
        if id != leader {
            group.restart(id).await;
        }
    }
    let state = group.member(group.leader().await).read().await.unwrap();
    assert!(state.find_network("red", None).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    group.grow(&[1, 2, 3]).await;
    let leader = group.leader().await;
    let away = [1, 2, 3].into_iter().find(|id| *id != leader).unwrap();
    group.stop(away).await;
    // More than the log keeps.
    for nth in 0..3 * members::SNAPSHOT_EVERY {
        group.member(leader).propose(describe(1, &format!("host-{nth}"))).await.unwrap().1.unwrap();
    }
    group.member(leader).propose(network("blue")).await.unwrap().1.unwrap();
    group.restart(away).await;
    let back = group.member(away);
    eventually("the network is known to the one that was away", async || {
        back.state().borrow().find_network("blue", None).is_some()
    })
    .await;
    // And it can lead with what it has: the whole state is the same.
    let theirs = group.member(leader).read().await.unwrap();
    eventually("the states are equal", async || *back.state().borrow().as_ref() == *theirs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_that_was_cut_short_is_finished() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    group.open(2).await;
    group.open(3).await;
    let (leader, wanted) = (group.member(1), group.addresses(&[1, 2, 3]));
    // In the midst of the joint configuration, whose first half is member 1 alone, the one that asked for it is gone.
    let mut leadership = leader.leadership();
    let joint = leadership.wait_for(|now| now.voters.len() == 3);
    tokio::select! {
        biased;
        _ = joint => {}
        () = async { loop { leader.align_membership(&wanted).await.unwrap(); } } => {}
    }
    group.grow(&[1, 2, 3]).await;
    group.stop(1).await;
    assert_ne!(group.leader().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_outlived_its_node_or_its_role_opens_nothing() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    let member = group.member(1);
    let join = async |name, role| match member.propose(register(name, role)).await.unwrap().1 {
        Ok(Reply::Node(node)) => node,
        other => panic!("{other:?}"),
    };
    let (manager, demoted, gone) =
        (join("a", Role::Manager).await, join("b", Role::Worker).await, join("c", Role::Worker).await);
    let remove = proposal(Command::RemoveNode { node: gone, force: true });
    member.propose(remove).await.unwrap().1.unwrap();
    assert_eq!(group.ask(1, manager.0).await, Ok(()));
    assert_eq!(group.ask(1, demoted.0).await, Err(Code::PermissionDenied));
    assert_eq!(group.ask(1, gone.0).await, Err(Code::PermissionDenied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_not_wanted_leave_the_leader_included() {
    let mut group = Group::new();
    group.bootstrap(1).await;
    group.grow(&[1, 2, 3]).await;
    group.grow(&[2, 3]).await;
    let mut next = 1;
    eventually("one that stays leads", async || {
        next = group.leader().await;
        next != 1
    })
    .await;
    assert!(group.member(next).propose(network("blue")).await.unwrap().1.is_ok());
    assert!(!group.member(next).leadership().borrow().voters.contains(&NodeId(1)));
    tokio::time::timeout(Duration::from_secs(5), group.member(1).shutdown()).await.unwrap();
}
