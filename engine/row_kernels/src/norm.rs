//! RMS norm without gain.

use std::ops::Range;

use crate::numbers::{Number, dot};
use crate::spread::Rows;

/// `y` (rows, width) is `x` over its root mean square, `scale` (rows) one over that.
pub struct Norm<N> {
    pub x: *const N,
    pub y: *mut N,
    pub scale: *mut f32,
    pub width: usize,
}

/// `dx` from `dy`, all (rows, width), with the `y` and `scale` of the way there.
pub struct NormGradient<N> {
    pub y: *const N,
    pub scale: *const f32,
    pub dy: *const N,
    pub dx: *mut N,
    pub width: usize,
}

// SAFETY: the threads work on disjoint rows.
unsafe impl<N> Send for Norm<N> {}
unsafe impl<N> Sync for Norm<N> {}
unsafe impl<N> Send for NormGradient<N> {}
unsafe impl<N> Sync for NormGradient<N> {}

impl<N: Number> Rows for Norm<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        for row in range {
            // SAFETY: the caller's
            let (x, y) = unsafe {
                let x = std::slice::from_raw_parts(self.x.add(row * self.width), self.width);
                (x, std::slice::from_raw_parts_mut(self.y.add(row * self.width), self.width))
            };
            let mean = dot(x, x) / self.width as f32;
            let scale = 1.0 / (mean + f32::EPSILON).sqrt();
            for (to, from) in y.iter_mut().zip(x) {
                *to = N::of(from.get() * scale);
            }
            // SAFETY: the caller's
            unsafe { *self.scale.add(row) = scale };
        }
    }
}

impl<N: Number> Rows for NormGradient<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        for row in range {
            // SAFETY: the caller's
            let (y, dy, dx, scale) = unsafe {
                let at = row * self.width;
                (
                    std::slice::from_raw_parts(self.y.add(at), self.width),
                    std::slice::from_raw_parts(self.dy.add(at), self.width),
                    std::slice::from_raw_parts_mut(self.dx.add(at), self.width),
                    *self.scale.add(row),
                )
            };
            let along = dot(y, dy) / self.width as f32;
            for ((to, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                *to = N::of((dy.get() - y.get() * along) * scale);
            }
        }
    }
}
