//! Queries and keys: rotated by their position, then normalised and scaled, and laid out head by head.

use std::ops::Range;

use crate::numbers::{Number, dot};
use crate::spread::Rows;

/// A row is one head of one token: those of `there` lie as (batch, position, head), those of `here` as (batch, head,
/// position), each `dim` numbers. `cos` and `sin` are (positions, dim / 2).
#[derive(Clone, Copy)]
pub struct Heads<N> {
    pub cos: *const N,
    pub sin: *const N,
    pub positions: usize,
    pub heads: usize,
    pub dim: usize,
}

/// `y` (batch, head, position, dim) = `amount` · norm(rotated x), and `scale` (the same without dim), what the rotated x
/// was multiplied with.
pub struct RotateNorm<N> {
    pub heads: Heads<N>,
    pub x: *const N,
    pub y: *mut N,
    pub scale: *mut f32,
    pub amount: f32,
}

/// `dx` (batch, position, head, dim) from `dy`, `y` and `scale`, which are laid out as above.
pub struct RotateNormGradient<N> {
    pub heads: Heads<N>,
    pub y: *const N,
    pub scale: *const f32,
    pub dy: *const N,
    pub dx: *mut N,
    pub amount: f32,
}

// SAFETY: the threads work on disjoint rows.
unsafe impl<N> Send for RotateNorm<N> {}
unsafe impl<N> Sync for RotateNorm<N> {}
unsafe impl<N> Send for RotateNormGradient<N> {}
unsafe impl<N> Sync for RotateNormGradient<N> {}

/// The largest head that is rotated.
pub const MOST_DIM: usize = 256;

impl<N: Number> Heads<N> {
    /// Position of a row of the (batch, position, head) order, and its place in the other order.
    #[inline(always)]
    fn place(&self, row: usize) -> (usize, usize) {
        let (token, head) = (row / self.heads, row % self.heads);
        let (batch, position) = (token / self.positions, token % self.positions);
        (position, (batch * self.heads + head) * self.positions + position)
    }

    /// cos and sin of a position, (dim / 2) each.
    ///
    /// # Safety
    /// The tables are there, and the position is in them.
    #[inline(always)]
    unsafe fn turn(&self, position: usize) -> (&[N], &[N]) {
        let half = self.dim / 2;
        unsafe {
            let cos = std::slice::from_raw_parts(self.cos.add(position * half), half);
            (cos, std::slice::from_raw_parts(self.sin.add(position * half), half))
        }
    }
}

impl<N: Number> Rows for RotateNorm<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        let (dim, half) = (self.heads.dim, self.heads.dim / 2);
        let mut rotated = [0.0_f32; MOST_DIM];
        let rotated = &mut rotated[..dim];
        for row in range {
            let (position, place) = self.heads.place(row);
            // SAFETY: the caller's
            let (x, y, (cos, sin)) = unsafe {
                let x = std::slice::from_raw_parts(self.x.add(row * dim), dim);
                (x, std::slice::from_raw_parts_mut(self.y.add(place * dim), dim), self.heads.turn(position))
            };
            let ((first, second), (cos, sin)) = (x.split_at(half), (&cos[..half], &sin[..half]));
            let (to_first, to_second) = rotated.split_at_mut(half);
            for i in 0..half {
                let (a, b, c, s) = (first[i].get(), second[i].get(), cos[i].get(), sin[i].get());
                to_first[i] = a * c + b * s;
                to_second[i] = b * c - a * s;
            }
            let mean = dot(rotated, rotated) / dim as f32;
            let scale = self.amount / (mean + f32::EPSILON).sqrt();
            for (to, from) in y.iter_mut().zip(rotated.iter()) {
                *to = N::of(from * scale);
            }
            // SAFETY: the caller's
            unsafe { *self.scale.add(place) = scale };
        }
    }
}

impl<N: Number> Rows for RotateNormGradient<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        let (dim, half) = (self.heads.dim, self.heads.dim / 2);
        for row in range {
            let (position, place) = self.heads.place(row);
            // SAFETY: the caller's
            let (y, dy, dx, scale, (cos, sin)) = unsafe {
                (
                    std::slice::from_raw_parts(self.y.add(place * dim), dim),
                    std::slice::from_raw_parts(self.dy.add(place * dim), dim),
                    std::slice::from_raw_parts_mut(self.dx.add(row * dim), dim),
                    *self.scale.add(place),
                    self.heads.turn(position),
                )
            };
            let along = dot(y, dy) / (dim as f32 * self.amount * self.amount);
            let (y_first, y_second) = y.split_at(half);
            let (dy_first, dy_second) = dy.split_at(half);
            let (to_first, to_second) = dx.split_at_mut(half);
            for i in 0..half {
                let a = (dy_first[i].get() - y_first[i].get() * along) * scale;
                let b = (dy_second[i].get() - y_second[i].get() * along) * scale;
                let (c, s) = (cos[i].get(), sin[i].get());
                to_first[i] = N::of(a * c - b * s);
                to_second[i] = N::of(a * s + b * c);
            }
        }
    }
}
