//! Rows over threads, each with the widest instructions that this processor has.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Work on a range of rows, those of different ranges independent of each other.
pub trait Rows: Sync {
    /// Implementations are `#[inline(always)]`, so that they are compiled anew for every instruction set.
    ///
    /// # Safety
    /// The memory that `self` speaks of is there, and nobody else uses the rows in `range`.
    unsafe fn rows(&self, range: Range<usize>);
}

/// Do all `count` rows, `grain` at a time, on up to `threads` threads, the caller's among them.
///
/// # Safety
/// As for every range below `count` of [`Rows::rows`].
pub unsafe fn spread<R: Rows>(work: &R, count: usize, grain: usize, threads: usize) {
    let next = AtomicUsize::new(0);
    let grain = grain.max(1);
    let take_all = || loop {
        let start = next.fetch_add(grain, Ordering::Relaxed);
        if start >= count {
            break;
        }
        // SAFETY: this range is taken once
        unsafe { best(work, start..count.min(start + grain)) };
    };
    let helpers = threads.min(count.div_ceil(grain)).saturating_sub(1);
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            // where the system gives no thread, the others do its share
            let _ = std::thread::Builder::new().spawn_scoped(scope, take_all);
        }
        take_all();
    });
}

#[cfg(target_arch = "x86_64")]
unsafe fn best<R: Rows>(work: &R, range: Range<usize>) {
    // SAFETY: the processor has been asked
    unsafe {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            avx512(work, range);
        } else if is_x86_feature_detected!("avx2") {
            avx2(work, range);
        } else {
            work.rows(range);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<R: Rows>(work: &R, range: Range<usize>) {
    unsafe { work.rows(range) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<R: Rows>(work: &R, range: Range<usize>) {
    unsafe { work.rows(range) };
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn best<R: Rows>(work: &R, range: Range<usize>) {
    unsafe { work.rows(range) };
}

/// Rows of `width` numbers in one share: some tens of microseconds of work.
#[must_use]
pub fn grain(width: usize) -> usize {
    (1 << 16) / width.max(1) + 1
}

/// Elements that are one row where the work knows no rows.
pub const STRETCH: usize = 1024;

/// Where the elements of some such rows start, and how many of the `count` they are.
#[inline(always)]
pub(crate) fn stretch(rows: Range<usize>, count: usize) -> (usize, usize) {
    let start = (rows.start * STRETCH).min(count);
    (start, (rows.end * STRETCH).min(count) - start)
}
