//! AVX2 with FMA: x86 processors since 2013.

use std::arch::x86_64::*;

use super::simd::Simd;

pub struct Avx2;

impl Simd for Avx2 {
    const W: usize = 8;
    const IW: usize = 16;
    type F = __m256;
    type I = __m256i;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(p, value) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sum(value: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m256 {
        unsafe {
            let half = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(half))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_split(p: *const u16) -> (__m256, __m256) {
        unsafe {
            let both = _mm256_loadu_si256(p.cast());
            let odd = _mm256_and_si256(both, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(both)), _mm256_castsi256_ps(odd))
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
        unsafe {
            let [a, b, c, d] = std::mem::transmute::<[[u32; 4]; 4], [__m128i; 4]>(rows);
            let (ab0, ab1) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
            let (cd0, cd1) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
            let (first, second) = (_mm_unpacklo_epi64(ab0, cd0), _mm_unpackhi_epi64(ab0, cd0));
            let (third, fourth) = (_mm_unpacklo_epi64(ab1, cd1), _mm_unpackhi_epi64(ab1, cd1));
            std::mem::transmute::<[__m128i; 4], [[u32; 4]; 4]>([first, second, third, fourth])
        }
    }
    #[inline(always)]
    unsafe fn zero_i() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn dot_i8(acc: __m256i, w: *const i8, x: *const i16) -> __m256i {
        unsafe {
            let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.cast()));
            _mm256_add_epi32(acc, _mm256_madd_epi16(wide, _mm256_loadu_si256(x.cast())))
        }
    }
    #[inline(always)]
    unsafe fn sum_i(value: __m256i) -> i32 {
        unsafe {
            let four = _mm_add_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256::<1>(value));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
