//! Memory that the threads of a step write into side by side, each its own places.

use std::cell::UnsafeCell;

/// Numbers that several threads may write at once.
pub struct Shared(Box<[UnsafeCell<f32>]>);

// SAFETY: callers of the unsafe functions see to it that nobody reads what another writes before a barrier.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(len: usize) -> Self {
        Self((0..len).map(|_| UnsafeCell::new(0.0)).collect())
    }

    pub fn ptr(&self, at: usize) -> *mut f32 {
        debug_assert!(at <= self.0.len());
        self.0.as_ptr().wrapping_add(at).cast_mut().cast()
    }

    /// # Safety
    /// Nobody writes there meanwhile, and `at + len` is inside.
    pub unsafe fn read(&self, at: usize, len: usize) -> &[f32] {
        debug_assert!(at + len <= self.0.len());
        unsafe { std::slice::from_raw_parts(self.ptr(at), len) }
    }

    /// # Safety
    /// Nobody else reads or writes there meanwhile, and `at + len` is inside.
    #[expect(clippy::mut_from_ref, reason = "that is the point of it")]
    pub unsafe fn write(&self, at: usize, len: usize) -> &mut [f32] {
        debug_assert!(at + len <= self.0.len());
        unsafe { std::slice::from_raw_parts_mut(self.ptr(at), len) }
    }
}

/// What one thread needs for itself: vectors prepared for a product, and the product's results.
pub struct Local {
    /// Vectors side by side, `stride` apart, as f32 or, in the first half of each, as i16.
    pub x: Vec<f32>,
    pub stride: usize,
    /// What a whole number of a quantised vector is worth.
    pub unit: [f32; crate::MOST],
    pub out: Vec<f32>,
    pub vector: Vec<f32>,
}

impl Local {
    pub fn new(longest: usize, out: usize) -> Self {
        let stride = longest.next_multiple_of(16);
        Self {
            x: vec![0.0; stride * crate::MOST],
            stride,
            unit: [0.0; crate::MOST],
            out: vec![0.0; out],
            vector: vec![0.0; longest],
        }
    }
}

/// One of each thread.
pub struct PerThread<T>(Box<[UnsafeCell<T>]>);

// SAFETY: each thread uses the one of its own number.
unsafe impl<T: Send> Sync for PerThread<T> {}

impl<T> PerThread<T> {
    pub fn new(threads: usize, one: impl Fn() -> T) -> Self {
        Self((0..threads).map(|_| UnsafeCell::new(one())).collect())
    }

    /// # Safety
    /// Only the thread of this number may ask, once per job.
    #[expect(clippy::mut_from_ref, reason = "one per thread")]
    pub unsafe fn of(&self, thread: usize) -> &mut T {
        unsafe { &mut *self.0[thread].get() }
    }
}
