//! Cross entropy of soft-capped logits: losses out, and the gradient where the logits were.

use std::ops::Range;

use crate::numbers::{LANES, Number, exp, exp_minus_1, folded};
use crate::spread::Rows;

/// `logits` (rows, vocab), before the softcap, become the gradient of Σ share · loss by them. `losses` (rows) are in
/// nats. A target below 0 does not count: its loss and gradient are 0.
pub struct SoftcappedLoss<N> {
    pub logits: *mut N,
    pub targets: *const i64,
    pub losses: *mut f32,
    pub vocab: usize,
    pub softcap: f32,
    /// Of each counted row in the whole.
    pub share: f32,
}

// SAFETY: the threads work on disjoint rows.
unsafe impl<N> Send for SoftcappedLoss<N> {}
unsafe impl<N> Sync for SoftcappedLoss<N> {}

impl<N: Number> Rows for SoftcappedLoss<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        let mut slopes = vec![0.0_f32; self.vocab];
        for row in range {
            // SAFETY: the caller's
            let (logits, target) = unsafe {
                let start = self.logits.add(row * self.vocab);
                (std::slice::from_raw_parts_mut(start, self.vocab), *self.targets.add(row))
            };
            let loss = match usize::try_from(target) {
                Ok(target) if target < self.vocab => self.row(logits, target, &mut slopes),
                _ => {
                    logits.fill(N::of(0.0));
                    0.0
                }
            };
            // SAFETY: the caller's
            unsafe { *self.losses.add(row) = loss };
        }
    }
}

impl<N: Number> SoftcappedLoss<N> {
    /// Exponentials are within e^±softcap, so no maximum need be taken off first.
    #[inline(always)]
    fn row(&self, logits: &mut [N], target: usize, slopes: &mut [f32]) -> f32 {
        let (cap, inverse) = (self.softcap, 1.0 / self.softcap);
        let (chosen, chosen_slope) = tanh(logits[target].get() * inverse);
        let mut lanes = [0.0_f32; LANES];
        let (blocks, rest) = logits.as_chunks::<LANES>();
        let (slope_blocks, slope_rest) = slopes.as_chunks_mut::<LANES>();
        for (block, slopes) in blocks.iter().zip(slope_blocks) {
            for lane in 0..LANES {
                let (e, slope) = capped(block[lane].get() * inverse, cap);
                lanes[lane] += e;
                slopes[lane] = slope;
            }
        }
        let mut sum = folded(lanes);
        for (z, to) in rest.iter().zip(slope_rest) {
            let (e, slope) = capped(z.get() * inverse, cap);
            sum += e;
            *to = slope;
        }
        let factor = self.share / sum;
        for (z, slope) in logits.iter_mut().zip(slopes.iter()) {
            *z = N::of(slope * factor);
        }
        logits[target] = N::of(slopes[target] * factor - self.share * chosen_slope);
        sum.ln() - cap * chosen
    }
}

/// e^(cap · tanh x), and that times the slope of tanh at x.
#[inline(always)]
fn capped(x: f32, cap: f32) -> (f32, f32) {
    let (t, slope) = tanh(x);
    let e = exp(cap * t);
    (e, e * slope)
}

/// tanh x and its slope 1 - tanh² x, both with all their digits: with y = e^2x - 1 they are y / (y + 2) and
/// 4 (y + 1) / (y + 2)².
#[inline(always)]
fn tanh(x: f32) -> (f32, f32) {
    let y = exp_minus_1((2.0 * x).clamp(-43.0, 43.0)); // beyond, tanh is 1, and the square would overflow
    let inverse = 1.0 / (y + 2.0);
    (y * inverse, 4.0 * (y + 1.0) * inverse * inverse)
}
