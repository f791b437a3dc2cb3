//! Why a task does not run yet, for people: `service ps` shows it.

use shoal_common::health::Health;
use shoal_runtime::ContainerState;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

use super::life::Life;

/// A task that waits longer says what for. Most run before that, and a message for each would only cost log entries.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// What a step is doing at the moment. Clones are the same; the step writes, and the loop reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Doing(Arc<Mutex<String>>);

impl Doing {
    pub(super) fn new(what: impl Into<String>) -> Self {
        let doing = Self::default();
        doing.now(what);
        doing
    }

    pub(super) fn now(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    pub(super) fn what(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a task that should run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) container: Option<&'a ContainerState>,
    pub(super) wired: bool,
    /// Why its network is not there yet, if something went wrong.
    pub(super) network: Option<&'a str>,
}

impl Life {
    /// Notes whether the task is one that should run and does not yet.
    pub(super) fn is_unready(&mut self, unready: bool, now: Instant) {
        self.unready_since = unready.then(|| *self.unready_since.get_or_insert(now));
    }

    /// When to say again what it waits for. What a step does may change while the step runs.
    pub(super) fn explains_at(&self, now: Instant) -> Option<Instant> {
        let first = self.unready_since? + SILENCE;
        Some(if now < first { first } else { now + SILENCE })
    }

    /// What it waits for, once that has taken a while.
    pub(super) fn reason(&self, seen: Seen<'_>, now: Instant) -> Option<String> {
        if now < self.unready_since? + SILENCE {
            return None;
        }
        Some(if self.busy {
            self.doing.what()
        } else if self.rest_until.is_some_and(|until| now < until) {
            format!("it is tried again: {}", self.rests_because)
        } else {
            match (seen.container, self.watch().map(|watch| watch.health())) {
                (Some(ContainerState::Running { .. }), Some(Health::Starting)) => {
                    "waiting for its first successful health check".to_owned()
                }
                (Some(_), _) => "waiting for its first process".to_owned(),
                (None, _) if !seen.wired => match seen.network {
                    Some(why) => format!("waiting for its network on this host: {why}"),
                    None => "waiting for its network on this host".to_owned(),
                },
                (None, _) => "waiting for its turn on this host".to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Seen<'static> = Seen { container: None, wired: true, network: None };

    #[test]
    fn every_wait_has_a_reason_after_two_seconds() {
        let begun = Instant::now();
        let later = begun + SILENCE;
        let mut life = Life::default();
        assert_eq!((life.reason(NOTHING, later), life.explains_at(later)), (None, None));
        life.is_unready(true, begun);
        life.is_unready(true, later);
        assert_eq!((life.reason(NOTHING, begun), life.explains_at(begun)), (None, Some(later)));

        let why = |life: &Life, seen| life.reason(seen, later).unwrap_or_default();
        let created = ContainerState::Created;
        for (seen, reason) in [
            (NOTHING, "waiting for its turn on this host"),
            (Seen { wired: false, ..NOTHING }, "waiting for its network on this host"),
            (
                Seen { wired: false, network: Some("no link x"), ..NOTHING },
                "waiting for its network on this host: no link x",
            ),
            (Seen { container: Some(&created), ..NOTHING }, "waiting for its first process"),
        ] {
            assert_eq!(why(&life, seen), reason);
        }
        life.rest_until = Some(later + SILENCE);
        life.rests_because = "no resolver".to_owned();
        assert_eq!(why(&life, NOTHING), "it is tried again: no resolver");
        life.busy = true;
        life.doing = Doing::new("pulling the image web:1");
        assert_eq!(why(&life, NOTHING), "pulling the image web:1");
        assert_eq!(life.explains_at(later), Some(later + SILENCE));

        life.is_unready(false, later);
        assert_eq!((life.reason(NOTHING, later), life.explains_at(later)), (None, None));
    }
}
