//! Sums that grow in float32 from parts in any precision.

use std::ops::Range;

use crate::numbers::Number;
use crate::spread::{Rows, stretch};

/// `sum` += `part`, element by element, in rows of [`STRETCH`](crate::spread::STRETCH).
pub struct Add<N> {
    pub sum: *mut f32,
    pub part: *const N,
    pub count: usize,
}

// SAFETY: the threads work on disjoint stretches.
unsafe impl<N> Send for Add<N> {}
unsafe impl<N> Sync for Add<N> {}

impl<N: Number> Rows for Add<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        let (start, count) = stretch(range, self.count);
        // SAFETY: the caller's
        let (sum, part) = unsafe {
            let part = std::slice::from_raw_parts(self.part.add(start), count);
            (std::slice::from_raw_parts_mut(self.sum.add(start), count), part)
        };
        for (sum, part) in sum.iter_mut().zip(part) {
            *sum += part.get();
        }
    }
}
