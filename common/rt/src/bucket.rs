//! How often somebody may do something: token buckets, one for each key.

use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Keys that are remembered. Past it, whoever has waited longest is forgotten first, and begins with a full bucket.
const KEYS: usize = 8192;

/// So many at once, and then one in each period.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub at_once: u32,
    pub period: Duration,
}

#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    /// When the bucket of each key is full again. A key that is not here has a full one.
    full: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> Buckets<K> {
    pub fn new(rate: Rate) -> Self {
        Self { rate, full: BTreeMap::new() }
    }

    /// Takes one. What is returned is how long to wait for it: nothing while the bucket has any.
    pub fn take(&mut self, key: K) -> Duration {
        let now = Instant::now();
        if self.full.len() >= KEYS && !self.full.contains_key(&key) {
            self.full.retain(|_, full| *full > now);
            if self.full.len() >= KEYS
                && let Some(first) = self.full.iter().min_by_key(|(_, full)| **full).map(|(key, _)| key.clone())
            {
                self.full.remove(&first);
            }
        }
        let full = self.full.entry(key).or_insert(now);
        *full = (*full).max(now) + self.rate.period;
        full.duration_since(now).saturating_sub(self.rate.period * self.rate.at_once)
    }

    /// How long until there is one, without taking it.
    pub fn wait(&self, key: &K) -> Duration {
        let now = Instant::now();
        let Some(full) = self.full.get(key) else { return Duration::ZERO };
        (full.saturating_duration_since(now) + self.rate.period).saturating_sub(self.rate.period * self.rate.at_once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_then_one_in_each_period() {
        let period = Duration::from_millis(100);
        let mut buckets = Buckets::new(Rate { at_once: 3, period });
        let waits: Vec<_> = (0..5).map(|_| buckets.take("a")).collect();
        assert_eq!(waits, [0, 0, 0, 1, 2].map(|n| period * n));
        assert_eq!((buckets.wait(&"a"), buckets.wait(&"b")), (period * 3, Duration::ZERO));
        assert_eq!(buckets.take("b"), Duration::ZERO, "each key has its own");
        tokio::time::advance(period * 4).await;
        assert_eq!(
            (buckets.wait(&"a"), buckets.take("a"), buckets.take("a")),
            (Duration::ZERO, Duration::ZERO, Duration::ZERO)
        );
        assert_eq!(buckets.take("a"), period);
    }

    #[tokio::test(start_paused = true)]
    async fn many_keys_take_no_more_room_than_the_limit() {
        let mut buckets = Buckets::new(Rate { at_once: 1, period: Duration::from_secs(60) });
        for key in 0..KEYS * 2 {
            buckets.take(key);
        }
        assert!(buckets.full.len() <= KEYS);
    }
}
