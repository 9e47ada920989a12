//! Work on single vectors: norm, preparation for a product, exponentials. Written as loops that the compiler turns into
//! vector code of whatever instruction set the caller enables.

use super::gemv::int8_limit;
use super::simd::{Simd, to_bf16};

/// What PyTorch adds to the mean square by default.
const EPSILON: f32 = f32::EPSILON;
const LANES: usize = 16;

/// Sum of squares, in lanes, so that it can be computed side by side.
#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += block[i] * block[i];
        }
    }
    lanes.iter().chain(&[rest.iter().map(|v| v * v).sum::<f32>()]).sum()
}

/// 1 / root mean square.
#[inline(always)]
pub fn norm_factor(x: &[f32]) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + EPSILON).sqrt()
}

/// `out = x * factor`, in blocks of 2W as bf16 products want it: even places, then odd ones.
#[inline(always)]
pub fn split<S: Simd>(x: &[f32], factor: f32, out: &mut [f32]) {
    let block = 2 * S::W;
    let whole = x.len() / block * block;
    for (from, to) in x[..whole].chunks_exact(block).zip(out.chunks_exact_mut(block)) {
        for i in 0..S::W {
            to[i] = from[2 * i] * factor;
            to[S::W + i] = from[2 * i + 1] * factor;
        }
    }
    for (to, from) in out[whole..].iter_mut().zip(&x[whole..]) {
        *to = from * factor;
    }
}

#[inline(always)]
pub fn scale(x: &[f32], factor: f32, out: &mut [f32]) {
    for (to, from) in out.iter_mut().zip(x) {
        *to = from * factor;
    }
}

/// x * factor in bfloat16.
#[inline(always)]
pub fn round(x: &[f32], factor: f32, out: &mut [u16]) {
    for (to, from) in out.iter_mut().zip(x) {
        *to = to_bf16(from * factor);
    }
}

/// Turns the pairs (x[j], x[j + half]) by the angles of a position, and divides by the root mean square, times a factor.
#[inline(always)]
pub fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32], factor: f32) {
    let (low, high) = x.split_at_mut(x.len() / 2);
    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*low, *high) = (*low * cos + *high * sin, *high * cos - *low * sin);
    }
    let factor = norm_factor(x) * factor;
    x.iter_mut().for_each(|value| *value *= factor);
}

/// x * factor as whole numbers; returns what one of them is worth. The numbers are the same on every processor.
#[inline(always)]
pub fn quantize(x: &[f32], factor: f32, out: &mut [i16]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = lanes[i].max(block[i].abs());
        }
    }
    let largest = lanes.iter().chain(rest).fold(0.0_f32, |most, v| most.max(v.abs()));
    let limit = int8_limit(x.len());
    if largest == 0.0 || !largest.is_finite() {
        out.fill(0);
        return if largest == 0.0 { 0.0 } else { f32::NAN };
    }
    let per_unit = limit / largest;
    for (to, from) in out.iter_mut().zip(x) {
        // SAFETY: |from * per_unit| is at most `limit` and a rounding, far from the ends of i32
        *to = unsafe { round_even(from * per_unit).to_int_unchecked::<i32>() } as i16;
    }
    largest / limit * factor
}

/// A row of weights as whole numbers from -127 to 127; returns the size of one of them.
#[inline(always)]
pub fn quantize_row(row: &[f32], out: &mut [i8]) -> f32 {
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = lanes[i].max(block[i].abs());
        }
    }
    let scale = lanes.iter().chain(rest).fold(0.0_f32, |most, v| most.max(v.abs())) / 127.0;
    let unit = scale.max(f32::MIN_POSITIVE);
    for (to, from) in out.iter_mut().zip(row) {
        // SAFETY: the quotient lies between -128 and 128, or the clamp makes it so where weights are no numbers
        *to = unsafe { round_even((from / unit).clamp(-127.0, 127.0).max(-127.0)).to_int_unchecked::<i32>() } as i8;
    }
    scale
}

/// The nearest whole number, ties to even, of |x| < 2^22: adding this constant leaves no place for a fraction.
#[inline(always)]
fn round_even(x: f32) -> f32 {
    const BIG: f32 = 12_582_912.0; // 1.5 * 2^23
    (x + BIG) - BIG
}

#[inline(always)]
pub fn largest(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// e^x within two units of the last place; 0 below -87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.3);
    let n = round_even(x * std::f32::consts::LOG2_E);
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4; // ln 2 in two parts, the first exact in few bits
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let p = (p * r) * r + r + 1.0;
    // SAFETY: n is between -126 and 128
    let exponent = unsafe { n.to_int_unchecked::<i32>() };
    p * f32::from_bits(((exponent + 127) as u32) << 23)
}

/// tanh within two units of the last place.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3_f32;
    let p = p * z + 2.063_908_8e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 0.333_332_8;
    let small = p * z * x + x;
    let large = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { small } else { large.copysign(x) }
}

/// `cap * tanh(x / cap)` in place.
#[inline(always)]
pub fn softcap(x: &mut [f32], cap: f32) {
    for value in x {
        *value = cap * tanh(*value / cap);
    }
}

/// e^(x - most) in place, and their sum.
#[inline(always)]
pub fn exp_sum(x: &mut [f32], most: f32) -> f32 {
    for value in x.iter_mut() {
        *value = exp(*value - most);
    }
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += block[i];
        }
    }
    lanes.iter().chain(rest).sum()
}
