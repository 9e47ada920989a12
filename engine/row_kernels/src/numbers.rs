//! float32 and bfloat16 in memory, float32 in registers, and sums whose order is fixed.

/// Numbers that are worked on side by side: whole vectors of every instruction set.
pub const LANES: usize = 16;

/// A number as tensors store it.
pub trait Number: Copy + Send + Sync + 'static {
    fn get(self) -> f32;
    fn of(value: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }
}

/// The upper half of a float32, rounded to the nearest even.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Number for Bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// What is not a number stays one: rounding could carry its few bits over into infinity.
    #[inline(always)]
    fn of(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        Self(if value.is_nan() { 0x7fc0 } else { rounded as u16 })
    }
}

/// Σ a·b over two rows of one length: lane by lane, so always in the same order.
#[inline(always)]
pub fn dot<N: Number>(a: &[N], b: &[N]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((a_blocks, a_rest), (b_blocks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane].get() * b[lane].get();
        }
    }
    a_rest.iter().zip(b_rest).fold(folded(lanes), |sum, (a, b)| sum + a.get() * b.get())
}

/// Σ a, in the same order.
#[inline(always)]
pub fn total(a: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (blocks, rest) = a.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += block[lane];
        }
    }
    rest.iter().fold(folded(lanes), |sum, value| sum + value)
}

/// The sum of all lanes. Kept apart: a compiler that sees how lanes end up tears vectors to pieces on the way there.
#[inline(never)]
pub fn folded(mut lanes: [f32; LANES]) -> f32 {
    for half in [LANES / 2, LANES / 4, LANES / 8, LANES / 16] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// The largest of `values`, NaN apart.
#[inline(always)]
pub fn largest<N: Number>(values: &[N]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].max(block[lane].get());
        }
    }
    lanes.iter().copied().chain(rest.iter().map(|value| value.get())).fold(f32::NEG_INFINITY, f32::max)
}

/// e to the x within two units of the last place, as a polynomial that compilers turn into vector instructions. Below
/// -87 it stays at the value there; above 87 it is any number.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (power, rest) = power_and_rest(x.max(-87.0));
    (rest + 1.0) * power
}

/// e to the x minus 1, as precise near 0, for x between -87 and 87.
#[inline(always)]
pub fn exp_minus_1(x: f32) -> f32 {
    let (power, rest) = power_and_rest(x);
    rest * power + (power - 1.0)
}

/// A power of two, and what is left: e to the x is their product with 1 added to the second.
#[inline(always)]
fn power_and_rest(x: f32) -> (f32, f32) {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the nearest integer in the last bits
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4; // ln 2 in two parts, the first exact in few bits
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    // n between -126 and 126 from those last bits; where x is NaN any power will do, since r is NaN
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (power, (p * r) * r + r)
}
