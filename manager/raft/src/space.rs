//! Space for the log: a warning before there is none, and leadership handed over while there is still a reserve.
//!
//! The reserve is the rest of the segment that is written to; its space is taken already. It is in use from the moment
//! that no further segment can be prepared.

use openraft::{ServerState, async_runtime::WatchReceiver as _};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    files::{Failure, Space},
    rt::{self, watch},
    store::disk::Disk,
    types::Raft,
};

/// Used, of a file system: from here on somebody should know.
const WARN_PERCENT: u64 = 80;
/// Nobody needs to know while so much is free, however large the disk is.
const ENOUGH_BYTES: u64 = 4 << 30;
/// How often it is looked at.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two tries to hand leadership over: the next leader's disk may be full too.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Enough,
    /// Percent of the file system that are used.
    Low(u64),
    /// No more can be logged before space is freed.
    Full,
}

fn level(space: Space, short: bool) -> Level {
    let used = space.total_bytes.saturating_sub(space.free_bytes);
    let percent = (u128::from(used) * 100).checked_div(u128::from(space.total_bytes)).unwrap_or(0);
    match u64::try_from(percent).unwrap_or(100) {
        _ if short => Level::Full,
        percent if percent >= WARN_PERCENT && space.free_bytes < ENOUGH_BYTES => Level::Low(percent),
        _ => Level::Enough,
    }
}

/// Follows it until nobody listens any more.
pub(crate) fn watch(raft: Raft, disk: Disk, short: Arc<AtomicBool>, defect: &Failure) -> watch::Receiver<Level> {
    let (tx, rx) = watch::channel(Level::Enough);
    rt::owned("space", defect, async move {
        let mut handed_over: Option<u32> = None;
        loop {
            let on = disk.clone();
            if let Ok(space) = disk.blocking(move || on.space()).await {
                let now = level(space, short.load(Ordering::Relaxed));
                let before = tx.send_replace(now);
                match now {
                    Level::Enough | Level::Low(_) if before == now => {}
                    Level::Enough => tracing::info!("there is enough space for the log"),
                    Level::Low(percent) => {
                        tracing::warn!(percent, free_bytes = space.free_bytes, "the disk of the log is nearly full");
                    }
                    Level::Full if before == now => {}
                    Level::Full => {
                        tracing::error!("E-DISK-FULL: the disk of the log is full: nothing more can be logged here")
                    }
                }
                // One second each.
                handed_over = match (now, handed_over) {
                    (Level::Full, None) => hand_over(&raft).await.then_some(0),
                    (Level::Full, Some(waited)) if waited < HAND_OVER_PAUSE.as_secs() as u32 => Some(waited + 1),
                    (Level::Full, Some(_)) | (Level::Enough | Level::Low(_), _) => None,
                };
            }
            if tx.is_closed() {
                return;
            }
            rt::sleep(PAUSE).await;
        }
    });
    rx
}

/// To the voter that has most of the log. True if it was tried.
async fn hand_over(raft: &Raft) -> bool {
    let metrics = raft.metrics().borrow_watched().clone();
    if metrics.state != ServerState::Leader {
        return false;
    }
    let voters = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id);
    let matched = |id: &u64| metrics.replication.as_ref().and_then(|r| r.get(id).cloned().flatten());
    let Some(to) = voters.max_by_key(matched) else { return false };
    tracing::warn!(to, "this manager's disk is full: it hands leadership over");
    if let Err(error) = raft.trigger().transfer_leader(to).await {
        tracing::warn!(%error, "leadership was not handed over");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_at_four_fifths_unless_gigabytes_are_left() {
        let at = |total_bytes, free_bytes| level(Space { total_bytes, free_bytes }, false);
        assert_eq!(at(100 << 20, 21 << 20), Level::Enough);
        assert_eq!(at(100 << 20, 20 << 20), Level::Low(80));
        assert_eq!(at(1 << 40, 5 << 30), Level::Enough);
        assert_eq!(at(1 << 40, 3 << 30), Level::Low(99));
        assert_eq!(at(0, 0), Level::Enough);
        assert_eq!(level(Space { total_bytes: 100, free_bytes: 100 }, true), Level::Full);
    }
}
