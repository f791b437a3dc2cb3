//! This manager's word on what its state is, and what the others' words say about it.

use shoal_common::LogIndex;
use shoal_rt::clock;
use shoal_state::{Checkpoint, Command, Proposal, State, Verdict, digest};
use std::sync::Arc;

use crate::Manager;

/// Returns only if most managers hold another state than this one: the sentence says so, and what to do.
pub async fn run(manager: Manager) -> String {
    let mut states = manager.consensus.state();
    let mut own: Option<Checkpoint> = None;
    let mut told = Verdict::Open;
    loop {
        let state = states.borrow_and_update().clone();
        if let Some((index, then)) = state.boundary()
            && own.as_ref().is_none_or(|own| own.index < index)
        {
            own = take(&manager, &state, index, then).await.or(own);
            told = Verdict::Open;
        }
        if let Some(own) = &own {
            let verdict = state.verdict(own);
            match verdict {
                Verdict::Open | Verdict::Agrees => {}
                Verdict::Differs => {
                    let (node, index, digest) = (manager.node, own.index, &own.digest);
                    return format!(
                        "E-STATE-DIVERGED: {node} holds another state than most managers after entry {index} of the log \
                         ({digest}), so it ends as a manager before it gives out what others have given out already. \
                         The way back: 'shoal node demote {node}' on another manager, then 'shoal node promote {node}'"
                    );
                }
                Verdict::Split if told == verdict => {}
                Verdict::Split => tracing::error!(
                    index = %own.index,
                    digest = own.digest,
                    "the managers hold different states, and no majority agrees on one: demote all but one of them, and \
                     report this"
                ),
            }
            told = verdict;
        }
        if states.changed().await.is_err() {
            // The member has ended.
            std::future::pending::<()>().await;
        }
    }
}

/// Digests the state off the async workers, and says the digest in the log.
async fn take(manager: &Manager, now: &State, index: LogIndex, then: Arc<State>) -> Option<Checkpoint> {
    let digest = match tokio::task::spawn_blocking(move || digest(&then)).await {
        Ok(digest) => digest,
        Err(error) => {
            tracing::error!(%error, %index, "cannot make the digest of the state");
            return None;
        }
    };
    let checkpoint = Checkpoint { index, digest };
    let command = Command::Checkpoint { node: manager.node, checkpoint: checkpoint.clone() };
    // Not an error: managers of an older version cannot say theirs yet.
    if command.level() <= now.level {
        let proposal = Proposal { at: clock::now(), request: None, command };
        match manager.consensus.propose(proposal).await {
            Ok((_, Ok(_))) => {}
            Ok((_, Err(rejection))) => tracing::warn!(%rejection, "this manager's checkpoint was refused"),
            // The next one is due soon.
            Err(error) => tracing::info!(%error, %index, "this manager's checkpoint is not in the log"),
        }
    }
    Some(checkpoint)
}
