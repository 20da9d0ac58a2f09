//! Manages the memory of a payload's text: while it grows, and from one large payload to the next.

use std::sync::{Mutex, PoisonError};

/// The initial room for a text; nearly every payload is shorter. Memory that is reserved and not used costs nothing
/// yet; but a text that moves is in memory twice, and the allocator keeps what it left behind.
const USUAL: usize = 1 << 20;
/// The room for every longer text, so that it moves only once and can be reused for any other.
const LARGE: usize = 256 << 20;
/// The longest text whose memory is kept for the next one.
const KEPT: usize = 64 << 20;
/// After this many usual payloads, the memory of a large one is given back.
const MOST_UNUSED: u32 = 100;

/// The memory of the last large payload, for the next one. Without it, the next one would grow before the allocator has
/// given back the last, and a body would be in memory twice.
#[derive(Debug, Default)]
pub struct BufferPool(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    text: Vec<u8>,
    /// Payloads that did not need it, since the last that did.
    unused: u32,
}

impl BufferPool {
    /// Makes room for more bytes.
    pub fn make_room(&self, text: &mut Vec<u8>, bytes: usize) {
        let needed = text.len() + bytes;
        if needed <= text.capacity() {
            return;
        }
        if needed <= USUAL {
            text.reserve_exact(USUAL - text.len());
            return;
        }
        let mut large = std::mem::take(&mut self.kept().text);
        // A system that counts reserved memory as used may not have that much.
        if large.try_reserve_exact(needed.saturating_mul(2).max(LARGE)).is_err() {
            large.reserve(needed);
        }
        large.extend_from_slice(text);
        *text = large;
    }

    /// Takes back the memory of a payload that is finished.
    pub fn keep(&self, mut text: Vec<u8>) {
        let is_large = text.capacity() >= LARGE;
        let fits = text.len() <= KEPT;
        text.clear();
        let mut kept = self.kept();
        if is_large && fits {
            *kept = Kept { text, unused: 0 };
        } else if kept.unused < MOST_UNUSED {
            kept.unused += 1;
        } else {
            kept.text = Vec::new();
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // What it holds is never half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of a known length that arrives in pieces, and its address at the end.
    fn text(spare: &BufferPool, bytes: usize) -> (Vec<u8>, usize) {
        let mut text = Vec::new();
        let mut moves = 0;
        while text.len() < bytes {
            let before = text.as_ptr();
            spare.make_room(&mut text, 8192);
            moves += usize::from(before != text.as_ptr());
            text.extend_from_slice(&[b'x'; 8192]);
        }
        (text, moves)
    }

    #[test]
    fn a_text_seldom_moves_and_a_large_one_lies_where_the_one_before_lay() {
        let spare = BufferPool::default();
        let (usual, moves) = text(&spare, 500_000);
        assert!(moves <= 1 && usual.capacity() == USUAL);
        spare.keep(usual);
        assert_eq!(spare.kept().text.capacity(), 0);
        // However much of it came at first.
        let mut quick = Vec::with_capacity(100_000);
        quick.resize(100_000, b'x');
        spare.make_room(&mut quick, 8192);
        assert_eq!(quick.capacity(), USUAL);
        let (large, moves) = text(&spare, 3_000_000);
        let place = large.as_ptr();
        assert!(moves <= 2);
        spare.keep(large);
        // Kept as long as large ones come now and then.
        for _ in 0..3 {
            for _ in 0..MOST_UNUSED {
                spare.keep(text(&spare, 500).0);
            }
            let (large, _) = text(&spare, 5_000_000);
            assert_eq!(large.as_ptr(), place);
            assert!(large.iter().all(|byte| *byte == b'x'));
            spare.keep(large);
        }
        for _ in 0..=MOST_UNUSED {
            spare.keep(text(&spare, 500).0);
        }
        assert_eq!(spare.kept().text.capacity(), 0);
    }

    #[test]
    fn what_is_too_long_to_be_kept_is_given_back() {
        let spare = BufferPool::default();
        let (huge, _) = text(&spare, KEPT + 1);
        spare.keep(huge);
        assert_eq!(spare.kept().text.capacity(), 0);
    }
}
