//! Some rows of a matrix times many vectors, as reading a prompt takes it. Here arithmetic counts: the rows are packed so
//! that one register holds the same column of neighbouring rows, which are then summed up side by side, and what is
//! loaded once serves a tile of sums that fill the registers.

use super::simd::{Simd, from_bf16};
use crate::model::Format;

/// Columns of a panel, in words: what is packed at a time stays in the second cache beside the vectors.
pub const DEPTH: usize = 512;
/// Numbers of vectors are multiples of this.
pub const FOUR: usize = 4;

/// What 32 bits of a packed panel and of the vectors are: one float, or two neighbouring columns in bfloat16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    F32,
    Pair,
}

impl Word {
    /// Numbers in one.
    #[must_use]
    pub fn numbers(self) -> usize {
        if self == Self::F32 { 1 } else { 2 }
    }
}

/// Part of a matrix: `rows` rows of `cols` numbers, at most `DEPTH` words, each row `stride` numbers after the one before.
pub struct Source {
    pub w: *const u8,
    pub format: Format,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

/// Writes words (depth, width), where rows that are missing are zeros. A pair holds what bfloat16 can hold.
pub type Pack = unsafe fn(&Source, Word, *mut u32);

/// `count` vectors, `stride` words apart, and a panel (depth, width).
pub struct Block {
    pub x: *const f32,
    pub stride: usize,
    pub count: usize,
    pub panel: *const f32,
    pub depth: usize,
}

/// Adds the products to `out` (count, width).
pub type Multiply = unsafe fn(&Block, *mut f32);

#[inline(always)]
pub unsafe fn multiply<S: Simd, const T: usize, const V: usize, const PAIRS: bool>(block: &Block, out: *mut f32) {
    let mut at = 0;
    unsafe {
        while at + T <= block.count {
            tile::<S, T, V, PAIRS>(block, at, out);
            at += T;
        }
        while at < block.count {
            tile::<S, FOUR, V, PAIRS>(block, at, out);
            at += FOUR;
        }
    }
}

/// T vectors from number `at` on, times all V * W rows of the panel.
#[inline(always)]
unsafe fn tile<S: Simd, const T: usize, const V: usize, const PAIRS: bool>(block: &Block, at: usize, out: *mut f32) {
    unsafe {
        let (x, out) = (block.x.add(at * block.stride), out.add(at * V * S::W));
        let mut acc = [[S::zero(); V]; T];
        for t in 0..T {
            for v in 0..V {
                acc[t][v] = S::load(out.add((t * V + v) * S::W));
            }
        }
        for j in 0..block.depth {
            let mut weights = [S::zero(); V];
            for v in 0..V {
                weights[v] = S::load(block.panel.add((j * V + v) * S::W));
            }
            for t in 0..T {
                let number = S::splat(*x.add(t * block.stride + j));
                for v in 0..V {
                    acc[t][v] = if PAIRS {
                        S::fma_pairs(number, weights[v], acc[t][v])
                    } else {
                        S::fma(number, weights[v], acc[t][v])
                    };
                }
            }
        }
        for t in 0..T {
            for v in 0..V {
                S::store(out.add((t * V + v) * S::W), acc[t][v]);
            }
        }
    }
}

#[inline(always)]
pub unsafe fn pack<S: Simd, const WIDTH: usize>(source: &Source, word: Word, to: *mut u32) {
    let depth = source.cols / word.numbers();
    let as_is =
        (source.format, word) == (Format::F32, Word::F32) || (source.format, word) == (Format::Bf16, Word::Pair);
    let mut converted = [[0; DEPTH]; FOUR];
    for first in (0..WIDTH).step_by(FOUR) {
        let row = |r: usize| source.w.wrapping_add((first + r) * source.stride * source.format.bytes());
        unsafe {
            for r in FOUR..2 * FOUR {
                // the next rows: what is read of each is too short for the processor to see it coming
                for line in (0..source.cols * source.format.bytes()).step_by(64) {
                    S::prefetch(row(r).wrapping_add(line));
                }
            }
            let rows: [*const u32; FOUR] = if as_is && first + FOUR <= source.rows {
                std::array::from_fn(|r| row(r).cast())
            } else {
                for (r, words) in converted.iter_mut().enumerate() {
                    if first + r < source.rows {
                        convert(row(r), source.format, word, &mut words[..depth]);
                    } else {
                        words[..depth].fill(0);
                    }
                }
                converted.each_ref().map(|words| words.as_ptr())
            };
            transpose::<S, WIDTH>(rows, depth, to.add(first));
        }
    }
}

/// Words (4, depth) -> (depth, 4), where the new rows are WIDTH words apart.
#[inline(always)]
unsafe fn transpose<S: Simd, const WIDTH: usize>(rows: [*const u32; FOUR], depth: usize, to: *mut u32) {
    let mut j = 0;
    unsafe {
        while j + FOUR <= depth {
            let four = S::transpose(rows.map(|row| row.add(j).cast::<[u32; FOUR]>().read_unaligned()));
            for i in 0..FOUR {
                to.add((j + i) * WIDTH).cast::<[u32; FOUR]>().write_unaligned(four[i]);
            }
            j += FOUR;
        }
        while j < depth {
            to.add(j * WIDTH).cast::<[u32; FOUR]>().write_unaligned(rows.map(|row| row.add(j).read_unaligned()));
            j += 1;
        }
    }
}

/// Numbers of one row as words.
#[inline(always)]
unsafe fn convert(row: *const u8, format: Format, word: Word, words: &mut [u32]) {
    unsafe {
        match format {
            Format::F32 => fill(word, words, |i| row.cast::<f32>().add(i).read_unaligned()),
            Format::Bf16 => fill(word, words, |i| from_bf16(row.cast::<u16>().add(i).read_unaligned())),
            Format::Int8 => fill(word, words, |i| f32::from(*row.cast::<i8>().add(i))),
        }
    }
}

#[inline(always)]
fn fill(word: Word, words: &mut [u32], number: impl Fn(usize) -> f32) {
    for (j, to) in words.iter_mut().enumerate() {
        *to = match word {
            Word::F32 => number(j).to_bits(),
            Word::Pair => number(2 * j).to_bits() >> 16 | number(2 * j + 1).to_bits() & 0xffff_0000,
        };
    }
}
