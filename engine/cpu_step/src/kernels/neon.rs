//! NEON: every 64-bit ARM processor.

use std::arch::aarch64::*;

use super::simd::Simd;

pub struct Neon;

impl Simd for Neon {
    const W: usize = 4;
    const IW: usize = 16;
    type F = float32x4_t;
    type I = int32x4_t;

    #[inline(always)]
    unsafe fn zero() -> float32x4_t {
        unsafe { vdupq_n_f32(0.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, value: float32x4_t) {
        unsafe { vst1q_f32(p, value) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sum(value: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(value) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(p)))) }
    }
    #[inline(always)]
    unsafe fn load_bf16_split(p: *const u16) -> (float32x4_t, float32x4_t) {
        unsafe {
            let both = vreinterpretq_u32_u16(vld1q_u16(p));
            let odd = vandq_u32(both, vdupq_n_u32(0xffff_0000));
            (vreinterpretq_f32_u32(vshlq_n_u32::<16>(both)), vreinterpretq_f32_u32(odd))
        }
    }
    #[inline(always)]
    unsafe fn zero_i() -> int32x4_t {
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn dot_i8(acc: int32x4_t, w: *const i8, x: *const i16) -> int32x4_t {
        unsafe {
            let bytes = vld1q_s8(w);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let (x0, x1) = (vld1q_s16(x), vld1q_s16(x.add(8)));
            let acc = vmlal_high_s16(vmlal_s16(acc, vget_low_s16(low), vget_low_s16(x0)), low, x0);
            vmlal_high_s16(vmlal_s16(acc, vget_low_s16(high), vget_low_s16(x1)), high, x1)
        }
    }
    #[inline(always)]
    unsafe fn sum_i(value: int32x4_t) -> i32 {
        unsafe { vaddvq_s32(value) }
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {} // the intrinsic is not stable; these processors prefetch streams well
}
