//! Whether a container is well: what its probes have said so far, and when the next is due.
//!
//! As Docker counts: the first probe is due one interval after the start; one that passes makes a container healthy
//! at once, and so many failures in a row make it unhealthy, except within its start period before one has passed.

use futures::StreamExt;
use shoal_common::health::{Health, Probe};
use shoal_runtime::{ExecConfig, Runtime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

use crate::chain;

/// What is kept of a probe's output; as Docker.
const OUTPUT_BYTES: usize = 4096;
/// Beyond its timeout, for the one who kills it: then it counts as failed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// The checks of one container from one start to its end.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    probe: Probe,
    started: Instant,
    health: Health,
    /// In a row, of those that count.
    failures: u32,
    /// None while one is under way.
    due: Option<Instant>,
    why: String,
}

/// How one probe ended: what was wrong, if anything.
pub(crate) type Probed = Result<(), String>;

impl Watch {
    /// `known`: as an earlier daemon left it.
    pub(crate) fn new(probe: Probe, started: Instant, now: Instant, known: Health) -> Self {
        let mut watch = Self { probe, started, health: known, failures: 0, due: None, why: String::new() };
        watch.due = Some(now + watch.interval(now));
        watch
    }

    pub(crate) fn health(&self) -> Health {
        self.health
    }

    /// Of one that is unhealthy.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The probe, if it is time for one.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Probe> {
        self.due.take_if(|due| now >= *due).map(|_| self.probe.clone())
    }

    pub(crate) fn note(&mut self, now: Instant, probed: Probed) {
        match probed {
            Ok(()) => {
                self.failures = 0;
                self.health = Health::Healthy;
                self.why.clear();
            }
            Err(_) if self.is_excused(now) => {}
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= self.probe.retries && self.health != Health::Unhealthy {
                    self.health = Health::Unhealthy;
                    self.why = format!("health check failed {} times in a row: {why}", self.failures);
                }
            }
        }
        self.due = Some(now + self.interval(now));
    }

    /// It may still be getting ready.
    fn is_excused(&self, now: Instant) -> bool {
        self.health == Health::Starting && now < self.started + self.probe.start_period
    }

    fn interval(&self, now: Instant) -> Duration {
        if self.is_excused(now) { self.probe.start_interval } else { self.probe.interval }
    }
}

/// When a container started, on this process's clock. One that seems to start later was started now.
pub(crate) fn started(at_ms: u64, now: Instant) -> Instant {
    let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_millis(at_ms)).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}

/// Runs one probe in a container.
pub(crate) async fn probe(runtime: Runtime, container: String, probe: Probe) -> Probed {
    let begun = Instant::now();
    let config = ExecConfig { args: probe.args, time_limit: Some(probe.timeout), ..ExecConfig::default() };
    let too_long = || format!("it took longer than {}", humantime::format_duration(probe.timeout));
    let run = async {
        let mut session = runtime.exec(&container, config).await.map_err(|e| chain(&e))?;
        let mut output = Vec::new();
        while let Some((_, piece)) = session.output.next().await {
            let room = OUTPUT_BYTES.saturating_sub(output.len());
            output.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let code = session.exit.await.map_err(|e| chain(&e))?;
        Ok::<_, String>((code, String::from_utf8_lossy(&output).trim().to_owned()))
    };
    match tokio::time::timeout(probe.timeout + KILL_PATIENCE, run).await {
        Ok(Ok((0, _))) => Ok(()),
        Ok(Ok(_)) if begun.elapsed() >= probe.timeout => Err(too_long()),
        Ok(Ok((code, said))) if said.is_empty() => Err(format!("exit code {code}")),
        Ok(Ok((code, said))) => Err(format!("exit code {code}: {said}")),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(too_long()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn example() -> Probe {
        Probe {
            args: vec!["probe".into()],
            interval: SECOND * 10,
            timeout: SECOND,
            start_period: Duration::ZERO,
            start_interval: SECOND,
            retries: 3,
        }
    }

    fn failed() -> Probed {
        Err("exit code 1".into())
    }

    #[test]
    fn so_many_failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let now = Instant::now();
        let mut watch = Watch::new(example(), now, now, Health::Starting);
        for (probed, health) in [
            (failed(), Health::Starting),
            (failed(), Health::Starting),
            (Ok(()), Health::Healthy),
            (failed(), Health::Healthy),
            (failed(), Health::Healthy),
            (failed(), Health::Unhealthy),
            (failed(), Health::Unhealthy),
            (Ok(()), Health::Healthy),
        ] {
            watch.note(now, probed.clone());
            assert_eq!(watch.health(), health, "after {probed:?}");
            let why = "health check failed 3 times in a row: exit code 1";
            assert_eq!(watch.why(), if health == Health::Unhealthy { why } else { "" });
        }
        let mut never = Watch::new(example(), now, now, Health::Starting);
        (0..3).for_each(|_| never.note(now, failed()));
        assert_eq!(never.health(), Health::Unhealthy);
    }

    #[test]
    fn failures_within_the_start_period_count_once_it_was_well() {
        let now = Instant::now();
        let probe = Probe { start_period: SECOND * 60, retries: 1, ..example() };
        let mut watch = Watch::new(probe.clone(), now, now, Health::Starting);
        watch.note(now + SECOND * 59, failed());
        assert_eq!(watch.health(), Health::Starting);
        watch.note(now + SECOND * 60, failed());
        assert_eq!(watch.health(), Health::Unhealthy);

        let mut watch = Watch::new(probe, now, now, Health::Starting);
        watch.note(now + SECOND, Ok(()));
        watch.note(now + SECOND * 2, failed());
        assert_eq!(watch.health(), Health::Unhealthy);
    }

    #[test]
    fn a_probe_is_due_one_interval_after_the_one_before_and_one_at_a_time() {
        let now = Instant::now();
        let mut watch = Watch::new(Probe { start_period: SECOND * 60, ..example() }, now, now, Health::Starting);
        assert_eq!(watch.due(), Some(now + SECOND), "the start interval");
        assert_eq!(watch.begin(now), None);
        assert!(watch.begin(now + SECOND).is_some());
        assert_eq!((watch.due(), watch.begin(now + SECOND * 100)), (None, None));
        watch.note(now + SECOND * 3, Ok(()));
        assert_eq!(watch.due(), Some(now + SECOND * 13), "it has passed one");
    }

    #[test]
    fn what_an_earlier_daemon_found_holds_until_there_is_more() {
        let now = Instant::now();
        let mut watch = Watch::new(example(), now, now, Health::Healthy);
        watch.note(now, failed());
        assert_eq!(watch.health(), Health::Healthy);
    }
}
