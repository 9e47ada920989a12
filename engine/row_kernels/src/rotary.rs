//! Queries and keys: rotated by their position, then normalised and scaled, and laid out head by head.

use std::ops::Range;

use crate::numbers::{Number, dot};
use crate::spread::Rows;

/// A row is one head of one token, `dim` numbers. They are counted in the order (batch, head, position), in which results
/// lie; inputs lie as (batch, position, head). `cos` and `sin` are (positions, dim / 2).
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
    /// Position of a row, and its place among the inputs.
    #[inline(always)]
    fn place(&self, row: usize) -> (usize, usize) {
        let (head, position) = (row / self.positions, row % self.positions);
        let (batch, head) = (head / self.heads, head % self.heads);
        (position, (batch * self.positions + position) * self.heads + head)
    }

    /// cos and sin of a position, (half) each, which is half a head.
    ///
    /// # Safety
    /// The tables are there, and the position is in them.
    #[inline(always)]
    unsafe fn turn(&self, position: usize, half: usize) -> (&[N], &[N]) {
        unsafe {
            let cos = std::slice::from_raw_parts(self.cos.add(position * half), half);
            (cos, std::slice::from_raw_parts(self.sin.add(position * half), half))
        }
    }
}

/// Calls `$method::<HALF>` with half the size of a head where that is a usual one, so that its loops have a known end,
/// else with 0.
macro_rules! by_size {
    ($self:ident . $method:ident($range:ident)) => {
        // SAFETY: the caller's
        unsafe {
            match $self.heads.dim {
                64 => $self.$method::<32>($range),
                128 => $self.$method::<64>($range),
                _ => $self.$method::<0>($range),
            }
        }
    };
}

impl<N: Number> Rows for RotateNorm<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        by_size!(self.some(range));
    }
}

impl<N: Number> RotateNorm<N> {
    #[inline(always)]
    unsafe fn some<const HALF: usize>(&self, range: Range<usize>) {
        let half = if HALF > 0 { HALF } else { self.heads.dim / 2 };
        let dim = 2 * half;
        let mut rotated = [0.0_f32; MOST_DIM];
        let rotated = &mut rotated[..dim];
        for row in range {
            let (position, place) = self.heads.place(row);
            // SAFETY: the caller's
            let (x, y, (cos, sin)) = unsafe {
                let x = std::slice::from_raw_parts(self.x.add(place * dim), dim);
                (x, std::slice::from_raw_parts_mut(self.y.add(row * dim), dim), self.heads.turn(position, half))
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
            unsafe { *self.scale.add(row) = scale };
        }
    }
}

impl<N: Number> Rows for RotateNormGradient<N> {
    #[inline(always)]
    unsafe fn rows(&self, range: Range<usize>) {
        by_size!(self.some(range));
    }
}

impl<N: Number> RotateNormGradient<N> {
    #[inline(always)]
    unsafe fn some<const HALF: usize>(&self, range: Range<usize>) {
        let half = if HALF > 0 { HALF } else { self.heads.dim / 2 };
        let dim = 2 * half;
        for row in range {
            let (position, place) = self.heads.place(row);
            // SAFETY: the caller's
            let (y, dy, dx, scale, (cos, sin)) = unsafe {
                (
                    std::slice::from_raw_parts(self.y.add(row * dim), dim),
                    std::slice::from_raw_parts(self.dy.add(row * dim), dim),
                    std::slice::from_raw_parts_mut(self.dx.add(place * dim), dim),
                    *self.scale.add(row),
                    self.heads.turn(position, half),
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
