//! Spreads work over threads.

use std::num::NonZero;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// As many threads as the machine can run at once.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs `work` on one thread per element of `states` (at most one per item) and returns what each returned.
///
/// All get the same queue of item numbers, so that a few long items do not leave the other threads idle.
pub fn share<S: Send, R: Send>(items: usize, states: &mut [S], work: impl Fn(&mut S, &Queue) -> R + Sync) -> Vec<R> {
    let queue = Queue { next: AtomicUsize::new(0), items };
    let threads = states.len().min(items.max(1));
    let states = &mut states[..threads];
    if let [only] = states {
        return vec![work(only, &queue)];
    }
    let (work, queue) = (&work, &queue);
    thread::scope(|scope| {
        let workers: Vec<_> = states.iter_mut().map(|state| scope.spawn(move || work(state, queue))).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|cause| panic::resume_unwind(cause))).collect()
    })
}

/// Item numbers 0..n, each handed out once.
pub struct Queue {
    next: AtomicUsize,
    items: usize,
}

impl Queue {
    pub fn take(&self) -> Option<usize> {
        let item = self.next.fetch_add(1, Ordering::Relaxed);
        (item < self.items).then_some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_handed_out_once() {
        for (n, threads) in [(0, 3), (1, 3), (2, 3), (1000, 1), (1000, 3)] {
            let mut taken = vec![Vec::new(); threads];
            share(n, &mut taken, |mine, queue| mine.extend(std::iter::from_fn(|| queue.take())));
            let mut items = taken.concat();
            items.sort_unstable();
            assert_eq!(items, (0..n).collect::<Vec<_>>());
        }
    }
}
