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
    /// Counts jobs; a change is the signal to run `job`.
    epoch: AtomicU64,
    job: UnsafeCell<Option<Job<'static>>>,
    running: AtomicUsize,
    asleep: AtomicUsize,
    quit: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by `Pool::run`, which has `&mut self`, while no thread runs one.
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
            epoch: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            running: AtomicUsize::new(0),
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

    /// Calls `job(index)` once on every thread, index 0 on this one, and returns when all are done.
    pub fn run(&mut self, job: Job<'_>) {
        let shared = &*self.shared;
        // SAFETY: the lifetime is made longer for the time of this call only, which waits for every thread to be done.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<Job<'_>, Job<'static>>(job)) };
        shared.running.store(shared.threads - 1, Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
            shared.wake.notify_all();
        }
        job(0);
        spin_until(|| shared.running.load(Ordering::Acquire) == 0);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
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
            self.await_epoch_after(seen);
            if self.quit.load(Ordering::SeqCst) {
                return;
            }
            seen += 1;
            // SAFETY: the job was written before the epoch changed, and is not touched until `running` is 0.
            if let Some(job) = unsafe { *self.job.get() } {
                job(index);
            }
            self.running.fetch_sub(1, Ordering::Release);
        }
    }

    fn await_epoch_after(&self, seen: u64) {
        let news = || self.epoch.load(Ordering::SeqCst) != seen;
        let begin = Instant::now();
        loop {
            for _ in 0..64 {
                if news() {
                    return;
                }
                std::hint::spin_loop();
            }
            if begin.elapsed() > AWAKE {
                break;
            }
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while !news() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

fn spin_until(done: impl Fn() -> bool) {
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

/// Lets threads of one job wait for each other, again and again.
#[derive(Default)]
pub struct Barrier {
    arrived: AtomicUsize,
    generation: AtomicUsize,
}

impl Barrier {
    /// Returns once all of `threads` have called it. What they wrote before is then visible.
    pub fn wait(&self, threads: usize) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
        } else {
            spin_until(|| self.generation.load(Ordering::Acquire) != generation);
        }
    }
}

/// Tasks 0..count shared out to threads: each takes its own stretch from the front, so that it reads memory in order,
/// and when that is done it takes from the ends of the others', so that nobody waits for a thread that was interrupted.
#[derive(Default)]
pub struct Tasks {
    stretches: Vec<Stretch>,
}

/// First task and end, in one word. On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Stretch(AtomicU64);

impl Tasks {
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { stretches: (0..threads).map(|_| Stretch::default()).collect() }
    }

    /// The first task of a thread's own stretch and the first behind it.
    #[must_use]
    pub fn stretch(&self, thread: usize, count: usize) -> (usize, usize) {
        let threads = self.stretches.len();
        (count * thread / threads, count * (thread + 1) / threads)
    }

    /// Sets one thread's stretch. Nobody may be taking tasks.
    pub fn reset(&self, thread: usize, count: usize) {
        let (first, end) = self.stretch(thread, count);
        self.stretches[thread].0.store((first as u64) << 32 | end as u64, Ordering::Relaxed);
    }

    /// The next task for this thread.
    pub fn take(&self, thread: usize) -> Option<usize> {
        let others = (thread + 1..self.stretches.len()).chain(0..thread);
        self.stretches[thread].first().or_else(|| others.into_iter().find_map(|other| self.stretches[other].last()))
    }
}

impl Stretch {
    fn first(&self) -> Option<usize> {
        self.change(|first, end| (first + 1, end, first))
    }

    fn last(&self) -> Option<usize> {
        self.change(|first, end| (first, end - 1, end - 1))
    }

    fn change(&self, taking: impl Fn(u64, u64) -> (u64, u64, u64)) -> Option<usize> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (first, end) = (word >> 32, word & 0xffff_ffff);
            if first >= end {
                return None;
            }
            let (first, end, taken) = taking(first, end);
            match self.0.compare_exchange_weak(word, first << 32 | end, Ordering::Relaxed, Ordering::Relaxed) {
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
    fn every_task_is_taken_once_in_every_round() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads);
            let (tasks, barrier) = ([Tasks::new(threads), Tasks::new(threads)], Barrier::default());
            let taken: Vec<AtomicUsize> = (0..97).map(|_| AtomicUsize::new(0)).collect();
            (0..threads).for_each(|thread| tasks[0].reset(thread, 97));
            pool.run(&|thread| {
                for round in 0..50 {
                    while let Some(task) = tasks[round % 2].take(thread) {
                        taken[task].fetch_add(1, Ordering::Relaxed);
                    }
                    tasks[(round + 1) % 2].reset(thread, 97);
                    barrier.wait(threads);
                }
            });
            assert!(taken.iter().all(|count| count.load(Ordering::Relaxed) == 50));
        }
    }

    #[test]
    fn jobs_reach_threads_that_sleep() {
        let mut pool = Pool::new(3);
        let calls = AtomicUsize::new(0);
        for _ in 0..5 {
            pool.run(&|_| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            std::thread::sleep(AWAKE * 4);
        }
        assert_eq!(calls.load(Ordering::Relaxed), 15);
    }
}
