//! AVX-512 with VNNI: Intel since Ice Lake, AMD since Zen 4.

use std::arch::x86_64::*;

use super::simd::Simd;

/// `BF16` where it multiplies bfloat16 too: Intel's servers since Cooper Lake, AMD since Zen 4.
pub struct Avx512<const BF16: bool>;

impl<const BF16: bool> Simd for Avx512<BF16> {
    const PAIRS: bool = BF16;
    const W: usize = 16;
    const IW: usize = 32;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(p, value) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fma_pairs(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe {
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sum(value: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(value) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        unsafe {
            let half = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(half))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_split(p: *const u16) -> (__m512, __m512) {
        unsafe {
            let both = _mm512_loadu_si512(p.cast());
            let odd = _mm512_and_si512(both, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)), _mm512_castsi512_ps(odd))
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
        unsafe { super::avx2::Avx2::transpose(rows) }
    }
    #[inline(always)]
    unsafe fn zero_i() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn dot_i8(acc: __m512i, w: *const i8, x: *const i16) -> __m512i {
        unsafe {
            let wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256(w.cast()));
            _mm512_dpwssd_epi32(acc, wide, _mm512_loadu_si512(x.cast()))
        }
    }
    #[inline(always)]
    unsafe fn sum_i(value: __m512i) -> i32 {
        unsafe { _mm512_reduce_add_epi32(value) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
