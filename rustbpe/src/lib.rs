//! Byte-level BPE: learn merges from text, and apply them.
//!
//! The core is plain Rust, each file one idea, in the order the data takes:
//!
//! - `split` cuts a text into chunks that no merge may cross: where the pattern is a known one, `sweep` by hand, 64 bytes
//!   in a step with bit `masks`, and `scan` chunk by chunk with the character `classes`; else a regex engine;
//!   `batch` hands the chunks out many at a time;
//! - `count` counts equal chunks over many texts, on several threads, by their `key`;
//! - `train` learns merges from the counted chunks, which `words` holds;
//! - `blocks` reads text files piece by piece;
//! - `encode` turns texts into ids: `merge` one chunk, `cache` remembers it.
//!
//! `parallel` spreads work over the cores, `pages` asks for memory in large pages. `python`, `cpu_step` and
//! `row_kernels` are the only parts that know of Python. No input makes this crate panic.

mod batch;
pub mod blocks;
mod cache;
mod classes;
pub mod count;
pub mod encode;
mod key;
mod masks;
pub mod merge;
mod pages;
pub mod parallel;
mod scan;
pub mod split;
mod sweep;
pub mod train;
pub mod words;

#[cfg(feature = "python")]
mod cpu_step;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "python")]
mod row_kernels;

/// Tokens 0..=255 are the single bytes.
pub const BYTES: u32 = 256;

/// Two neighbouring token ids.
pub type Pair = (u32, u32);
