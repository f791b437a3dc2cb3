//! What CI runs of the simulation.

#![allow(clippy::unwrap_used)]

use shoal_raft::sim::{Mutant, Plan, many, run};

/// Seeds that once showed a fault, one a line: `SEED what it was`.
const REGRESSIONS: &str = include_str!("regressions.txt");
/// How many seeds may pass before a mutant is noticed.
const MUTANT_SEEDS: u64 = 400;

fn count() -> u64 {
    std::env::var("SHOAL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3] {
        let plan = Plan { seed, mutant: None, shown: true };
        let (first, second) = (run(plan), run(plan));
        assert!(first.events.len() > 100, "{}", first.events.len());
        assert_eq!(first.events, second.events, "seed {seed}");
        assert_eq!(first.trace, second.trace);
    }
}

#[test]
fn seeds_that_once_failed_hold() {
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let seed = line.split_whitespace().next().unwrap().parse().unwrap();
        let report = run(Plan { seed, mutant: None, shown: false });
        assert_eq!(report.wrong, None, "{line}");
    }
}

#[test]
fn all_holds_in_every_seed() {
    let total = many(1, count(), None, false, |_| {});
    let wrong: Vec<String> = total.wrong.iter().map(|r| format!("seed {}: {:?}", r.seed, r.wrong)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The runs must be about something.
    let counts = total.counts;
    assert!(counts.acknowledged > 20 * total.runs, "{counts:?}");
    assert!(counts.power_cuts > total.runs && counts.partitions > 0 && counts.snapshots > total.runs, "{counts:?}");
    assert!(counts.refusals > 0 && counts.memberships > 0 && counts.failed_syncs > 0, "{counts:?}");
}

fn is_noticed(mutant: Mutant) {
    let total = many(1, MUTANT_SEEDS, Some(mutant), true, |_| {});
    assert!(!total.wrong.is_empty(), "{mutant:?} is not noticed in {} seeds", total.runs);
}

macro_rules! mutants {
    ($($test:ident: $mutant:ident,)*) => {$(
        #[test]
        fn $test() {
            is_noticed(Mutant::$mutant);
        }
    )*};
}

mutants! {
    a_log_that_is_not_synced_is_noticed: NoSync,
    an_acknowledgement_before_the_sync_is_noticed: CallbackBeforeSync,
    a_vote_that_is_not_synced_is_noticed: VoteUnsynced,
    a_snapshot_named_before_it_is_durable_is_noticed: PointerBeforePieces,
    an_empty_directory_that_votes_is_noticed: EmptyAccepted,
    a_shorter_log_that_votes_is_noticed: ShorterAccepted,
    an_address_reused_at_once_is_noticed: AddressReused,
    an_older_generation_is_noticed: OlderGeneration,
    a_level_that_is_ignored_is_noticed: LevelIgnored,
    a_failed_sync_that_nobody_hears_of_is_noticed: FailureUnheard,
    a_log_that_may_shrink_is_noticed: LogReversion,
    a_leader_that_leads_on_after_a_restart_is_noticed: LeaderRestored,
}
