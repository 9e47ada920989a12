//! Memory for large tables: in large pages, and fetched before it is needed.
//!
//! A table that is looked into at random places costs the processor a search for the page per look, far fewer when a
//! page has two megabytes, and a wait for the memory, which is short when the look was announced.

/// Bytes from which on it is worth it.
#[cfg(target_os = "linux")]
const LARGE: usize = 4 << 20;

/// An empty vector with room for `len` elements.
pub fn with_capacity<T>(len: usize) -> Vec<T> {
    let memory = Vec::<T>::with_capacity(len);
    #[cfg(target_os = "linux")]
    advise(memory.as_ptr().cast::<u8>(), len * size_of::<T>());
    memory
}

/// `len` times the same.
pub fn filled<T: Clone>(element: T, len: usize) -> Vec<T> {
    let mut table = with_capacity(len);
    table.resize(len, element);
    table
}

/// Has `place` fetched into the nearest cache while the processor does something else.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the place is there, and fetching it changes nothing that can be seen.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(target_os = "linux")]
fn advise(start: *const u8, bytes: usize) {
    if bytes < LARGE {
        return;
    }
    let page = LARGE / 2;
    let skip = start.align_offset(page).min(bytes);
    let whole = (bytes - skip) / page * page;
    // SAFETY: a whole number of pages, all of them ours; the advice changes nothing that can be seen, and a kernel that
    // does not take it is as good.
    unsafe { libc::madvise(start.add(skip).cast_mut().cast(), whole, libc::MADV_HUGEPAGE) };
}
