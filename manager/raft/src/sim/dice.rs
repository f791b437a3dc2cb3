//! Chance from a seed: the same seed gives the same numbers, on every machine.

use std::cell::RefCell;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and every seed gives a good stream.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own, so that one more throw in one place does not change every other place.
    pub(crate) fn fork(&mut self, name: u64) -> Self {
        Self(self.next() ^ name.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n`, without `n`. Zero for zero.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0))
    }

    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

thread_local! {
    static STREAM: RefCell<Dice> = const { RefCell::new(Dice(0)) };
}

/// Begins the stream that [`chance`] draws from, on this thread.
pub(super) fn begin(seed: u64) {
    STREAM.with_borrow_mut(|dice| *dice = Dice::new(seed));
}

/// A number from 0 to 1, for the code that is simulated.
pub(crate) fn chance() -> f64 {
    STREAM.with_borrow_mut(Dice::fraction)
}
