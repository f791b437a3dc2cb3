//! Forgets tasks that have ended, but for a history that people and the restart policy can look at.

use std::collections::BTreeMap;

use shoal_common::{ServiceId, service::RestartPolicy};
use shoal_state::{Service, TaskChange};

use crate::{
    board::Seen,
    draft::Draft,
    orchestrator::{Place, counts},
};

/// Ended tasks kept per slot, the newest ones.
pub const HISTORY_PER_SLOT: usize = 5;

/// `kept` slots keep their history; of slots that are no longer the service's nothing is kept.
pub(crate) fn clear<'s, 'a: 's>(
    service: &Service,
    kept: impl Iterator<Item = &'s Place<'s, 'a>>,
    surplus: impl Iterator<Item = &'s Place<'s, 'a>>,
    draft: &mut Draft,
) {
    for place in surplus {
        forget_ended(place.history(), draft);
    }
    let max_attempts = service.spec.restart.max_attempts;
    // One more than the restarts: the first attempt was none.
    let attempts =
        if max_attempts == 0 || max_attempts > RestartPolicy::MOST_ATTEMPTS { 0 } else { max_attempts as usize + 1 };
    for place in kept.filter(|place| place.history().len() > HISTORY_PER_SLOT) {
        let (mut ended, mut counted) = (0, 0);
        for seen in place.history().iter().rev().filter(|seen| seen.task.status.state.is_terminal()) {
            let an_attempt = counts(service, seen);
            if ended >= HISTORY_PER_SLOT && !(an_attempt && counted < attempts) {
                draft.forget(TaskChange::Forget { task: seen.task.id });
            }
            ended += 1;
            counted += usize::from(an_attempt);
        }
    }
}

/// Tasks whose service is no more: what lives is ended, what has ended is forgotten.
pub(crate) fn clear_removed_services(orphans: BTreeMap<ServiceId, Vec<Seen<'_>>>, draft: &mut Draft) {
    for tasks in orphans.into_values() {
        for seen in tasks.iter().filter(|seen| seen.is_live()) {
            draft.push(TaskChange::Shutdown { task: seen.task.id, why: "its service was removed".to_owned() });
        }
        forget_ended(&tasks, draft);
    }
}

fn forget_ended(tasks: &[Seen<'_>], draft: &mut Draft) {
    for seen in tasks.iter().filter(|seen| seen.task.status.state.is_terminal()) {
        draft.forget(TaskChange::Forget { task: seen.task.id });
    }
}
