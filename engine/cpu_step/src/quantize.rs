//! Weights into one byte each, before there is a model: every row on its own, on several threads.

use crate::kernels::available;
use crate::pool::{Pool, Tasks};

/// Rows in one task.
const ROWS: usize = 32;

/// Where a matrix (rows, cols) is read from, and where its numbers and the scales of its rows go.
#[derive(Clone, Copy)]
pub struct Quantize {
    pub from: *const f32,
    pub rows: usize,
    pub cols: usize,
    pub numbers: *mut i8,
    pub scales: *mut f32,
}

// SAFETY: the threads write disjoint rows.
unsafe impl Send for Quantize {}
unsafe impl Sync for Quantize {}

/// # Safety
/// The memory must be as large as `work` says, and be used by nobody else meanwhile.
pub unsafe fn quantize(work: Quantize, threads: usize) {
    let kernels = available().swap_remove(0);
    let mut pool = Pool::new(threads);
    let (tasks, count) = (Tasks::new(pool.threads()), work.rows.div_ceil(ROWS));
    tasks.reset(count);
    pool.run(&|thread| {
        let work = &work;
        while let Some(task) = tasks.take(thread) {
            for row in task * ROWS..work.rows.min((task + 1) * ROWS) {
                // SAFETY: promised by the caller; every row is in one task
                unsafe {
                    let from = std::slice::from_raw_parts(work.from.add(row * work.cols), work.cols);
                    let to = std::slice::from_raw_parts_mut(work.numbers.add(row * work.cols), work.cols);
                    *work.scales.add(row) = (kernels.quantize_row)(from, to);
                }
            }
        }
    });
}
