//! Threads that wait for the next job with their eyes open for a moment, then sleep: a token comes every millisecond
//! while one decodes, and waking a sleeping thread takes a twentieth of that. When nothing is to do, no CPU is used.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread without work looks for some before it sleeps.
const AWAKE: Duration = Duration::from_micros(500);
/// Looks before others get a chance to run on this core: on a busy machine the one that is waited for may need it.
const PATIENCE: u32 = 2_000;

type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    threads: usize,
    /// Which job it is, whether it still takes threads, and how many of them are inside: see `Gate`.
    gate: Gate,
    job: UnsafeCell<Option<Job<'static>>>,
    asleep: AtomicUsize,
    quit: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by `Pool::run`, which has `&mut self`, while no thread is inside the gate.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

/// A fixed number of threads, the caller's included. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` in all; fewer if the system gives no more.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let wanted = threads.max(1);
        let mut pool = Self::start(wanted);
        if pool.handles.len() + 1 < wanted {
            let got = pool.handles.len() + 1;
            drop(pool);
            pool = Self::start(got);
        }
        pool
    }

    fn start(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            threads,
            gate: Gate::default(),
            job: UnsafeCell::new(None),
            asleep: AtomicUsize::new(0),
            quit: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let spawn = |index| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("step-{index}")).spawn(move || shared.serve(index)).ok()
        };
        let handles = (1..threads).map_while(spawn).collect();
        Self { shared, handles }
    }

    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Calls `job(0)` on this thread, and `job(index)` on each other one that comes while this lasts. Returns when all
    /// that came are done; a thread that the system keeps from running is not waited for.
    pub fn run(&mut self, job: Job<'_>) {
        let shared = &*self.shared;
        // SAFETY: the lifetime is made longer for the time of this call only: whoever enters the gate is waited for.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<Job<'_>, Job<'static>>(job)) };
        shared.gate.open();
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
            shared.wake.notify_all();
        }
        job(0);
        shared.gate.close();
        spin_until(|| shared.gate.inside() == 0);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        self.shared.gate.open();
        drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for handle in self.handles.drain(..) {
            drop(handle.join());
        }
    }
}

impl Shared {
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.await_job_after(seen);
            if self.quit.load(Ordering::SeqCst) {
                return;
            }
            if self.gate.enter(seen) {
                // SAFETY: the job was written before the gate opened, and stays while somebody is inside.
                if let Some(job) = unsafe { *self.job.get() } {
                    job(index);
                }
                self.gate.leave();
            }
        }
    }

    /// The number of a job other than the `seen` one, as soon as there is one.
    fn await_job_after(&self, seen: u64) -> u64 {
        let news = || Some(self.gate.number()).filter(|&number| number != seen);
        let begin = Instant::now();
        while begin.elapsed() < AWAKE {
            for _ in 0..64 {
                if let Some(number) = news() {
                    return number;
                }
                std::hint::spin_loop();
            }
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let number = loop {
            if let Some(number) = news() {
                break number;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        number
    }
}

/// One word: the job's number, a bit that says open, and how many threads are inside.
#[derive(Default)]
struct Gate(AtomicU64);

const OPEN: u64 = 1 << 15;
const NUMBER: u64 = 1 << 16;

impl Gate {
    /// A new job. Nobody may be inside.
    fn open(&self) {
        let number = self.number();
        self.0.store(((number + 1) * NUMBER) | OPEN, Ordering::SeqCst);
    }

    fn close(&self) {
        self.0.fetch_and(!OPEN, Ordering::SeqCst);
    }

    fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst) / NUMBER
    }

    fn inside(&self) -> u64 {
        self.0.load(Ordering::Acquire) & (OPEN - 1)
    }

    /// Whether the job of this number still takes threads; then the caller is inside until it leaves.
    fn enter(&self, number: u64) -> bool {
        let may = |word: u64| (word / NUMBER == number && word & OPEN != 0).then(|| word + 1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, may).is_ok()
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

pub fn spin_until(done: impl Fn() -> bool) {
    let mut looks = 0;
    while !done() {
        looks += 1;
        if looks > PATIENCE {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Tasks 0..count shared out to threads: each takes its own stretch from the front, so that it reads memory in order,
/// and when that is done it takes from the ends of the others', so that nobody waits for a thread that does not run.
#[derive(Default)]
pub struct Tasks {
    stretches: Vec<Stretch>,
    count: AtomicUsize,
}

/// What is a thread's own, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Stretch {
    /// First task that is left, and end, in one word.
    left: AtomicU64,
    /// Tasks that the thread has done, whosever they were.
    done: AtomicUsize,
}

impl Tasks {
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let stretches = (0..threads).map(|_| Stretch::default()).collect();
        Self { stretches, ..Self::default() }
    }

    /// The first task of a thread's own stretch.
    #[must_use]
    pub fn start_of(&self, thread: usize) -> usize {
        self.count.load(Ordering::Relaxed) * thread / self.stretches.len()
    }

    /// Lays out `count` tasks anew. Nobody may be taking any.
    pub fn reset(&self, count: usize) {
        let threads = self.stretches.len();
        for (i, stretch) in self.stretches.iter().enumerate() {
            let (first, end) = (count * i / threads, count * (i + 1) / threads);
            stretch.left.store((first as u64) << 32 | end as u64, Ordering::Relaxed);
            stretch.done.store(0, Ordering::Relaxed);
        }
        self.count.store(count, Ordering::Relaxed);
    }

    /// This thread has done one more task; what it wrote is visible to who sees `finished`.
    pub fn finish(&self, thread: usize) {
        let done = &self.stretches[thread].done;
        done.store(done.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Whether all tasks are done.
    pub fn finished(&self) -> bool {
        let done: usize = self.stretches.iter().map(|stretch| stretch.done.load(Ordering::Acquire)).sum();
        done == self.count.load(Ordering::Relaxed)
    }

    /// The next task for this thread.
    pub fn take(&self, thread: usize) -> Option<usize> {
        let others = (thread + 1..self.stretches.len()).chain(0..thread);
        self.stretches[thread].first().or_else(|| others.into_iter().find_map(|other| self.stretches[other].last()))
    }
}

/// One thread's way through rounds of tasks, and how long it waited for others: a round is over when its tasks are done,
/// whoever did them. Who finds none left is `idle` ahead of the next round.
pub fn walk(rounds: &[Tasks], thread: usize, mut perform: impl FnMut(usize, usize), idle: impl Fn(usize)) -> Duration {
    let mut waited = Duration::ZERO;
    for (round, tasks) in rounds.iter().enumerate() {
        while let Some(task) = tasks.take(thread) {
            perform(round, task);
            tasks.finish(thread);
        }
        idle(round + 1);
        if !tasks.finished() {
            let begin = Instant::now();
            spin_until(|| tasks.finished());
            waited += begin.elapsed();
        }
    }
    waited
}

impl Stretch {
    fn first(&self) -> Option<usize> {
        self.change(|first, end| (first + 1, end, first))
    }

    fn last(&self) -> Option<usize> {
        self.change(|first, end| (first, end - 1, end - 1))
    }

    fn change(&self, taking: impl Fn(u64, u64) -> (u64, u64, u64)) -> Option<usize> {
        let mut word = self.left.load(Ordering::Relaxed);
        loop {
            let (first, end) = (word >> 32, word & 0xffff_ffff);
            if first >= end {
                return None;
            }
            let (first, end, taken) = taking(first, end);
            match self.left.compare_exchange_weak(word, first << 32 | end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(taken as usize),
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_in_every_round() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads);
            let rounds: Vec<Tasks> = (0..50).map(|_| Tasks::new(threads)).collect();
            let taken: Vec<AtomicUsize> = (0..97).map(|_| AtomicUsize::new(0)).collect();
            for job in 1..20 {
                rounds.iter().for_each(|tasks| tasks.reset(97));
                pool.run(&|thread| {
                    let perform = |_, task: usize| {
                        taken[task].fetch_add(1, Ordering::Relaxed);
                    };
                    walk(&rounds, thread, perform, |_| ());
                });
                assert!(taken.iter().all(|count| count.load(Ordering::Relaxed) == 50 * job));
            }
        }
    }

    #[test]
    fn jobs_reach_threads_that_sleep() {
        let mut pool = Pool::new(3);
        for _ in 0..5 {
            let came = AtomicUsize::new(0);
            pool.run(&|_| {
                came.fetch_add(1, Ordering::SeqCst);
                spin_until(|| came.load(Ordering::SeqCst) == 3);
            });
            std::thread::sleep(AWAKE * 4);
        }
    }

    #[test]
    fn a_job_is_over_for_who_comes_late() {
        let gate = Gate::default();
        gate.open();
        assert!(gate.enter(1) && gate.inside() == 1 && !gate.enter(2));
        gate.close();
        assert!(!gate.enter(1));
        gate.leave();
        assert_eq!((gate.inside(), gate.number()), (0, 1));
        gate.open();
        assert!(!gate.enter(1) && gate.enter(2));
    }
}
