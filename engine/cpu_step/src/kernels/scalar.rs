//! Plain Rust: the reference for the others, and the way for processors that have none of them.

use super::simd::{Simd, from_bf16};

pub struct Scalar;

impl Simd for Scalar {
    const W: usize = 1;
    const IW: usize = 1;
    type F = f32;
    type I = i32;

    #[inline(always)]
    unsafe fn zero() -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> f32 {
        value
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> f32 {
        unsafe { *p }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, value: f32) {
        unsafe { *p = value }
    }
    #[inline(always)]
    unsafe fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(always)]
    unsafe fn add(a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    unsafe fn sum(value: f32) -> f32 {
        value
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> f32 {
        from_bf16(unsafe { *p })
    }
    #[inline(always)]
    unsafe fn load_bf16_split(p: *const u16) -> (f32, f32) {
        unsafe { (from_bf16(*p), from_bf16(*p.add(1))) }
    }
    #[inline(always)]
    unsafe fn zero_i() -> i32 {
        0
    }
    #[inline(always)]
    unsafe fn dot_i8(acc: i32, w: *const i8, x: *const i16) -> i32 {
        unsafe { acc.wrapping_add(i32::from(*w) * i32::from(*x)) }
    }
    #[inline(always)]
    unsafe fn sum_i(value: i32) -> i32 {
        value
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
