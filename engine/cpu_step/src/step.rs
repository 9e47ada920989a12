//! The door: a model with threads of its own, which reads one token per row and gives logits.

use crate::MOST;
use crate::kernels::{Kernels, available};
use crate::model::{Matrix, Model, Unfit};
use crate::pool::Pool;
use crate::rows::{Row, pieces};
use crate::walk::{Job, Walk};

/// Factors of the hash of a token and its predecessor.
const HASH: (i64, i64) = (36_313, 27_191);

/// Steps one model.
pub struct Stepper {
    pool: Pool,
    walk: Walk,
}

impl Stepper {
    /// # Safety
    /// All memory that `model` points to must hold what it says and stay as it is for as long as this lives.
    pub unsafe fn new(model: Model, threads: usize) -> Result<Self, Unfit> {
        // SAFETY: promised by the caller; `available` lists what this processor can run
        unsafe { Self::with(model, threads, available().swap_remove(0)) }
    }

    /// The same with given kernels.
    ///
    /// # Safety
    /// As `new`; and this processor must be able to run the kernels.
    pub unsafe fn with(model: Model, threads: usize, kernels: Kernels) -> Result<Self, Unfit> {
        model.check()?;
        let pool = Pool::new(threads);
        let walk = Walk::new(model, pool.threads(), kernels);
        Ok(Self { pool, walk })
    }

    #[must_use]
    pub fn model(&self) -> &Model {
        &self.walk.model
    }

    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    #[must_use]
    pub fn kernels(&self) -> &'static str {
        self.walk.kernels.name
    }

    /// Bytes per second at which these threads read `memory`.
    pub fn read_speed(&mut self, memory: &[f32]) -> f64 {
        crate::probe::read_speed(&mut self.pool, &self.walk.kernels, memory)
    }

    /// Reads one token per row, at most `MOST`, and writes the logits of the rows from `first_logits` on,
    /// (rows - first_logits, vocab).
    ///
    /// # Safety
    /// `logits` must have room, and the rows' caches must be what they say and be used by nobody else meanwhile.
    pub unsafe fn step(&mut self, rows: &[Row], first_logits: usize, logits: *mut f32) -> Result<(), Unfit> {
        if rows.is_empty() || rows.len() > MOST || first_logits > rows.len() {
            return Err(Unfit(format!("{} rows in one step, {first_logits} of them without logits", rows.len())));
        }
        rows.iter().try_for_each(|row| row.check(&self.walk.model))?;
        let mut windows: Vec<usize> = self.walk.model.layers.iter().map(|layer| layer.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let pieces = windows.into_iter().map(|window| (window, pieces(rows, window))).collect();
        let job = Job { rows, first_logits, pieces, logits };
        // SAFETY: no thread works yet
        unsafe { self.embed(rows) };
        self.walk.begin(&job);
        let walk = &self.walk;
        // SAFETY: the pool calls once with each thread's number
        self.pool.run(&|thread| unsafe { walk.all(thread, &job) });
        Ok(())
    }

    /// The stream ahead of the first layer.
    unsafe fn embed(&self, rows: &[Row]) {
        let (walk, model) = (&self.walk, &self.walk.model);
        let c = model.shape.n_embd;
        for (b, row) in rows.iter().enumerate() {
            // SAFETY: nobody else uses these places before the threads start
            let [stream, first, pairs] = unsafe { [&walk.stream, &walk.first, &walk.pairs].map(|s| s.write(b * c, c)) };
            self.embedding(row.token, first);
            if let (Some(smear), Some(previous)) = (model.smear, row.previous) {
                self.embedding(previous, stream);
                let share = smear.amount * sigmoid(dot(&smear.gate, 0, first));
                first.iter_mut().zip(&*stream).for_each(|(x, before)| *x += share * before);
            }
            stream.copy_from_slice(first);
            if let Some(table) = model.pairs {
                table.row_into(pair_row(&table, row), pairs);
            }
            if let Some(mix) = model.layers.first().and_then(|layer| layer.mix) {
                (0..c).for_each(|i| stream[i] = mix.stream * first[i] + mix.embedding * first[i] + mix.pair * pairs[i]);
            }
        }
    }

    /// The normalised embedding of a token.
    fn embedding(&self, token: u32, out: &mut [f32]) {
        self.walk.model.embedding.row_into(token as usize, out);
        // SAFETY: the kernels are ones that this processor can run
        let factor = unsafe { (self.walk.kernels.norm_factor)(out) };
        out.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Row of a token and its predecessor in the table of pairs.
fn pair_row(table: &Matrix, row: &Row) -> usize {
    let last = table.rows - 1;
    row.previous.map_or(last, |previous| {
        let hash = (HASH.0 * i64::from(row.token)) ^ (HASH.1 * i64::from(previous));
        hash.rem_euclid(last as i64) as usize
    })
}

/// A row of a small matrix times the first numbers of a vector.
pub(crate) fn dot(m: &Matrix, row: usize, x: &[f32]) -> f32 {
    let mut weights = vec![0.0; m.cols];
    m.row_into(row, &mut weights);
    weights.iter().zip(x).map(|(w, x)| w * x).sum()
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
