//! The way through the layers. Every product is one phase: the threads prepare its input, each for itself, take rows of
//! the matrix until none is left, and go on when all rows are done. Who finds none left already asks for the next matrix.

use std::sync::Arc;
use std::time::Duration;

use crate::MOST;
use crate::kernels::attend::PIECE;
use crate::model::Matrix;
use crate::net::Net;
use crate::pool::{Tasks, walk};
use crate::rows::{Piece, Row};
use crate::scratch::{Local, PerThread, Shared};

/// Bytes of a matrix in one task, about: some microseconds of work.
const TASK_BYTES: usize = 64 << 10;
/// Rows of a task are a multiple of this, so that kernels take whole groups.
const GROUP: usize = 8;
/// Most rows in a task.
const TASK_ROWS: usize = 256;
/// What a thread asks for ahead of the next product.
const HEAD_START: usize = 8 << 10;

/// The phases of a layer, and the last one of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Queries, keys and values of the new tokens.
    Project(usize),
    /// Keys and values go into the cache, where several rows do so.
    Insert(usize),
    Attend(usize),
    Out(usize),
    Up(usize),
    Down(usize),
    Logits,
}

/// What all threads of one step look at.
pub struct Job<'a> {
    pub rows: &'a [Row],
    /// Rows before this one get no logits.
    pub first_logits: usize,
    /// Pieces for every window that a layer has.
    pub pieces: Vec<(usize, Vec<Piece>)>,
    pub logits: *mut f32,
    /// Whether the stream is already what it is behind the last layer.
    pub only_logits: bool,
}

// SAFETY: the threads write disjoint parts of `logits`.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// Whether the tasks of attention put keys and values into the cache themselves. They must not where a row may see
    /// another one of the same step.
    pub fn inserts_late(&self) -> bool {
        self.rows.len() == 1
    }

    pub fn pieces_of(&self, window: usize) -> &[Piece] {
        self.pieces.iter().find(|(w, _)| *w == window).map_or(&[], |(_, pieces)| pieces)
    }
}

/// The order of a model's phases, and the memory that a step works in.
pub struct Walk {
    pub net: Arc<Net>,
    phases: Vec<Phase>,
    threads: usize,
    /// Of every phase.
    tasks: Vec<Tasks>,
    locals: PerThread<Local>,
    /// Longest number of pieces that a context has.
    pub most_pieces: usize,
    /// The stream, what it was ahead of the first layer, what backout takes, pair embeddings: (MOST, n_embd) each.
    pub stream: Shared,
    pub first: Shared,
    pub middle: Shared,
    pub pairs: Shared,
    /// Queries, keys, values: (MOST, n_embd + 2 * n_kv_head * head_dim).
    pub qkv: Shared,
    /// (MOST, n_head, most_pieces): sums of values (head_dim each), and largest score and sum of exponentials.
    pub sums: Shared,
    pub weights: Shared,
    /// Inside the MLP: (MOST, longest).
    pub hidden: Shared,
    pub longest: usize,
}

impl Walk {
    pub fn new(net: Arc<Net>, threads: usize) -> Self {
        let s = net.model.shape;
        let longest = net.model.layers.iter().map(|layer| layer.up.rows).max().unwrap_or(0).max(s.n_embd);
        let most_pieces = s.context.div_ceil(PIECE);
        let layer =
            |i| [Phase::Project(i), Phase::Insert(i), Phase::Attend(i), Phase::Out(i), Phase::Up(i), Phase::Down(i)];
        let stream = || Shared::new(MOST * s.n_embd);
        let phases: Vec<Phase> = (0..s.n_layer).flat_map(layer).chain([Phase::Logits]).collect();
        Self {
            threads,
            tasks: phases.iter().map(|_| Tasks::new(threads)).collect(),
            phases,
            locals: PerThread::new(threads, || Local::new(longest, TASK_ROWS * MOST)),
            most_pieces,
            stream: stream(),
            first: stream(),
            middle: stream(),
            pairs: stream(),
            qkv: Shared::new(MOST * (s.n_embd + 2 * s.n_kv_head * s.head_dim())),
            sums: Shared::new(MOST * most_pieces * s.n_embd),
            weights: Shared::new(MOST * most_pieces * s.n_head * 2),
            hidden: Shared::new(MOST * longest),
            longest,
            net,
        }
    }

    /// Lays out the tasks of all phases. No thread may be on its way.
    pub fn begin(&self, job: &Job<'_>) {
        for (tasks, &phase) in self.tasks.iter().zip(&self.phases) {
            let skipped = job.only_logits && phase != Phase::Logits;
            tasks.reset(if skipped { 0 } else { self.count(phase, job) });
        }
    }

    /// One thread's way through all phases, and how long it waited for others.
    ///
    /// # Safety
    /// Each thread must go with its own number, and not twice.
    pub unsafe fn all(&self, thread: usize, job: &Job<'_>) -> Duration {
        // SAFETY: the number is this thread's own
        let local = unsafe { self.locals.of(thread) };
        let mut prepared = None;
        let task = |i: usize, task| {
            let phase = self.phases[i];
            // SAFETY: what a phase reads was written in phases that are over, and no two tasks write one place
            unsafe {
                if prepared.replace(i) != Some(i) {
                    self.prepare(phase, job, local);
                }
                self.perform(phase, task, job, local);
            }
        };
        walk(&self.tasks, thread, task, |next| {
            if let (Some(&phase), Some(tasks)) = (self.phases.get(next), self.tasks.get(next)) {
                self.head_start(phase, tasks.start_of(thread));
            }
        })
    }

    /// The matrices of a phase, one below the other.
    pub fn matrices(&self, phase: Phase) -> [Option<Matrix>; 3] {
        let one = |m: Matrix| [Some(m), None, None];
        let layers = &self.net.model.layers;
        match phase {
            Phase::Project(i) => [Some(layers[i].q), Some(layers[i].k), Some(layers[i].v)],
            Phase::Out(i) => one(layers[i].out),
            Phase::Up(i) => one(layers[i].up),
            Phase::Down(i) => one(layers[i].down),
            Phase::Logits => one(Matrix { rows: self.net.model.shape.vocab, ..self.net.model.head }),
            Phase::Insert(_) | Phase::Attend(_) => [None; 3],
        }
    }

    /// How many tasks a phase has.
    fn count(&self, phase: Phase, job: &Job<'_>) -> usize {
        let heads = self.net.model.shape.n_kv_head;
        match phase {
            Phase::Insert(_) if job.inserts_late() => 0,
            Phase::Insert(_) => job.rows.len() * heads,
            Phase::Attend(i) => job.pieces_of(self.net.model.layers[i].window).len() * heads,
            Phase::Logits if job.first_logits == job.rows.len() => 0,
            _ => self.matrices(phase).iter().flatten().map(|m| m.rows.div_ceil(self.task_rows(m))).sum(),
        }
    }

    /// Rows of one task: about `TASK_BYTES`, but enough tasks for every thread.
    fn task_rows(&self, m: &Matrix) -> usize {
        let by_size = TASK_BYTES / (m.cols * m.format.bytes()).max(1);
        let by_threads = m.rows / (4 * self.threads);
        by_size.min(by_threads).clamp(GROUP, TASK_ROWS) / GROUP * GROUP
    }

    /// Which of the phase's matrices a task belongs to, that matrix, the task's first row, and how many.
    pub fn locate(&self, phase: Phase, mut task: usize) -> Option<(usize, Matrix, usize, usize)> {
        for (which, m) in self.matrices(phase).into_iter().flatten().enumerate() {
            let rows = self.task_rows(&m);
            let tasks = m.rows.div_ceil(rows);
            if task < tasks {
                return Some((which, m, task * rows, rows.min(m.rows - task * rows)));
            }
            task -= tasks;
        }
        None
    }

    /// Ask for the first rows that this thread will read in the next phase.
    fn head_start(&self, phase: Phase, task: usize) {
        if let Some((_, m, first, _)) = self.locate(phase, task) {
            // SAFETY: the kernels are ones that this processor can run
            unsafe { (self.net.kernels.prefetch)(m.row(first), HEAD_START) };
        }
    }
}
