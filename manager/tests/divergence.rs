//! A manager whose state is another than the others' ends before it gives out what they have given out.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

#[allow(dead_code, reason = "each of the test programs uses a part of it")]
mod stage;

use futures::StreamExt;
use shoal_common::{Level, LogIndex, NodeId, node::Role};
use shoal_manager::checkpoint;
use shoal_rt::JoinToken;
use shoal_state::{Checkpoint, Command, State, Verdict, digest};
use stage::Stage;
use std::time::Duration;

/// Of the others', what they say after as many entries.
async fn says(stage: &Stage, node: NodeId, index: LogIndex, digest: String) {
    stage.propose(Command::Checkpoint { node, checkpoint: Checkpoint { index, digest } }).await.unwrap();
}

#[tokio::test]
async fn a_manager_that_holds_another_state_than_most_ends_and_says_the_way_back() {
    let stage = Stage::set().await;
    let others: Vec<NodeId> = {
        let m2 = stage.join(&stage.manager_token, "m2").await.unwrap().current().node;
        let m3 = stage.join(&stage.manager_token, "m3").await.unwrap().current().node;
        vec![m2, m3]
    };
    stage.until("the level of checkpoints", |state| state.level >= Level(1)).await;
    let checking = tokio::spawn(checkpoint::run(stage.manager.clone()));
    // What the entries are does not matter: enough of them, until there is something to compare.
    let rotate = |_| stage.propose(Command::RotateJoinToken { role: Role::Worker, secret: JoinToken::new_secret() });
    futures::stream::iter(0..1000).map(rotate).buffer_unordered(64).for_each(|_| async {}).await;
    let state = stage.until("a boundary", |state| state.boundary().is_some()).await;
    let (index, then) = state.boundary().unwrap();
    let own = digest(&then);

    // One other agrees: with this manager's own word, which it says by itself, that is most of the three.
    says(&stage, others[0], index, own.clone()).await;
    says(&stage, others[1], index, "another".to_owned()).await;
    let own = Checkpoint { index, digest: own };
    stage.until("most agree", |state| state.verdict(&own) == Verdict::Agrees).await;

    // At the next boundary both hold another, and that is where it ends.
    futures::stream::iter(0..1000).map(rotate).buffer_unordered(64).for_each(|_| async {}).await;
    let next = |state: &State| state.boundary().is_some_and(|(at, _)| at > index);
    let (index, _) = stage.until("the next boundary", next).await.boundary().unwrap();
    for node in others {
        says(&stage, node, index, "another".to_owned()).await;
    }
    let why = tokio::time::timeout(Duration::from_secs(20), checking).await.unwrap().unwrap();
    let expected = format!("E-STATE-DIVERGED: node-1 holds another state than most managers after entry {index}");
    assert!(why.starts_with(&expected) && why.contains("shoal node demote node-1"), "{why}");
}
