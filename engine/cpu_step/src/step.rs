//! The door: a model with threads of its own, which reads one token per row and gives logits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::MOST;
use crate::kernels::{Kernels, available};
use crate::model::{Matrix, Model, Unfit};
use crate::pool::Pool;
use crate::rows::{Row, pieces};
use crate::walk::{Job, Walk};

/// Below this share of its time at work, the first thread is better off alone: the others are kept from running.
const HELPFUL: f64 = 0.6;
/// Steps in a row that must say so; waking up takes one.
const STRIKES: u32 = 3;
/// Steps alone before the others get another chance, the first time and at most.
const ALONE: (u32, u32) = (16, 1024);

/// Factors of the hash of a token and its predecessor.
const HASH: (i64, i64) = (36_313, 27_191);

/// Steps one model.
pub struct Stepper {
    pool: Pool,
    walk: Walk,
    company: Company,
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
        Ok(Self { pool, walk, company: Company::default() })
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
        if self.company.wanted() && self.pool.threads() > 1 {
            self.together(&job);
        } else {
            // SAFETY: no other thread is on its way
            unsafe { self.walk.all(0, &job) };
        }
        Ok(())
    }

    /// All threads at once.
    fn together(&mut self, job: &Job<'_>) {
        let (walk, begin, worked) = (&self.walk, Instant::now(), AtomicU64::new(0));
        self.pool.run(&|thread| {
            // SAFETY: the pool calls at most once with each thread's number
            let waited = unsafe { walk.all(thread, job) };
            if thread == 0 {
                worked.store(begin.elapsed().saturating_sub(waited).as_nanos() as u64, Ordering::Relaxed);
            }
        });
        let share = worked.load(Ordering::Relaxed) as f64 / begin.elapsed().as_nanos().max(1) as f64;
        self.company.note(share);
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

/// Whether other threads are of use. On a machine that is busy with something else, threads wait for each other more
/// than they work: then the first one goes alone for a while, and tries again later, each time later.
#[derive(Default)]
struct Company {
    strikes: u32,
    alone_for: u32,
    patience: u32,
}

impl Company {
    fn wanted(&mut self) -> bool {
        self.alone_for = self.alone_for.saturating_sub(1);
        self.alone_for == 0
    }

    /// After a step of all threads: the share of its time that the first one worked.
    fn note(&mut self, share: f64) {
        if share >= HELPFUL {
            (self.strikes, self.patience) = (0, self.patience / 2);
            return;
        }
        self.strikes += 1;
        if self.strikes >= STRIKES {
            self.patience = (self.patience * 2).clamp(ALONE.0, ALONE.1);
            (self.strikes, self.alone_for) = (STRIKES - 1, self.patience);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn company_that_keeps_waiting_is_left_for_longer_and_longer() {
        let mut company = Company::default();
        let mut alone = Vec::new();
        for _ in 0..4 {
            while company.wanted() {
                company.note(0.2);
            }
            let mut steps = 1;
            while !company.wanted() {
                steps += 1;
            }
            company.note(0.2);
            alone.push(steps);
        }
        assert!(alone.windows(2).all(|pair| pair[1] >= pair[0]) && alone[3] > alone[0], "{alone:?}");
        while !company.wanted() {}
        (0..50).for_each(|_| company.note(0.9));
        assert!(company.wanted() && company.patience == 0);
        company.note(0.1);
        assert!(company.wanted(), "one slow step is an accident");
    }
}
