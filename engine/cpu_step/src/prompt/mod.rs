//! The way of many neighbouring tokens of one sequence through the layers. Each weight is read once for all of them, so
//! arithmetic counts here, and the phases are products of whole matrices; the memory for that comes with the first prompt.

mod attention;

use std::sync::Arc;
use std::time::Duration;

use crate::kernels::gemm::{Block, DEPTH, FOUR, Source, Word};
use crate::model::{Format, Matrix};
use crate::net::Net;
use crate::pool::{Tasks, walk};
use crate::rows::Row;
use crate::scratch::{PerThread, Shared};

/// The most tokens that are read together.
pub const MOST_TOKENS: usize = 512;
/// Tokens in one task of work on single tokens.
const SOME: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The normalised stream as the products of the layer's attention want it.
    NormAttention(usize),
    Project(usize),
    /// Rotation and norm of queries and keys; keys and values go into the cache.
    Insert(usize),
    Attend(usize),
    Out(usize),
    NormMlp(usize),
    Up(usize),
    Down(usize),
}

/// What all threads look at.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Neighbouring tokens of one sequence in their order.
    pub rows: &'a [Row],
}

/// The memory of one thread.
struct Local {
    panel: Vec<f32>,
    /// Products of all tokens with one panel: (tokens, width).
    out: Vec<f32>,
    /// Of one head's queries: (panels of keys, queries, width).
    scores: Vec<f32>,
    sums: Vec<f32>,
}

/// Vectors for products, word by word: (MOST_TOKENS, stride).
struct Words {
    at: Shared,
    stride: usize,
}

impl Words {
    /// A line more than a vector takes, or vectors a power of two long would all want the same places in a cache.
    fn new(longest: usize) -> Self {
        let stride = longest.next_multiple_of(16) + 16;
        Self { at: Shared::new(MOST_TOKENS * stride), stride }
    }
}

pub struct Prompt {
    net: Arc<Net>,
    phases: Vec<Phase>,
    tasks: Vec<Tasks>,
    locals: PerThread<Local>,
    /// The stream, what it was ahead of the first layer, what backout takes, pair embeddings: (MOST_TOKENS, n_embd) each.
    pub stream: Shared,
    first: Shared,
    middle: Shared,
    pairs: Shared,
    /// Queries, keys, values: (MOST_TOKENS, n_embd + 2 * n_kv_head * head_dim).
    qkv: Shared,
    /// Input of a layer's products, and of the one that ends its MLP.
    x: Words,
    hidden: Words,
}

impl Prompt {
    pub fn new(net: Arc<Net>, threads: usize) -> Self {
        let s = net.model.shape;
        let layer = |i| {
            let attention = [Phase::NormAttention(i), Phase::Project(i), Phase::Insert(i), Phase::Attend(i)];
            attention.into_iter().chain([Phase::Out(i), Phase::NormMlp(i), Phase::Up(i), Phase::Down(i)])
        };
        let phases: Vec<Phase> = (0..s.n_layer).flat_map(layer).collect();
        let hidden = net.model.layers.iter().map(|layer| layer.up.rows).max().unwrap_or(0);
        let width = net.kernels.width;
        let local = || Local {
            panel: vec![0.0; DEPTH * width],
            out: vec![0.0; MOST_TOKENS * width],
            scores: Vec::new(),
            sums: vec![0.0; attention::QUERIES],
        };
        let stream = || Shared::new(MOST_TOKENS * s.n_embd);
        Self {
            tasks: phases.iter().map(|_| Tasks::new(threads)).collect(),
            phases,
            locals: PerThread::new(threads, local),
            stream: stream(),
            first: stream(),
            middle: stream(),
            pairs: stream(),
            qkv: Shared::new(MOST_TOKENS * (s.n_embd + 2 * s.n_kv_head * s.head_dim())),
            x: Words::new(s.n_embd),
            hidden: Words::new(hidden),
            net,
        }
    }

    /// Lays out the tasks of all phases and embeds the tokens. No thread may be on its way.
    pub fn begin(&self, job: Job<'_>) {
        let c = self.net.model.shape.n_embd;
        for (tasks, &phase) in self.tasks.iter().zip(&self.phases) {
            tasks.reset(self.count(phase, job));
        }
        for (t, row) in job.rows.iter().enumerate() {
            // SAFETY: nobody else uses these places before the threads start
            let [stream, first, pairs] = unsafe { [&self.stream, &self.first, &self.pairs].map(|s| s.write(t * c, c)) };
            self.net.embed(row, stream, first, pairs);
        }
    }

    /// One thread's way through all phases, and how long it waited for others.
    ///
    /// # Safety
    /// Each thread must go with its own number, and not twice.
    pub unsafe fn all(&self, thread: usize, job: Job<'_>) -> Duration {
        // SAFETY: the number is this thread's own
        let local = unsafe { self.locals.of(thread) };
        // SAFETY: what a phase reads was written in phases that are over, and no two tasks write one place
        let task = |i: usize, task| unsafe { self.perform(self.phases[i], task, job, local) };
        walk(&self.tasks, thread, task, |_| ())
    }

    fn count(&self, phase: Phase, job: Job<'_>) -> usize {
        let s = &self.net.model.shape;
        match phase {
            Phase::NormAttention(_) | Phase::Insert(_) | Phase::NormMlp(_) => job.rows.len().div_ceil(SOME),
            Phase::Attend(_) => s.n_kv_head * job.rows.len().div_ceil(attention::QUERIES),
            _ => self.matrices(phase).iter().flatten().map(|m| m.rows.div_ceil(self.net.kernels.width)).sum(),
        }
    }

    /// The matrices of a phase, one below the other.
    fn matrices(&self, phase: Phase) -> [Option<Matrix>; 3] {
        let layers = &self.net.model.layers;
        let one = |m: Matrix| [Some(m), None, None];
        match phase {
            Phase::Project(i) => [Some(layers[i].q), Some(layers[i].k), Some(layers[i].v)],
            Phase::Out(i) => one(layers[i].out),
            Phase::Up(i) => one(layers[i].up),
            Phase::Down(i) => one(layers[i].down),
            _ => [None; 3],
        }
    }

    unsafe fn perform(&self, phase: Phase, task: usize, job: Job<'_>, local: &mut Local) {
        let (layers, some) = (&self.net.model.layers, task * SOME..job.rows.len().min((task + 1) * SOME));
        // SAFETY: as promised by the caller
        unsafe {
            match phase {
                Phase::NormAttention(i) => some.for_each(|t| self.norm(t, layers[i].q.format)),
                Phase::NormMlp(i) => some.for_each(|t| self.norm(t, layers[i].up.format)),
                Phase::Insert(i) => some.for_each(|t| self.insert(i, t, &job.rows[t])),
                Phase::Attend(i) => self.attend(i, task, job, local),
                _ => self.product(phase, task, job, local),
            }
        }
    }

    unsafe fn norm(&self, t: usize, format: Format) {
        let c = self.net.model.shape.n_embd;
        // SAFETY: the kernels are ones that this processor can run; the rest as promised by the caller
        unsafe {
            let x = self.stream.read(t * c, c);
            self.put(&self.x, t, 0, x, (self.net.kernels.norm_factor)(x), self.net.kernels.word(format));
        }
    }

    /// Numbers times a factor into the words of vector `t`, from number `at` on.
    unsafe fn put(&self, words: &Words, t: usize, at: usize, x: &[f32], factor: f32, word: Word) {
        let start = words.at.ptr(t * words.stride);
        // SAFETY: the vector has room, and the place belongs to the caller
        unsafe {
            match word {
                Word::F32 => {
                    (self.net.kernels.scale)(x, factor, std::slice::from_raw_parts_mut(start.add(at), x.len()));
                }
                Word::Pair => {
                    let start = start.cast::<u16>().add(at);
                    (self.net.kernels.round)(x, factor, std::slice::from_raw_parts_mut(start, x.len()));
                }
            }
        }
    }

    unsafe fn insert(&self, layer: usize, t: usize, row: &Row) {
        let s = &self.net.model.shape;
        let (c, dim, kv) = (s.n_embd, s.head_dim(), s.n_kv_head * s.head_dim());
        // SAFETY: this token's places belong to this task
        unsafe {
            let (queries, rest) = self.qkv.write(t * (c + 2 * kv), c + 2 * kv).split_at_mut(c);
            let (keys, values) = rest.split_at_mut(kv);
            queries.chunks_exact_mut(dim).for_each(|query| self.net.turn_query(row, query));
            for (head, (k, v)) in keys.chunks_exact_mut(dim).zip(values.chunks_exact_mut(dim)).enumerate() {
                self.net.insert(layer, head, row, self.stream.read(t * c, c), k, v);
            }
        }
    }

    /// All tokens times one panel of the phase's matrices.
    unsafe fn product(&self, phase: Phase, task: usize, job: Job<'_>, local: &mut Local) {
        let Some((which, m, first)) = self.locate(phase, task) else { return };
        let (kernels, count) = (&self.net.kernels, job.rows.len());
        let (rows, width) = (kernels.width.min(m.rows - first), kernels.width);
        let words = if matches!(phase, Phase::Down(_)) { &self.hidden } else { &self.x };
        let out = &mut local.out[..count.next_multiple_of(FOUR) * width];
        out.fill(0.0);
        let source = Source { w: m.row(first), format: m.format, rows, cols: m.cols, stride: m.cols };
        // SAFETY: the vectors were written before the last barrier in the words of this format
        unsafe {
            self.accumulate(source, kernels.word(m.format), words.at.ptr(0), words.stride, &mut local.panel, out)
        };
        for (t, products) in out.chunks_exact_mut(width).take(count).enumerate() {
            let products = &mut products[..rows];
            if m.format == Format::Int8 {
                // SAFETY: an int8 matrix has a scale for each row
                let scales = unsafe { std::slice::from_raw_parts(m.scales.add(first), rows) };
                products.iter_mut().zip(scales).for_each(|(product, scale)| *product *= scale);
            }
            // SAFETY: nobody else writes these rows
            unsafe { self.finish(phase, which, t, first, products) };
        }
    }

    /// Adds the products of vectors with the rows of a source, which may be deeper than one panel, to `out`.
    unsafe fn accumulate(
        &self,
        source: Source,
        word: Word,
        x: *const f32,
        stride: usize,
        panel: &mut [f32],
        out: &mut [f32],
    ) {
        let kernels = &self.net.kernels;
        let (count, whole) = (out.len() / kernels.width, source.cols / word.numbers());
        for at in (0..whole).step_by(DEPTH) {
            let depth = DEPTH.min(whole - at);
            let w = source.w.wrapping_add(at * word.numbers() * source.format.bytes());
            // SAFETY: promised by the caller; a panel has room for DEPTH words of each row
            unsafe {
                (kernels.pack)(&Source { w, cols: depth * word.numbers(), ..source }, word, panel.as_mut_ptr().cast());
                let block = Block { x: x.add(at), stride, count, panel: panel.as_ptr(), depth };
                (kernels.multiply(word))(&block, out.as_mut_ptr());
            }
        }
    }

    /// Which of the phase's matrices a task belongs to, that matrix, and the first row of the task's panel.
    fn locate(&self, phase: Phase, mut task: usize) -> Option<(usize, Matrix, usize)> {
        for (which, m) in self.matrices(phase).into_iter().flatten().enumerate() {
            let panels = m.rows.div_ceil(self.net.kernels.width);
            if task < panels {
                return Some((which, m, task * self.net.kernels.width));
            }
            task -= panels;
        }
        None
    }

    /// What becomes of the products of token `t` with the rows from `first` on.
    unsafe fn finish(&self, phase: Phase, which: usize, t: usize, first: usize, products: &mut [f32]) {
        let (s, rows) = (&self.net.model.shape, products.len());
        let (c, kv) = (s.n_embd, s.n_kv_head * s.head_dim());
        // SAFETY: these places belong to this task
        unsafe {
            match phase {
                Phase::Project(_) => {
                    let at = t * (c + 2 * kv) + [0, c, c + kv][which] + first;
                    self.qkv.write(at, rows).copy_from_slice(products);
                }
                Phase::Up(layer) => {
                    products.iter_mut().for_each(|value| *value = value.max(0.0) * value.max(0.0));
                    let word = self.net.kernels.word(self.net.model.layers[layer].down.format);
                    self.put(&self.hidden, t, first, products, 1.0, word);
                }
                _ => {
                    let at = t * c + first;
                    let stream = self.stream.write(at, rows);
                    stream.iter_mut().zip(products).for_each(|(to, value)| *to += *value);
                    if let Phase::Down(layer) = phase {
                        let (start, pairs) = (self.first.read(at, rows), self.pairs.read(at, rows));
                        self.net.between_layers(layer, stream, start, self.middle.write(at, rows), pairs);
                    }
                }
            }
        }
    }
}
