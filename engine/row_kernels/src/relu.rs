//! relu², element by element.

use std::ops::Range;

use crate::numbers::Number;
use crate::spread::{Rows, stretch};

/// `y` = max(x, 0)². A row is [`STRETCH`](crate::spread::STRETCH) elements, the last maybe fewer.
pub struct Relu2<N> {
    pub x: *const N,
    pub y: *mut N,
    pub count: usize,
}

/// `dy` becomes the gradient by x, dy · 2 max(x, 0).
pub struct Relu2Gradient<N> {
    pub x: *const N,
    pub dy: *mut N,
    pub count: usize,
}

// SAFETY: the threads work on disjoint rows.
unsafe impl<N> Send for Relu2<N> {}
unsafe impl<N> Sync for Relu2<N> {}
unsafe impl<N> Send for Relu2Gradient<N> {}
unsafe impl<N> Sync for Relu2Gradient<N> {}

impl<N: Number> Rows for Relu2<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        let (start, count) = stretch(range, self.count);
        // SAFETY: the caller's
        let (x, y) = unsafe {
            let x = std::slice::from_raw_parts(self.x.add(start), count);
            (x, std::slice::from_raw_parts_mut(self.y.add(start), count))
        };
        for (to, x) in y.iter_mut().zip(x) {
            let positive = x.get().max(0.0);
            *to = N::of(positive * positive);
        }
    }
}

impl<N: Number> Rows for Relu2Gradient<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        let (start, count) = stretch(range, self.count);
        // SAFETY: the caller's
        let (x, dy) = unsafe {
            let x = std::slice::from_raw_parts(self.x.add(start), count);
            (x, std::slice::from_raw_parts_mut(self.dy.add(start), count))
        };
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy = N::of(dy.get() * 2.0 * x.get().max(0.0));
        }
    }
}
