//! One query over a piece of the keys and values: its scores, their exponentials, and the weighted sum of the values.

use super::elementwise::{exp_sum, largest};
use super::simd::{Simd, from_bf16};

/// Positions in one piece; pieces of a long context are shared out to the threads.
pub const PIECE: usize = 256;

/// Bytes between a key that is read and one that is asked for.
const AHEAD: usize = 4 << 10;

/// Which numbers the cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    F32,
    Bf16,
}

/// Keys and values of one head from the piece's first position on, `len` of them with `dim` numbers each.
#[derive(Clone, Copy)]
pub struct Span {
    pub k: *const u8,
    pub v: *const u8,
    pub len: usize,
    pub dim: usize,
}

/// The largest score and the sum of the exponentials relative to it; `out` (dim) gets the sum of values not divided yet.
pub type Attend = unsafe fn(&Span, *const f32, *mut f32) -> (f32, f32);

/// How elements of the cache are read: W in a row, or one.
pub trait Element<S: Simd>: Copy {
    unsafe fn load(p: *const Self) -> S::F;
    unsafe fn one(p: *const Self) -> f32;
}

impl<S: Simd> Element<S> for f32 {
    #[inline(always)]
    unsafe fn load(p: *const f32) -> S::F {
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn one(p: *const f32) -> f32 {
        unsafe { *p }
    }
}

impl<S: Simd> Element<S> for u16 {
    #[inline(always)]
    unsafe fn load(p: *const u16) -> S::F {
        unsafe { S::load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u16) -> f32 {
        from_bf16(unsafe { *p })
    }
}

#[inline(always)]
pub unsafe fn attend<S: Simd, T: Element<S>>(span: &Span, q: *const f32, out: *mut f32) -> (f32, f32) {
    unsafe {
        let mut scores = [0.0_f32; PIECE];
        let len = span.len.min(PIECE);
        let k = span.k.cast::<T>();
        let mut i = 0;
        while i + 4 <= len {
            // keys that come soon, and values: memory sees no stream in pieces this short
            for line in (0..4 * span.dim * size_of::<T>()).step_by(64) {
                let at = i * span.dim * size_of::<T>() + line;
                S::prefetch(span.k.wrapping_add(at + AHEAD));
                S::prefetch(span.v.wrapping_add(at));
            }
            let four = dots::<S, T, 4>(k.add(i * span.dim), q, span.dim);
            scores[i..i + 4].copy_from_slice(&four);
            i += 4;
        }
        while i < len {
            scores[i] = dots::<S, T, 1>(k.add(i * span.dim), q, span.dim)[0];
            i += 1;
        }
        let most = largest(&scores[..len]);
        let sum = exp_sum(&mut scores[..len], most);
        weigh::<S, T>(span.v.cast::<T>(), &scores[..len], span.dim, out);
        (most, sum)
    }
}

/// Products of N neighbouring keys with the query.
#[inline(always)]
unsafe fn dots<S: Simd, T: Element<S>, const N: usize>(k: *const T, q: *const f32, dim: usize) -> [f32; N] {
    unsafe {
        let mut acc = [S::zero(); N];
        let mut j = 0;
        while j + S::W <= dim {
            let query = S::load(q.add(j));
            for n in 0..N {
                acc[n] = S::fma(T::load(k.add(n * dim + j)), query, acc[n]);
            }
            j += S::W;
        }
        let mut result = [0.0; N];
        for n in 0..N {
            result[n] = S::sum(acc[n]);
            for at in j..dim {
                result[n] += T::one(k.add(n * dim + at)) * *q.add(at);
            }
        }
        result
    }
}

/// out = sum of weights[i] * value i, in strips of 4W numbers that stay in registers.
#[inline(always)]
unsafe fn weigh<S: Simd, T: Element<S>>(v: *const T, weights: &[f32], dim: usize, out: *mut f32) {
    unsafe {
        let mut j = 0;
        while j + 4 * S::W <= dim {
            strip::<S, T, 4>(v.add(j), weights, dim, out.add(j));
            j += 4 * S::W;
        }
        while j + S::W <= dim {
            strip::<S, T, 1>(v.add(j), weights, dim, out.add(j));
            j += S::W;
        }
        for at in j..dim {
            let mut sum = 0.0;
            for (i, weight) in weights.iter().enumerate() {
                sum += weight * T::one(v.add(i * dim + at));
            }
            *out.add(at) = sum;
        }
    }
}

#[inline(always)]
unsafe fn strip<S: Simd, T: Element<S>, const N: usize>(v: *const T, weights: &[f32], dim: usize, out: *mut f32) {
    unsafe {
        let mut acc = [S::zero(); N];
        for (i, &weight) in weights.iter().enumerate() {
            let weight = S::splat(weight);
            for n in 0..N {
                acc[n] = S::fma(weight, T::load(v.add(i * dim + n * S::W)), acc[n]);
            }
        }
        for n in 0..N {
            S::store(out.add(n * S::W), acc[n]);
        }
    }
}
