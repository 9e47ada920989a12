//! How fast these threads read memory when they do nothing else: the measure that a step is held against.

use std::hint::black_box;
use std::time::Instant;

use crate::kernels::Kernels;
use crate::pool::Pool;

/// Bytes per second at which all threads together read `memory` once, each its own part of it.
pub fn read_speed(pool: &mut Pool, kernels: &Kernels, memory: &[f32]) -> f64 {
    let threads = pool.threads();
    let begin = Instant::now();
    pool.run(&|thread| {
        let part = memory.len() * thread / threads..memory.len() * (thread + 1) / threads;
        // SAFETY: the table is one of those that this processor can run
        black_box(unsafe { (kernels.read)(memory.get(part).unwrap_or_default()) });
    });
    size_of_val(memory) as f64 / begin.elapsed().as_secs_f64()
}
