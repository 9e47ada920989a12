//! A step of a small random model, the same whatever the instruction set, the number of threads and the company.

#![expect(clippy::unwrap_used, reason = "a test may stop there")]

use cpu_step::kernels::{Kernels, available};
use cpu_step::{Backout, Format, Layer, Matrix, Mix, Model, Row, Shape, Smear, Stepper, Stored, ValueEmbedding};

/// A repeatable stream of numbers in [-1, 1).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Owns the memory of a model.
struct Weights {
    random: Random,
    bytes: Vec<Vec<u8>>,
    scales: Vec<Vec<f32>>,
    format: Format,
}

impl Weights {
    fn matrix(&mut self, rows: usize, cols: usize, format: Format) -> Matrix {
        let values: Vec<f32> = (0..rows * cols).map(|_| self.random.next() / (cols as f32).sqrt()).collect();
        let bytes = match format {
            Format::F32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Format::Bf16 => values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_ne_bytes()).collect(),
            Format::Int8 => values.iter().map(|v| (v * 127.0) as i8 as u8).collect(),
        };
        self.bytes.push(bytes);
        self.scales.push(vec![1.0 / 127.0; rows]);
        Matrix {
            format,
            data: self.bytes.last().unwrap().as_ptr(),
            rows,
            cols,
            scales: self.scales.last().unwrap().as_ptr(),
        }
    }

    fn model(&mut self, shape: Shape, hidden: usize) -> Model {
        let (c, format) = (shape.n_embd, self.format);
        let kv = shape.n_kv_head * shape.head_dim();
        let layers = (0..shape.n_layer).map(|i| Layer {
            q: self.matrix(c, c, format),
            k: self.matrix(kv, c, format),
            v: self.matrix(kv, c, format),
            out: self.matrix(c, c, format),
            up: self.matrix(hidden, c, format),
            down: self.matrix(c, hidden, format),
            window: if i % 2 == 0 { 40 } else { usize::MAX },
            mix: Some(Mix { stream: 1.1, embedding: 0.2, pair: 0.1 }),
            value_embedding: (i % 2 == 1).then(|| ValueEmbedding {
                table: self.matrix(shape.vocab, kv, Format::F32),
                gate: self.matrix(shape.n_kv_head, 4, Format::F32),
                scale: 3.0,
            }),
        });
        let layers = layers.collect();
        Model {
            shape,
            layers,
            embedding: self.matrix(shape.vocab, c, Format::F32),
            head: self.matrix(shape.vocab, c, format),
            cos: self.matrix(shape.context, shape.head_dim() / 2, Format::F32),
            sin: self.matrix(shape.context, shape.head_dim() / 2, Format::F32),
            smear: Some(Smear { gate: self.matrix(1, 4, Format::F32), amount: 0.5 }),
            backout: Some(Backout { layer: shape.n_layer / 2, amount: 0.2 }),
            pairs: Some(self.matrix(5 * shape.vocab, c, Format::F32)),
        }
    }
}

const SHAPE: Shape =
    Shape { n_layer: 3, n_head: 4, n_kv_head: 2, n_embd: 88, context: 600, vocab: 203, softcap: 15.0, qk_scale: 1.2 };

/// Keys and values of one sequence.
struct Cache {
    k: Vec<u8>,
    v: Vec<u8>,
}

impl Cache {
    fn new() -> Self {
        let bytes = SHAPE.n_layer * SHAPE.n_kv_head * SHAPE.context * SHAPE.head_dim() * 4;
        Self { k: vec![0; bytes], v: vec![0; bytes] }
    }

    fn row(&mut self, tokens: &[u32], position: usize, stored: Stored) -> Row {
        let head_stride = SHAPE.context * SHAPE.head_dim();
        Row {
            token: tokens[position],
            position,
            k: self.k.as_mut_ptr(),
            v: self.v.as_mut_ptr(),
            stored,
            layer_stride: SHAPE.n_kv_head * head_stride,
            head_stride,
            previous: position.checked_sub(1).map(|before| tokens[before]),
        }
    }
}

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut random = Random(seed);
    (0..count).map(|_| ((random.next() + 1.0) / 2.0 * SHAPE.vocab as f32) as u32).collect()
}

/// Logits behind the tokens, which are read `together` at a time.
fn logits(format: Format, kernels: Kernels, threads: usize, stored: Stored, together: usize) -> Vec<f32> {
    let mut weights = Weights { random: Random(7), bytes: Vec::new(), scales: Vec::new(), format };
    let model = weights.model(SHAPE, 260);
    let mut stepper = unsafe { Stepper::with(model, threads, kernels) }.unwrap();
    let (tokens, mut cache, mut out) = (tokens(3, 301), Cache::new(), vec![0.0; SHAPE.vocab]);
    for start in (0..tokens.len()).step_by(together) {
        let end = tokens.len().min(start + together);
        let rows: Vec<Row> = (start..end).map(|at| cache.row(&tokens, at, stored)).collect();
        unsafe { stepper.step(&rows, rows.len() - 1, out.as_mut_ptr()) }.unwrap();
    }
    out
}

/// The same, read as a prompt of several parts.
fn prompt_logits(format: Format, kernels: Kernels, threads: usize, stored: Stored, parts: &[usize]) -> Vec<f32> {
    let mut weights = Weights { random: Random(7), bytes: Vec::new(), scales: Vec::new(), format };
    let model = weights.model(SHAPE, 260);
    let mut stepper = unsafe { Stepper::with(model, threads, kernels) }.unwrap();
    let (tokens, mut cache, mut out, mut start) = (tokens(3, 301), Cache::new(), vec![0.0; SHAPE.vocab], 0);
    for part in parts {
        let rows: Vec<Row> = (start..start + part).map(|at| cache.row(&tokens, at, stored)).collect();
        unsafe { stepper.read(&rows, out.as_mut_ptr()) }.unwrap();
        start += part;
    }
    out
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |most, (a, b)| if (a - b).abs() > most { (a - b).abs() } else { most })
}

fn scalar() -> Kernels {
    available().pop().unwrap()
}

#[test]
fn all_instruction_sets_agree() {
    for format in [Format::F32, Format::Bf16, Format::Int8] {
        for stored in [Stored::F32, Stored::Bf16] {
            let expected = logits(format, scalar(), 1, stored, 1);
            assert!(expected.iter().all(|v| v.is_finite()) && expected.iter().any(|v| v.abs() > 0.1));
            for kernels in available() {
                for together in [1, 3, 8] {
                    let got = logits(format, kernels, 1, stored, together);
                    // a sum in another order can tip a number to its neighbour among bfloat16s, or whole numbers
                    let tolerance = if (format, stored) == (Format::F32, Stored::F32) { 2e-5 } else { 2e-2 };
                    let apart = distance(&expected, &got);
                    assert!(apart < tolerance, "{} {format:?} {stored:?} {together}: {apart}", kernels.name);
                }
            }
        }
    }
}

#[test]
fn a_prompt_gives_what_its_tokens_give_one_by_one() {
    for format in [Format::F32, Format::Bf16, Format::Int8] {
        for stored in [Stored::F32, Stored::Bf16] {
            let expected = logits(format, scalar(), 1, stored, 1);
            for kernels in available() {
                for parts in [&[301][..], &[1, 90, 210], &[133, 166, 2]] {
                    let got = prompt_logits(format, kernels, 2, stored, parts);
                    // where weights are no floats, the vectors that they meet are rounded to bfloat16
                    let tolerance = match (format, stored) {
                        (Format::F32, Stored::F32) => 2e-5,
                        (Format::F32, _) => 2e-2,
                        _ => 1e-1,
                    };
                    let apart = distance(&expected, &got);
                    assert!(apart < tolerance, "{} {format:?} {stored:?} {parts:?}: {apart}", kernels.name);
                }
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let best = available()[0];
    let expected = logits(Format::F32, best, 1, Stored::F32, 1);
    for threads in [2, 3, 7] {
        assert_eq!(expected, logits(Format::F32, best, threads, Stored::F32, 1));
        assert_eq!(
            prompt_logits(Format::F32, best, 1, Stored::F32, &[301]),
            prompt_logits(Format::F32, best, threads, Stored::F32, &[301])
        );
    }
}

#[test]
fn rows_do_not_see_each_other() {
    let mut weights = Weights { random: Random(7), bytes: Vec::new(), scales: Vec::new(), format: Format::F32 };
    let model = weights.model(SHAPE, 260);
    let mut stepper = unsafe { Stepper::new(model, 2) }.unwrap();
    let texts: Vec<Vec<u32>> = [5, 300, 17].iter().map(|&n| tokens(n as u64, n)).collect();
    let mut caches: Vec<Cache> = texts.iter().map(|_| Cache::new()).collect();
    let mut alone = vec![vec![0.0; SHAPE.vocab]; 3];
    for ((text, cache), out) in texts.iter().zip(&mut caches).zip(&mut alone) {
        for at in 0..text.len() {
            unsafe { stepper.step(&[cache.row(text, at, Stored::F32)], 0, out.as_mut_ptr()) }.unwrap();
        }
    }
    let rows: Vec<Row> =
        texts.iter().zip(&mut caches).map(|(text, cache)| cache.row(text, text.len() - 1, Stored::F32)).collect();
    let mut together = vec![0.0; 3 * SHAPE.vocab];
    unsafe { stepper.step(&rows, 0, together.as_mut_ptr()) }.unwrap();
    assert!(distance(&alone.concat(), &together) < 2e-5);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut weights = Weights { random: Random(7), bytes: Vec::new(), scales: Vec::new(), format: Format::F32 };
    let mut bad = weights.model(SHAPE, 260);
    bad.layers[1].up.cols += 1;
    assert!(unsafe { Stepper::new(bad, 1) }.is_err());
    let model = weights.model(SHAPE, 260);
    let mut stepper = unsafe { Stepper::new(model, 1) }.unwrap();
    let (tokens, mut cache, mut out) = (tokens(1, 600), Cache::new(), vec![0.0; SHAPE.vocab]);
    let good = cache.row(&tokens, 5, Stored::F32);
    let no_room = Row { head_stride: 5 * SHAPE.head_dim(), ..good };
    for row in [Row { token: 203, ..good }, Row { position: 600, ..good }, Row { previous: Some(999), ..good }, no_room]
    {
        assert!(unsafe { stepper.step(&[row], 0, out.as_mut_ptr()) }.is_err());
    }
    assert!(unsafe { stepper.step(&[], 0, out.as_mut_ptr()) }.is_err());
    assert!(unsafe { stepper.step(&[good; 9], 0, out.as_mut_ptr()) }.is_err());
    let (next, far) = (cache.row(&tokens, 6, Stored::F32), cache.row(&tokens, 8, Stored::F32));
    for rows in [&[][..], &[good, far], &[next, good], &[good, no_room]] {
        assert!(unsafe { stepper.read(rows, out.as_mut_ptr()) }.is_err());
    }
    assert!(unsafe { stepper.read(&[good, next], out.as_mut_ptr()) }.is_ok());
    assert!(unsafe { stepper.step(&[good], 0, out.as_mut_ptr()) }.is_ok());
}
