//! Spreads work over the machine's cores.

use std::num::NonZero;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Runs `work` on as many threads as there are cores (at most one per item) and returns what each returned.
///
/// Each gets the same queue of item numbers, so that a few long items do not leave the other threads idle.
pub fn share<R: Send>(items: usize, work: impl Fn(&Queue) -> R + Sync) -> Vec<R> {
    let queue = Queue { next: AtomicUsize::new(0), items };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items);
    if threads <= 1 {
        return vec![work(&queue)];
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&queue))).collect();
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
        for n in [0, 1, 2, 1000] {
            let parts = share(n, |queue| std::iter::from_fn(|| queue.take()).collect::<Vec<_>>());
            let mut items = parts.concat();
            items.sort_unstable();
            assert_eq!(items, (0..n).collect::<Vec<_>>());
        }
    }
}
