//! Faults that are put into the code to see whether the simulation notices them. Each is asked for by `mutant!` at the
//! one place that it spoils; without the feature `sim` that is `false`, and nothing of it is compiled.

use std::cell::Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The log is written, acknowledged and never synced.
    NoSync,
    /// Raft is told that entries are durable before they are written.
    CallbackBeforeSync,
    /// A vote counts before it is durable.
    VoteUnsynced,
    /// A snapshot gets its name before its bytes are durable.
    PointerBeforePieces,
    /// A member whose files are gone begins as if it were new.
    EmptyAccepted,
    /// A member whose log is shorter than what it acknowledged goes on.
    ShorterAccepted,
    /// A freed address is the next one handed out.
    AddressReused,
    /// A host acts on an older assignment than the one it acted on.
    OlderGeneration,
    /// A command is logged though not every manager knows it.
    LevelIgnored,
    /// A sync that fails outside of Raft ends nobody.
    FailureUnheard,
    /// openraft's `allow_log_reversion`: a follower's log may be shorter than it was, and the leader sends it again.
    LogReversion,
    /// openraft's `enable_leader_restore`: a leader that starts again leads on, without an election.
    LeaderRestored,
}

impl Mutant {
    pub const ALL: [Mutant; 12] = [
        Mutant::NoSync,
        Mutant::CallbackBeforeSync,
        Mutant::VoteUnsynced,
        Mutant::PointerBeforePieces,
        Mutant::EmptyAccepted,
        Mutant::ShorterAccepted,
        Mutant::AddressReused,
        Mutant::OlderGeneration,
        Mutant::LevelIgnored,
        Mutant::FailureUnheard,
        Mutant::LogReversion,
        Mutant::LeaderRestored,
    ];

    pub fn named(name: &str) -> Option<Mutant> {
        Self::ALL.into_iter().find(|m| format!("{m:?}") == name)
    }
}

thread_local! {
    static AT_WORK: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Which one is at work, on this thread: a run of the simulation is one thread.
pub(super) fn begin(mutant: Option<Mutant>) {
    AT_WORK.set(mutant);
    shoal_state::ipam::pool::REUSES_AT_ONCE.set(mutant == Some(Mutant::AddressReused));
}

pub(crate) fn at_work(mutant: Mutant) -> bool {
    AT_WORK.get() == Some(mutant)
}
