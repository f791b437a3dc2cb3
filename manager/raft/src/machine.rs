//! The state machine: [`State::apply`], entry by entry.

use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend,
    storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine},
};
use shoal_common::LogIndex;
use shoal_state::{Outcome, Proposal, State};
use std::{io, sync::Arc};

use crate::{
    rt::watch,
    snapshot::{Data, Snapshots},
    store::disk::Disk,
    types::{Answer, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig},
};

/// Entries applied before the state is shown and their proposers are answered.
const SHOWN_AFTER: usize = 256;

#[derive(Debug)]
pub(crate) struct Machine {
    disk: Disk,
    snapshots: Snapshots,
    applied: Option<LogId>,
    membership: StoredMembership,
    state: Arc<State>,
    shown: Shown,
}

/// What the state machine lets others see: the state first, then how far it got.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) state: watch::Sender<Arc<State>>,
    /// The index of the last applied entry, Raft's own entries counted.
    pub(crate) applied: watch::Sender<Option<u64>>,
}

impl Default for Shown {
    fn default() -> Self {
        Self { state: watch::Sender::new(Arc::default()), applied: watch::Sender::new(None) }
    }
}

impl Machine {
    pub(crate) fn new(disk: Disk, snapshots: Snapshots, shown: Shown) -> Self {
        Self { disk, snapshots, applied: None, membership: StoredMembership::default(), state: Arc::default(), shown }
    }

    fn show(&self) {
        self.shown.state.send_if_modified(|shown| {
            let changed = !Arc::ptr_eq(shown, &self.state);
            if changed {
                *shown = Arc::clone(&self.state);
            }
            changed
        });
        self.shown.applied.send_replace(self.applied.map(|id| id.index));
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Data;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut entries = entries.ready_chunks(SHOWN_AFTER);
        while let Some(chunk) = entries.next().await {
            let mut answers = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                self.applied = Some(entry.log_id);
                #[cfg(feature = "sim")]
                let fingerprint = crate::sim::oracle::fingerprint(&entry);
                let answer = match entry.payload {
                    EntryPayload::Blank => Answer(None),
                    EntryPayload::Membership(membership) => {
                        self.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Answer(None)
                    }
                    EntryPayload::Normal(logged) => {
                        Answer(Some(apply(Arc::make_mut(&mut self.state), entry.log_id.index, &logged.0)?))
                    }
                };
                #[cfg(feature = "sim")]
                crate::sim::oracle::applied(entry.log_id, fingerprint, &answer, &self.state);
                answers.extend(responder.map(|r| (r, answer)));
            }
            // Whoever hears of a change can see it.
            self.show();
            for (responder, answer) in answers {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            disk: self.disk.clone(),
            snapshots: self.snapshots.clone(),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            state: Arc::clone(&self.state),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Data) -> io::Result<()> {
        let (snapshots, stored) = (self.snapshots.clone(), meta.clone());
        let state = self
            .disk
            .blocking(move || {
                let state = data.decode()?;
                snapshots.keep(&stored, &data)?;
                Ok(state)
            })
            .await?;
        self.state = Arc::new(state);
        #[cfg(feature = "sim")]
        crate::sim::oracle::installed(meta.last_log_id, &self.state);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.show();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let snapshots = self.snapshots.clone();
        let current = self.disk.blocking(move || snapshots.current()).await?;
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A broken invariant ends every manager at the same entry, and at each start again: the log is right, and what reads
/// it is not. So the error says which entry it is and what helps, and the panic does not get lost in openraft's task.
fn apply(state: &mut State, index: u64, proposal: &Proposal) -> io::Result<Outcome> {
    let applied = std::panic::AssertUnwindSafe(|| state.apply(LogIndex(index), proposal));
    std::panic::catch_unwind(applied).map_err(|panic| {
        let why = (panic.downcast_ref::<String>().map(String::as_str))
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("it gave no reason");
        io::Error::other(format!(
            "E-APPLY: entry {index} of the log ({}) cannot be applied by this version of Shoal: {why}. Every manager of \
             this version stops at this entry; the log is whole, and containers go on. The way back: install a version \
             in which this is mended on all managers, and report this sentence",
            proposal.command.name()
        ))
    })
}

/// Writes down the state as it was when the builder was made.
#[derive(Debug)]
pub(crate) struct Builder {
    disk: Disk,
    snapshots: Snapshots,
    meta: SnapshotMeta,
    state: Arc<State>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Data;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (snapshots, meta, state) = (self.snapshots.clone(), self.meta.clone(), Arc::clone(&self.state));
        self.disk
            .blocking(move || {
                let snapshot = snapshots.build(&meta, &state)?;
                Ok(Snapshot { meta, snapshot })
            })
            .await
    }
}
