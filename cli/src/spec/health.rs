//! `--health-…` as a health check, or as a change to one.

use shoal_common::health::HealthTest;
use shoal_proto::pb;
use std::time::Duration;

use crate::{args::health::Health, failure::Failure};

/// Docker's bound: a check costs a process.
const LEAST: Duration = Duration::from_millis(1);

/// What is not said stays as it is; 0 and an empty command give the image's own back.
pub(crate) fn settle(asked: &mut Option<pb::HealthCheck>, said: &Health) -> Result<(), Failure> {
    let mut check = asked.take().unwrap_or_default();
    change(&mut check, said)?;
    *asked = (check != pb::HealthCheck::default()).then_some(check);
    Ok(())
}

fn change(check: &mut pb::HealthCheck, said: &Health) -> Result<(), Failure> {
    if said.no_healthcheck {
        *check = pb::HealthCheck { test: HealthTest::Off.words(), ..Default::default() };
        return Ok(());
    }
    if let Some(command) = &said.health_cmd {
        check.test = match command.as_str() {
            "" => Vec::new(),
            command => HealthTest::Shell(command.to_owned()).words(),
        };
    }
    for (flag, said, field) in [
        ("health-interval", said.health_interval, &mut check.interval_ms),
        ("health-timeout", said.health_timeout, &mut check.timeout_ms),
        ("health-start-period", said.health_start_period, &mut check.start_period_ms),
        ("health-start-interval", said.health_start_interval, &mut check.start_interval_ms),
    ] {
        let Some(time) = said else { continue };
        if !time.is_zero() && time < LEAST {
            let time = humantime::format_duration(time);
            return Err(Failure::usage(format!("{flag}: \"{time}\" is not accepted: 1ms at least")));
        }
        *field = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    }
    if let Some(retries) = said.health_retries {
        check.retries = retries;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_changes_and_the_rest_stays() {
        let mut check = pb::HealthCheck { interval_ms: 500, retries: 2, ..Default::default() };
        let said = Health {
            health_cmd: Some("curl -f localhost".into()),
            health_retries: Some(5),
            health_timeout: Some(Duration::from_secs(2)),
            ..Health::default()
        };
        change(&mut check, &said).unwrap();
        let test = ["CMD-SHELL", "curl -f localhost"].map(String::from).to_vec();
        let expected = pb::HealthCheck { test, interval_ms: 500, timeout_ms: 2000, retries: 5, ..Default::default() };
        assert_eq!(check, expected);

        change(&mut check, &Health { health_cmd: Some(String::new()), ..Health::default() }).unwrap();
        assert_eq!((check.test.len(), check.retries), (0, 5));
        change(&mut check, &Health { no_healthcheck: true, ..Health::default() }).unwrap();
        assert_eq!((check.test.as_slice(), check.retries), (["NONE".to_owned()].as_slice(), 0));

        let short = Health { health_interval: Some(Duration::from_micros(5)), ..Health::default() };
        assert!(change(&mut check, &short).is_err());
    }
}
