//! The inner loops, and the choice of the instruction set that runs them.
//!
//! `simd` names the vector operations, `gemv`, `attend` and `elementwise` are written in them once, and the table below
//! is compiled for every instruction set of the target. Which table is used is decided once, at run time.

pub(crate) mod attend;
mod elementwise;
pub(crate) mod gemm;
pub(crate) mod gemv;
pub(crate) mod simd;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use attend::Attend;
pub(crate) use elementwise::exp;
use gemm::{Multiply, Pack, Word};
use gemv::Gemv;

use crate::model::Format;

/// The most vectors that a product takes at once.
pub const MOST: usize = 8;

/// Functions of one instruction set. All are unsafe to call: the processor must have it.
#[derive(Clone, Copy)]
pub struct Kernels {
    pub name: &'static str,
    /// Products with 1, 2, 4 and 8 vectors.
    pub f32: [Gemv; 4],
    pub bf16: [Gemv; 4],
    pub int8: [Gemv; 4],
    /// Rows of a matrix in one panel.
    pub width: usize,
    pub pack: Pack,
    pub multiply_f32: Multiply,
    /// Only where the processor multiplies pairs of bfloat16.
    pub multiply_pairs: Option<Multiply>,
    pub attend_f32: Attend,
    pub attend_bf16: Attend,
    pub norm_factor: unsafe fn(&[f32]) -> f32,
    pub rotate: unsafe fn(&mut [f32], &[f32], &[f32], f32),
    pub scale: unsafe fn(&[f32], f32, &mut [f32]),
    pub round: unsafe fn(&[f32], f32, &mut [u16]),
    pub split: unsafe fn(&[f32], f32, &mut [f32]),
    pub quantize: unsafe fn(&[f32], f32, &mut [i16]) -> f32,
    pub quantize_row: unsafe fn(&[f32], &mut [i8]) -> f32,
    pub largest: unsafe fn(&[f32]) -> f32,
    pub exp_sum: unsafe fn(&mut [f32], f32) -> f32,
    pub softcap: unsafe fn(&mut [f32], f32),
    /// Asks for bytes that are needed soon. Any address will do.
    pub prefetch: unsafe fn(*const u8, usize),
    /// Reads memory and does next to nothing with it: how fast that could be at best.
    pub read: unsafe fn(&[f32]) -> f32,
}

impl Kernels {
    /// What products of many vectors with a matrix of this format are made of.
    #[must_use]
    pub fn word(&self, format: Format) -> Word {
        if format == Format::F32 || self.multiply_pairs.is_none() { Word::F32 } else { Word::Pair }
    }

    #[must_use]
    pub fn multiply(&self, word: Word) -> Multiply {
        self.multiply_pairs.filter(|_| word == Word::Pair).unwrap_or(self.multiply_f32)
    }
}

/// Reads as fast as it can: eight sums side by side.
#[inline(always)]
unsafe fn read_all<S: simd::Simd>(memory: &[f32]) -> f32 {
    unsafe {
        let mut sums = [S::zero(); 8];
        for block in memory.chunks_exact(8 * S::W) {
            for (i, sum) in sums.iter_mut().enumerate() {
                S::prefetch(block.as_ptr().add(i * S::W).cast::<u8>().wrapping_add(4096));
                *sum = S::add(*sum, S::load(block.as_ptr().add(i * S::W)));
            }
        }
        let mut total = S::zero();
        for sum in sums {
            total = S::add(total, sum);
        }
        S::sum(total)
    }
}

#[inline(always)]
unsafe fn prefetch_all<S: simd::Simd>(from: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        unsafe { S::prefetch(from.wrapping_add(line)) };
    }
}

/// The table of one instruction set; `$r4` and `$r8` are how many rows at once leave registers for 4 and 8 vectors, `$t`
/// and `$v` how many vectors and registers of rows make a tile of many.
macro_rules! kernels {
    (@function [$($feature:literal)?] $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?, $call:expr) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name($($arg: $type),*) $(-> $result)? {
            #[allow(unused_unsafe, reason = "some of these are safe functions")]
            unsafe { $call }
        }
    };
    ($module:ident, $set:ty, $name:literal, $r4:literal, $r8:literal, $t:literal, $v:literal $(, $feature:literal)?) => {
        mod $module {
            use super::attend::{Span, attend};
            use super::gemm::{Block, Source, Word, multiply, pack};
            use super::gemv::{Panel, gemv_bf16, gemv_f32, gemv_i8};
            use super::simd::Simd;
            use super::{Kernels, elementwise, prefetch_all, read_all};

            type Set = $set;
            const WIDTH: usize = $v * Set::W;

            kernels!(@function [$($feature)?] f32_1(p: &Panel, out: *mut f32), gemv_f32::<Set, 4, 1, 2>(p, out));
            kernels!(@function [$($feature)?] f32_2(p: &Panel, out: *mut f32), gemv_f32::<Set, 4, 2, 1>(p, out));
            kernels!(@function [$($feature)?] f32_4(p: &Panel, out: *mut f32), gemv_f32::<Set, $r4, 4, 1>(p, out));
            kernels!(@function [$($feature)?] f32_8(p: &Panel, out: *mut f32), gemv_f32::<Set, $r8, 8, 1>(p, out));
            kernels!(@function [$($feature)?] bf16_1(p: &Panel, out: *mut f32), gemv_bf16::<Set, 4, 1, 2>(p, out));
            kernels!(@function [$($feature)?] bf16_2(p: &Panel, out: *mut f32), gemv_bf16::<Set, 4, 2, 1>(p, out));
            kernels!(@function [$($feature)?] bf16_4(p: &Panel, out: *mut f32), gemv_bf16::<Set, $r4, 4, 1>(p, out));
            kernels!(@function [$($feature)?] bf16_8(p: &Panel, out: *mut f32), gemv_bf16::<Set, $r8, 8, 1>(p, out));
            kernels!(@function [$($feature)?] int8_1(p: &Panel, out: *mut f32), gemv_i8::<Set, 4, 1>(p, out));
            kernels!(@function [$($feature)?] int8_2(p: &Panel, out: *mut f32), gemv_i8::<Set, 4, 2>(p, out));
            kernels!(@function [$($feature)?] int8_4(p: &Panel, out: *mut f32), gemv_i8::<Set, $r4, 4>(p, out));
            kernels!(@function [$($feature)?] int8_8(p: &Panel, out: *mut f32), gemv_i8::<Set, $r8, 8>(p, out));
            kernels!(@function [$($feature)?] multiply_f32(block: &Block, out: *mut f32),
                multiply::<Set, $t, $v, false>(block, out));
            kernels!(@function [$($feature)?] multiply_pairs(block: &Block, out: *mut f32),
                multiply::<Set, $t, $v, true>(block, out));
            kernels!(@function [$($feature)?] packed(source: &Source, word: Word, to: *mut u32),
                pack::<Set, WIDTH>(source, word, to));
            kernels!(@function [$($feature)?] attend_f32(span: &Span, q: *const f32, out: *mut f32) -> (f32, f32),
                attend::<Set, f32>(span, q, out));
            kernels!(@function [$($feature)?] attend_bf16(span: &Span, q: *const f32, out: *mut f32) -> (f32, f32),
                attend::<Set, u16>(span, q, out));
            kernels!(@function [$($feature)?] norm_factor(x: &[f32]) -> f32, elementwise::norm_factor(x));
            kernels!(@function [$($feature)?] rotate(x: &mut [f32], cos: &[f32], sin: &[f32], factor: f32),
                elementwise::rotate(x, cos, sin, factor));
            kernels!(@function [$($feature)?] scale(x: &[f32], factor: f32, out: &mut [f32]),
                elementwise::scale(x, factor, out));
            kernels!(@function [$($feature)?] round(x: &[f32], factor: f32, out: &mut [u16]),
                elementwise::round(x, factor, out));
            kernels!(@function [$($feature)?] split(x: &[f32], factor: f32, out: &mut [f32]),
                elementwise::split::<Set>(x, factor, out));
            kernels!(@function [$($feature)?] quantize(x: &[f32], factor: f32, out: &mut [i16]) -> f32,
                elementwise::quantize(x, factor, out));
            kernels!(@function [$($feature)?] quantize_row(row: &[f32], out: &mut [i8]) -> f32,
                elementwise::quantize_row(row, out));
            kernels!(@function [$($feature)?] largest(x: &[f32]) -> f32, elementwise::largest(x));
            kernels!(@function [$($feature)?] exp_sum(x: &mut [f32], most: f32) -> f32, elementwise::exp_sum(x, most));
            kernels!(@function [$($feature)?] softcap(x: &mut [f32], cap: f32), elementwise::softcap(x, cap));
            kernels!(@function [$($feature)?] read(memory: &[f32]) -> f32, read_all::<Set>(memory));
            kernels!(@function [$($feature)?] prefetch(from: *const u8, bytes: usize),
                prefetch_all::<Set>(from, bytes));

            pub const TABLE: Kernels = Kernels {
                name: $name,
                f32: [f32_1, f32_2, f32_4, f32_8],
                bf16: [bf16_1, bf16_2, bf16_4, bf16_8],
                int8: [int8_1, int8_2, int8_4, int8_8],
                width: WIDTH,
                pack: packed,
                multiply_f32,
                multiply_pairs: if Set::PAIRS { Some(multiply_pairs) } else { None },
                attend_f32,
                attend_bf16,
                norm_factor,
                rotate,
                scale,
                round,
                split,
                quantize,
                quantize_row,
                largest,
                exp_sum,
                softcap,
                prefetch,
                read,
            };
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(
    for_avx512bf16,
    crate::kernels::avx512::Avx512<true>,
    "avx512bf16",
    4,
    2,
    12,
    2,
    "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,fma,avx2"
);
#[cfg(target_arch = "x86_64")]
kernels!(
    for_avx512,
    crate::kernels::avx512::Avx512<false>,
    "avx512",
    4,
    2,
    12,
    2,
    "avx512f,avx512bw,avx512vl,avx512vnni,fma,avx2"
);
#[cfg(target_arch = "x86_64")]
kernels!(for_avx2, crate::kernels::avx2::Avx2, "avx2", 2, 1, 4, 3, "avx2,fma");
#[cfg(target_arch = "aarch64")]
kernels!(for_neon, crate::kernels::neon::Neon, "neon", 4, 2, 8, 3, "neon");
kernels!(for_scalar, crate::kernels::scalar::Scalar, "scalar", 2, 1, 4, 4);

/// The tables that this processor can run, best first; the last one is plain code.
#[must_use]
pub fn available() -> Vec<Kernels> {
    let mut tables = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            if is_x86_feature_detected!("avx512bf16") {
                tables.push(for_avx512bf16::TABLE);
            }
            tables.push(for_avx512::TABLE);
        }
        if avx2 {
            tables.push(for_avx2::TABLE);
        }
    }
    #[cfg(target_arch = "aarch64")]
    tables.push(for_neon::TABLE);
    tables.push(for_scalar::TABLE);
    tables
}
