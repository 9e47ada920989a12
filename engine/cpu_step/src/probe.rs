//! How fast these threads read memory when they do nothing else: the measure that a step is held against.

use std::hint::black_box;
use std::time::Instant;

use crate::kernels::Kernels;
use crate::pool::{Pool, Tasks};

/// Floats in one task.
const PART: usize = 1 << 18;

/// Bytes per second at which all threads together read `memory` once, each its own stretch of it.
pub fn read_speed(pool: &mut Pool, kernels: &Kernels, memory: &[f32]) -> f64 {
    let tasks = Tasks::new(pool.threads());
    tasks.reset(memory.len().div_ceil(PART));
    let begin = Instant::now();
    pool.run(&|thread| {
        while let Some(task) = tasks.take(thread) {
            let part = task * PART..memory.len().min((task + 1) * PART);
            // SAFETY: the table is one of those that this processor can run
            black_box(unsafe { (kernels.read)(memory.get(part).unwrap_or_default()) });
        }
    });
    size_of_val(memory) as f64 / begin.elapsed().as_secs_f64()
}
