//! Each kernel the same to the last bit on one thread without special instructions and on several with all of them, and
//! near the plain formula in float64.

use row_kernels::add::Add;
use row_kernels::loss::SoftcappedLoss;
use row_kernels::norm::{Norm, NormGradient};
use row_kernels::relu::{Relu2, Relu2Gradient};
use row_kernels::rotary::{Heads, RotateNorm, RotateNormGradient};
use row_kernels::softmax::{Sight, Softmax, SoftmaxGradient};
use row_kernels::{Bf16, Number, Rows, spread};

/// Repeatable numbers in [-3, 3).
fn random(count: usize, mut seed: u64) -> Vec<f32> {
    std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 40) as f32 / (1 << 23) as f32 - 1.0) * 3.0
    })
    .take(count)
    .collect()
}

/// How the rows of a kernel are done.
struct Way {
    rows: usize,
    quick: bool,
}

impl Way {
    fn run<R: Rows>(&self, work: &R) {
        // SAFETY: the tests' vectors are as large as the kernels are told
        unsafe { if self.quick { spread(work, self.rows, 3, 4) } else { work.rows(0..self.rows) } }
    }
}

fn both_ways(rows: usize, run: impl Fn(&Way) -> Vec<f32>) -> Vec<f32> {
    let plain = run(&Way { rows, quick: false });
    let quick = run(&Way { rows, quick: true });
    assert!(plain.iter().zip(&quick).all(|(a, b)| a.to_bits() == b.to_bits()));
    plain
}

fn near(found: &[f32], expected: impl Fn(usize) -> f64) {
    for (i, value) in found.iter().enumerate() {
        let expected = expected(i);
        assert!((f64::from(*value) - expected).abs() < 2e-6 + 2e-6 * expected.abs(), "{i}: {value} {expected}");
    }
}

#[test]
fn norms_and_their_gradients() {
    let (rows, width) = (19, 37);
    let (x, dy) = (random(rows * width, 1), random(rows * width, 2));
    let found = both_ways(rows, |way| {
        let (mut y, mut dx, mut scale) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; rows]);
        way.run(&Norm { x: x.as_ptr(), y: y.as_mut_ptr(), scale: scale.as_mut_ptr(), width });
        let (y_at, scale_at, dx_at) = (y.as_ptr(), scale.as_ptr(), dx.as_mut_ptr());
        way.run(&NormGradient { y: y_at, scale: scale_at, dy: dy.as_ptr(), dx: dx_at, width });
        [y, dx].concat()
    });
    let row = |i: usize| i / width * width..(i / width + 1) * width;
    let root = |i: usize| (x[row(i)].iter().map(|v| f64::from(v * v)).sum::<f64>() / width as f64).sqrt();
    near(&found[..x.len()], |i| f64::from(x[i]) / root(i));
    near(&found[x.len()..], |i| {
        let along: f64 = x[row(i)].iter().zip(&dy[row(i)]).map(|(x, dy)| f64::from(x * dy)).sum::<f64>();
        (f64::from(dy[i]) - f64::from(x[i]) * along / (width as f64 * root(i).powi(2))) / root(i)
    });
}

#[test]
fn squared_relu_and_its_gradient() {
    let (x, dy) = (random(2500, 3), random(2500, 4));
    let found = both_ways(3, |way| {
        let (mut y, mut dx) = (vec![0.0; x.len()], dy.clone());
        way.run(&Relu2 { x: x.as_ptr(), y: y.as_mut_ptr(), count: x.len() });
        way.run(&Relu2Gradient { x: x.as_ptr(), dy: dx.as_mut_ptr(), count: x.len() });
        [y, dx].concat()
    });
    near(&found[..2500], |i| f64::from(x[i].max(0.0)).powi(2));
    near(&found[2500..], |i| f64::from(dy[i]) * 2.0 * f64::from(x[i].max(0.0)));
}

#[test]
fn sums_of_parts() {
    let (sum, part) = (random(2500, 11), random(2500, 12));
    let half: Vec<Bf16> = part.iter().map(|value| Bf16::of(*value)).collect();
    let found = both_ways(3, |way| {
        let mut total = sum.clone();
        way.run(&Add { sum: total.as_mut_ptr(), part: half.as_ptr(), count: sum.len() });
        total
    });
    near(&found, |i| f64::from(sum[i]) + f64::from(half[i].get()));
}

#[test]
fn a_rotation_with_its_norm_and_the_way_back() {
    for dim in [6, 64, 128] {
        rotation(dim);
    }
}

fn rotation(dim: usize) {
    let (batch, positions, heads) = (2, 5, 3);
    let (x, dy) = (random(batch * positions * heads * dim, 5), random(batch * positions * heads * dim, 6));
    let angles = random(positions * dim / 2, 7);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let heads = Heads { cos: cos.as_ptr(), sin: sin.as_ptr(), positions, heads, dim };
    let rows = x.len() / dim;
    let amount = 1.2;
    let found = both_ways(rows, |way| {
        let (mut y, mut dx, mut scale) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; rows]);
        way.run(&RotateNorm { heads, x: x.as_ptr(), y: y.as_mut_ptr(), scale: scale.as_mut_ptr(), amount });
        let (y_at, scale_at, dx_at) = (y.as_ptr(), scale.as_ptr(), dx.as_mut_ptr());
        way.run(&RotateNormGradient { heads, y: y_at, scale: scale_at, dy: dy.as_ptr(), dx: dx_at, amount });
        [y, dx].concat()
    });
    let place = |token: usize, head: usize| ((token / positions * 3 + head) * positions + token % positions) * dim;
    for token in 0..batch * positions {
        for head in 0..3 {
            let from = &x[(token * 3 + head) * dim..][..dim];
            let root = (from.iter().map(|v| v * v).sum::<f32>() / dim as f32).sqrt();
            let (a, s) = (angles[token % positions * dim / 2], amount / root);
            let first = (from[0] * a.cos() + from[dim / 2] * a.sin()) * s;
            assert!((found[place(token, head)] - first).abs() < 1e-5);
            let back: f32 = (0..dim).map(|i| found[x.len() + (token * 3 + head) * dim + i] * from[i]).sum();
            assert!(back.abs() < 1e-3, "a longer x changes nothing: {back}");
        }
    }
}

#[test]
fn attention_weights_are_of_what_is_seen() {
    let sight = Sight { queries: 4, keys: 7, first: 2, window: 3 };
    let (scores, slopes) = (random(2 * 4 * 7, 8), random(2 * 4 * 7, 9));
    let found = both_ways(8, |way| {
        let (mut weights, mut slopes) = (scores.clone(), slopes.clone());
        way.run(&Softmax { scores: weights.as_mut_ptr(), sight, scale: 0.5 });
        way.run(&SoftmaxGradient { weights: weights.as_ptr(), slopes: slopes.as_mut_ptr(), sight, scale: 0.5 });
        [weights, slopes].concat()
    });
    let power = |row: usize, key: usize| {
        let (last, seen) = (2 + row % 4, f64::from(scores[row * 7 + key]));
        if key <= last && key + 3 >= last { (seen * 0.5).exp() } else { 0.0 }
    };
    let weight = |row: usize, key: usize| power(row, key) / (0..7).map(|k| power(row, k)).sum::<f64>();
    near(&found[..56], |i| weight(i / 7, i % 7));
    near(&found[56..], |i| {
        let row = i / 7;
        let mean: f64 = (0..7).map(|k| weight(row, k) * f64::from(slopes[row * 7 + k])).sum();
        weight(row, i % 7) * (f64::from(slopes[i]) - mean) * 0.5
    });
}

#[test]
fn losses_and_gradients_of_soft_capped_logits() {
    let (rows, vocab, softcap, share) = (6, 301, 15.0_f32, 0.25_f32);
    let logits: Vec<f32> = random(rows * vocab, 10).iter().map(|z| z * 5.0).collect();
    let targets: Vec<i64> = vec![0, 300, -1, 17, 299, 150];
    let found = both_ways(rows, |way| {
        let (mut z, mut losses) = (logits.clone(), vec![0.0; rows]);
        let (z_at, losses_at) = (z.as_mut_ptr(), losses.as_mut_ptr());
        way.run(&SoftcappedLoss { logits: z_at, targets: targets.as_ptr(), losses: losses_at, vocab, softcap, share });
        [losses, z].concat()
    });
    let capped = |i: usize| 15.0 * (f64::from(logits[i]) / 15.0).tanh();
    let total = |row: usize| (0..vocab).map(|j| capped(row * vocab + j).exp()).sum::<f64>();
    for (row, target) in targets.iter().enumerate() {
        let expected = usize::try_from(*target).map_or(0.0, |t| total(row).ln() - capped(row * vocab + t));
        assert!((f64::from(found[row]) - expected).abs() < 1e-5);
    }
    near(&found[rows..], |i| {
        let (row, key) = (i / vocab, i % vocab);
        let hit = if targets[row] == key as i64 { 1.0 } else { 0.0 };
        let slope = 1.0 - (f64::from(logits[i]) / 15.0).tanh().powi(2);
        if targets[row] < 0 { 0.0 } else { 0.25 * (capped(i).exp() / total(row) - hit) * slope }
    });
}

#[test]
fn bfloat16_rounds_to_the_nearest_and_keeps_what_is_no_number() {
    for (value, bits) in [(1.0, 0x3f80), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (-0.0, 0x8000)] {
        assert_eq!(Bf16::of(value), Bf16(bits), "{value}");
    }
    assert!(Bf16::of(f32::NAN).get().is_nan() && Bf16::of(f32::from_bits(0x7f80_0001)).get().is_nan());
    assert_eq!(Bf16::of(f32::INFINITY).get(), f32::INFINITY);
}
