//! The few vector operations that the kernels are written in. Each instruction set gives them once; a kernel that is
//! generic over `Simd` is compiled for each inside a function that enables the set.

/// A vector instruction set. All functions are unsafe: the processor must have the set, and pointers must be readable
/// for as many elements as the name says. No pointer needs to be aligned.
pub trait Simd {
    /// Lanes of a float vector.
    const W: usize;
    /// Elements that `dot_i8` takes at once.
    const IW: usize;
    /// Whether there is `fma_pairs`.
    const PAIRS: bool = false;
    type F: Copy;
    type I: Copy;

    unsafe fn zero() -> Self::F;
    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, value: Self::F);
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The same where each lane of a and b is two bfloat16 numbers: both products are added.
    unsafe fn fma_pairs(_: Self::F, _: Self::F, c: Self::F) -> Self::F {
        c
    }
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sum(value: Self::F) -> f32;
    /// W bfloat16 numbers in their order.
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// 2W bfloat16 numbers: those at even places, and those at odd ones.
    unsafe fn load_bf16_split(p: *const u16) -> (Self::F, Self::F);

    /// Four rows of four words to four columns.
    unsafe fn transpose(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
        std::array::from_fn(|i| rows.map(|row| row[i]))
    }

    unsafe fn zero_i() -> Self::I;
    /// `acc` plus the products of IW weights and IW activations, in whatever lanes; exact while they fit into 32 bits.
    unsafe fn dot_i8(acc: Self::I, w: *const i8, x: *const i16) -> Self::I;
    unsafe fn sum_i(value: Self::I) -> i32;

    /// Ask for a cache line that is needed soon. Any address will do.
    unsafe fn prefetch(p: *const u8);
}

/// The float that a bfloat16 stands for.
#[inline(always)]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16, ties to even; a NaN stays one.
#[inline(always)]
pub fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let (quiet, near) = (bits >> 16 | 0x40, bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16);
    (if value.is_nan() { quiet } else { near }) as u16
}
