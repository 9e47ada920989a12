//! The softmax of causal attention over a block of queries: in place, and its gradient.

use std::ops::Range;

use crate::numbers::{Number, dot, exp, largest, total};
use crate::spread::Rows;

/// Which keys the queries of a block see. A row is one query of one head; a head has `queries` of them in the block,
/// which sees `keys` keys. Query i sees keys up to `first + i`, and of them the last `window + 1`.
#[derive(Clone, Copy)]
pub struct Sight {
    pub queries: usize,
    pub keys: usize,
    pub first: usize,
    pub window: usize,
}

impl Sight {
    /// The keys that a row sees.
    #[inline(always)]
    fn of(&self, row: usize) -> Range<usize> {
        let last = self.first + row % self.queries;
        last.saturating_sub(self.window).min(self.keys)..(last + 1).min(self.keys)
    }
}

/// `scores` (heads · queries, keys) become softmax(scale · scores) of what is seen, 0 elsewhere.
pub struct Softmax<N> {
    pub scores: *mut N,
    pub sight: Sight,
    pub scale: f32,
}

/// `slopes`, the gradient by the `weights` that [`Softmax`] gave, becomes that by the scores before.
pub struct SoftmaxGradient<N> {
    pub weights: *const N,
    pub slopes: *mut N,
    pub sight: Sight,
    pub scale: f32,
}

// SAFETY: the threads work on disjoint rows.
unsafe impl<N> Send for Softmax<N> {}
unsafe impl<N> Sync for Softmax<N> {}
unsafe impl<N> Send for SoftmaxGradient<N> {}
unsafe impl<N> Sync for SoftmaxGradient<N> {}

impl<N: Number> Rows for Softmax<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        let mut powers = vec![0.0_f32; self.sight.keys];
        for row in range {
            let seen = self.sight.of(row);
            // SAFETY: the caller's
            let all =
                unsafe { std::slice::from_raw_parts_mut(self.scores.add(row * self.sight.keys), self.sight.keys) };
            let (start, end) = (seen.start, seen.end);
            let scores = &mut all[seen];
            let powers = &mut powers[..scores.len()];
            let most = largest(scores);
            for (to, score) in powers.iter_mut().zip(scores.iter()) {
                *to = exp((score.get() - most) * self.scale);
            }
            let inverse = 1.0 / total(powers);
            for (to, power) in scores.iter_mut().zip(powers.iter()) {
                *to = N::of(power * inverse);
            }
            all[..start].fill(N::of(0.0));
            all[end..].fill(N::of(0.0));
        }
    }
}

impl<N: Number> Rows for SoftmaxGradient<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        for row in range {
            let seen = self.sight.of(row);
            // SAFETY: the caller's
            let (weights, all) = unsafe {
                let at = row * self.sight.keys;
                let weights = std::slice::from_raw_parts(self.weights.add(at), self.sight.keys);
                (weights, std::slice::from_raw_parts_mut(self.slopes.add(at), self.sight.keys))
            };
            let (start, end) = (seen.start, seen.end);
            let (weights, slopes) = (&weights[seen.clone()], &mut all[seen]);
            let mean = dot(weights, slopes);
            for (slope, weight) in slopes.iter_mut().zip(weights) {
                *slope = N::of(weight.get() * (slope.get() - mean) * self.scale);
            }
            all[..start].fill(N::of(0.0));
            all[end..].fill(N::of(0.0));
        }
    }
}
