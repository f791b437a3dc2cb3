//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Between two looks: short beside what is waited for, and long beside a process that is started to look.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` succeeds, and gives what it found. After the deadline its last reason is the error.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(e) if begin.elapsed() >= within => {
                return Err(e).with_context(|| format!("not within {within:?}: {what}"));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_at_the_third_look_is_waited_for() {
        let mut looks = 0;
        let found = eventually("three", Duration::from_secs(10), || {
            looks += 1;
            anyhow::ensure!(looks >= 3, "{looks}");
            Ok(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn what_never_holds_is_looked_at_once_and_the_last_reason_is_told() {
        let error = eventually::<()>("the impossible", Duration::ZERO, || anyhow::bail!("it is not so")).unwrap_err();
        assert_eq!(format!("{error:#}"), "not within 0ns: the impossible: it is not so");
    }
}
