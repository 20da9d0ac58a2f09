//! Draws a fair sample from a stream.

/// A fair choice of a number of items from a stream of unknown length.
#[derive(Debug)]
pub struct Sample<T> {
    size: usize,
    seen: u64,
    chosen: Vec<T>,
}

impl<T> Sample<T> {
    /// Makes room for this many.
    pub fn new(size: usize) -> Self {
        Self { size, seen: 0, chosen: Vec::new() }
    }

    /// Offers one more item; `dice(n)` is a random number below n. The item is only made when it is chosen.
    pub fn offer(&mut self, dice: impl FnOnce(u64) -> u64, make: impl FnOnce() -> T) {
        self.seen += 1;
        if self.chosen.len() < self.size {
            self.chosen.push(make());
        } else if self.size > 0
            && let Ok(place) = usize::try_from(dice(self.seen))
            && let Some(slot) = self.chosen.get_mut(place)
        {
            *slot = make();
        }
    }

    /// The chosen ones.
    pub fn into_chosen(self) -> Vec<T> {
        self.chosen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sample_is_of_the_size_that_was_asked_for(size in 0..8usize, seen in 0..40u64, seed in any::<u64>()) {
            let mut sample = Sample::new(size);
            for n in 0..seen {
                sample.offer(|below| seed.wrapping_mul(n + 1) % below, || n);
            }
            let mut chosen = sample.into_chosen();
            prop_assert_eq!(chosen.len() as u64, seen.min(size as u64));
            chosen.sort_unstable();
            chosen.dedup();
            prop_assert_eq!(chosen.len() as u64, seen.min(size as u64));
        }
    }
}
