//! The door: a model with threads of its own, which reads one token per row and gives logits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::MOST;
use crate::kernels::{Kernels, available};
use crate::model::{Model, Unfit};
use crate::net::Net;
use crate::pool::Pool;
use crate::prompt::{self, MOST_TOKENS, Prompt};
use crate::rows::{Row, pieces};
use crate::walk::{Job, Walk};

/// Below this share of its time at work, the first thread is better off alone: the others are kept from running.
const HELPFUL: f64 = 0.6;
/// Steps in a row that must say so; waking up takes one.
const STRIKES: u32 = 3;
/// Steps alone before the others get another chance, the first time and at most.
const ALONE: (u32, u32) = (16, 1024);

/// Steps one model.
pub struct Stepper {
    net: Arc<Net>,
    pool: Pool,
    walk: Walk,
    /// From the first prompt on.
    prompt: Option<Prompt>,
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
        let net = Arc::new(Net { model, kernels });
        let walk = Walk::new(Arc::clone(&net), pool.threads());
        Ok(Self { net, pool, walk, prompt: None, company: Company::default() })
    }

    #[must_use]
    pub fn model(&self) -> &Model {
        &self.net.model
    }

    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    #[must_use]
    pub fn kernels(&self) -> &'static str {
        self.net.kernels.name
    }

    /// Bytes per second at which these threads read `memory`.
    pub fn read_speed(&mut self, memory: &[f32]) -> f64 {
        crate::probe::read_speed(&mut self.pool, &self.net.kernels, memory)
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
        rows.iter().try_for_each(|row| row.check(&self.net.model))?;
        let mut windows: Vec<usize> = self.net.model.layers.iter().map(|layer| layer.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let pieces = windows.into_iter().map(|window| (window, pieces(rows, window))).collect();
        let job = Job { rows, first_logits, pieces, logits, only_logits: false };
        let (walk, c) = (&self.walk, self.net.model.shape.n_embd);
        for (b, row) in rows.iter().enumerate() {
            // SAFETY: no thread works yet
            let [stream, first, pairs] = unsafe { [&walk.stream, &walk.first, &walk.pairs].map(|s| s.write(b * c, c)) };
            self.net.embed(row, stream, first, pairs);
        }
        walk.begin(&job);
        // SAFETY: `go` calls with each thread's number once
        go(&mut self.pool, &mut self.company, |thread| unsafe { walk.all(thread, &job) });
        Ok(())
    }

    /// Reads neighbouring tokens of one sequence, at most `MOST_TOKENS`, and writes the logits behind the last one (vocab).
    ///
    /// # Safety
    /// As `step`.
    pub unsafe fn read(&mut self, rows: &[Row], logits: *mut f32) -> Result<(), Unfit> {
        let neighbours = |pair: &[Row]| pair[1].position == pair[0].position + 1 && pair[1].k == pair[0].k;
        let Some(last) = rows.last().filter(|_| rows.len() <= MOST_TOKENS && rows.windows(2).all(neighbours)) else {
            return Err(Unfit(format!("{} tokens at once, or not in their order", rows.len())));
        };
        rows.iter().try_for_each(|row| row.check(&self.net.model))?;
        let (threads, c) = (self.pool.threads(), self.net.model.shape.n_embd);
        let prompt = self.prompt.get_or_insert_with(|| Prompt::new(Arc::clone(&self.net), threads));
        let job = prompt::Job { rows };
        prompt.begin(job);
        // SAFETY: `go` calls with each thread's number once
        go(&mut self.pool, &mut self.company, |thread| unsafe { prompt.all(thread, job) });
        let (walk, pieces) = (&self.walk, Vec::new());
        let job = Job { rows: std::slice::from_ref(last), first_logits: 0, pieces, logits, only_logits: true };
        // SAFETY: no thread works now
        unsafe { walk.stream.write(0, c).copy_from_slice(prompt.stream.read((rows.len() - 1) * c, c)) };
        walk.begin(&job);
        // SAFETY: as above
        go(&mut self.pool, &mut self.company, |thread| unsafe { walk.all(thread, &job) });
        Ok(())
    }
}

/// Calls `way` with the number of each thread, or of the first one only, as the company is; it says how long it waited.
fn go(pool: &mut Pool, company: &mut Company, way: impl Fn(usize) -> Duration + Sync) {
    if pool.threads() == 1 || !company.wanted() {
        way(0);
        return;
    }
    let (begin, worked) = (Instant::now(), AtomicU64::new(0));
    pool.run(&|thread| {
        let waited = way(thread);
        if thread == 0 {
            worked.store(begin.elapsed().saturating_sub(waited).as_nanos() as u64, Ordering::Relaxed);
        }
    });
    company.note(worked.load(Ordering::Relaxed) as f64 / begin.elapsed().as_nanos().max(1) as f64);
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
