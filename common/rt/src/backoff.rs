//! How long to wait before trying again: twice as long each time, up to a limit, with jitter so that a thousand
//! agents that lost one manager do not come back in step.

use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// Between half of the current delay and the whole of it.
    pub fn delay(&mut self) -> Duration {
        self.delay_by(rand::random())
    }

    /// As [`Self::delay`], with the chance given: a number from 0 to 1.
    pub fn delay_by(&mut self, chance: f64) -> Duration {
        let delay = self.next.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.limit);
        delay
    }

    /// It worked: the next failure starts from the first delay.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_start_over_after_success() {
        let (first, limit) = (Duration::from_millis(10), Duration::from_millis(80));
        let mut backoff = Backoff::new(first, limit);
        assert!(backoff.delay() <= first);
        for _ in 0..10 {
            assert!(backoff.delay() <= limit);
        }
        assert!(backoff.delay() >= limit / 2);
        backoff.reset();
        assert!(backoff.delay() <= first);
    }
}
