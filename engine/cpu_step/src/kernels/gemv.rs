//! Some rows of a matrix times one or several vectors. Rows are read once whatever the number of vectors, which is what
//! counts: all of this waits for memory.

use super::simd::{Simd, from_bf16};

/// What a product reads. Rows follow each other without a gap, and so do the prepared vectors' `stride`s.
#[derive(Clone, Copy)]
pub struct Panel {
    /// First weight: `rows * cols` of f32, bf16 or i8.
    pub w: *const u8,
    pub rows: usize,
    pub cols: usize,
    /// Vectors as `prepare_*` leaves them: f32, f32 split for bf16 weights, or i16.
    pub x: *const u8,
    /// Bytes from one vector to the next.
    pub stride: usize,
}

/// Computes `out[row * B + vector]`, B being the number of vectors that a function is made for.
pub type Gemv = unsafe fn(&Panel, *mut f32);

/// How far ahead at least: what memory delivers to a thread while one request takes its way.
const FAR: usize = 8 << 10;

/// Bytes from a group of rows to where its kernel prefetches: a whole number of groups. The rows of a group are read side
/// by side, but prefetched line after line in the order of memory, which delivers one stream faster than several.
#[inline(always)]
fn ahead(group_bytes: usize) -> usize {
    group_bytes * FAR.div_ceil(group_bytes.max(1))
}

/// All rows, R at a time and the rest one by one. `one` and `many` compute R rows from the given one on.
macro_rules! in_groups {
    ($panel:ident, $out:ident, $r:ident, $b:ident, $group:path, $single:path) => {{
        let mut row = 0;
        while row + $r <= $panel.rows {
            unsafe { $group($panel, row, $out.add(row * $b)) };
            row += $r;
        }
        while row < $panel.rows {
            unsafe { $single($panel, row, $out.add(row * $b)) };
            row += 1;
        }
    }};
}

/// What the registers that share one sum hold together.
#[inline(always)]
unsafe fn sum_of<S: Simd, const U: usize>(parts: &[S::F; U]) -> f32 {
    unsafe {
        let mut total = parts[0];
        for &part in &parts[1..] {
            total = S::add(total, part);
        }
        S::sum(total)
    }
}

#[inline(always)]
pub unsafe fn gemv_f32<S: Simd, const R: usize, const B: usize, const U: usize>(panel: &Panel, out: *mut f32) {
    in_groups!(panel, out, R, B, group_f32::<S, R, B, U>, group_f32::<S, 1, B, U>);
}

#[inline(always)]
unsafe fn group_f32<S: Simd, const R: usize, const B: usize, const U: usize>(panel: &Panel, row: usize, out: *mut f32) {
    unsafe {
        let (cols, stride) = (panel.cols, panel.stride / 4);
        let (w, x) = (panel.w.cast::<f32>().add(row * cols), panel.x.cast::<f32>());
        let mut next = w.cast::<u8>().wrapping_add(ahead(R * cols * 4));
        let mut acc = [[[S::zero(); U]; B]; R];
        let mut j = 0;
        while j + S::W * U <= cols {
            for u in 0..U {
                let at = j + u * S::W;
                let mut vectors = [S::zero(); B];
                for b in 0..B {
                    vectors[b] = S::load(x.add(b * stride + at));
                }
                for r in 0..R {
                    let p = w.add(r * cols + at);
                    S::prefetch(next);
                    next = next.wrapping_add(4 * S::W);
                    let weights = S::load(p);
                    for b in 0..B {
                        acc[r][b][u] = S::fma(weights, vectors[b], acc[r][b][u]);
                    }
                }
            }
            j += S::W * U;
        }
        for r in 0..R {
            for b in 0..B {
                let mut sum = sum_of::<S, U>(&acc[r][b]);
                for at in j..cols {
                    sum += *w.add(r * cols + at) * *x.add(b * stride + at);
                }
                *out.add(r * B + b) = sum;
            }
        }
    }
}

/// Vectors are split in blocks of 2W: the even places, then the odd ones; what is left over is in its order. U is 2 where
/// even and odd places have sums of their own, 1 where there are registers for one sum only.
#[inline(always)]
pub unsafe fn gemv_bf16<S: Simd, const R: usize, const B: usize, const U: usize>(panel: &Panel, out: *mut f32) {
    in_groups!(panel, out, R, B, group_bf16::<S, R, B, U>, group_bf16::<S, 1, B, U>);
}

#[inline(always)]
unsafe fn group_bf16<S: Simd, const R: usize, const B: usize, const U: usize>(
    panel: &Panel,
    row: usize,
    out: *mut f32,
) {
    unsafe {
        let (cols, stride) = (panel.cols, panel.stride / 4);
        let (w, x) = (panel.w.cast::<u16>().add(row * cols), panel.x.cast::<f32>());
        let mut next = w.cast::<u8>().wrapping_add(ahead(R * cols * 2));
        let mut acc = [[[S::zero(); U]; B]; R];
        let mut j = 0;
        while j + 2 * S::W <= cols {
            let mut vectors = [[S::zero(); 2]; B];
            for b in 0..B {
                let p = x.add(b * stride + j);
                vectors[b] = [S::load(p), S::load(p.add(S::W))];
            }
            for r in 0..R {
                let p = w.add(r * cols + j);
                S::prefetch(next);
                next = next.wrapping_add(4 * S::W);
                let (even, odd) = S::load_bf16_split(p);
                for b in 0..B {
                    acc[r][b][0] = S::fma(even, vectors[b][0], acc[r][b][0]);
                    acc[r][b][U - 1] = S::fma(odd, vectors[b][1], acc[r][b][U - 1]);
                }
            }
            j += 2 * S::W;
        }
        for r in 0..R {
            for b in 0..B {
                let mut sum = sum_of::<S, U>(&acc[r][b]);
                for at in j..cols {
                    sum += from_bf16(*w.add(r * cols + at)) * *x.add(b * stride + at);
                }
                *out.add(r * B + b) = sum;
            }
        }
    }
}

/// Integer products, exact; the caller multiplies with the scales of row and vector.
#[inline(always)]
pub unsafe fn gemv_i8<S: Simd, const R: usize, const B: usize>(panel: &Panel, out: *mut f32) {
    in_groups!(panel, out, R, B, group_i8::<S, R, B>, group_i8::<S, 1, B>);
}

#[inline(always)]
unsafe fn group_i8<S: Simd, const R: usize, const B: usize>(panel: &Panel, row: usize, out: *mut f32) {
    unsafe {
        let (cols, stride) = (panel.cols, panel.stride / 2);
        let (w, x) = (panel.w.cast::<i8>().add(row * cols), panel.x.cast::<i16>());
        let mut next = w.cast::<u8>().wrapping_add(ahead(R * cols));
        let mut acc = [[S::zero_i(); B]; R];
        let mut j = 0;
        while j + S::IW <= cols {
            for r in 0..R {
                let p = w.add(r * cols + j);
                if j.is_multiple_of(64) {
                    S::prefetch(next);
                    next = next.wrapping_add(64);
                }
                for b in 0..B {
                    acc[r][b] = S::dot_i8(acc[r][b], p, x.add(b * stride + j));
                }
            }
            j += S::IW;
        }
        for r in 0..R {
            for b in 0..B {
                let mut sum = S::sum_i(acc[r][b]);
                for at in j..cols {
                    sum = sum.wrapping_add(i32::from(*w.add(r * cols + at)) * i32::from(*x.add(b * stride + at)));
                }
                *out.add(r * B + b) = sum as f32;
            }
        }
    }
}

/// The largest activation whose product with `cols` weights of at most 127 stays within 32 bits.
pub fn int8_limit(cols: usize) -> f32 {
    (i32::MAX as usize / (127 * cols.max(1))).min(i16::MAX as usize) as f32
}
