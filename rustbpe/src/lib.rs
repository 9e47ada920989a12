//! Byte-level BPE: learn merges from text, and apply them.
//!
//! The core is plain Rust in four files with one idea each, in the order the data takes:
//!
//! - `split` cuts a text into chunks that no merge may cross;
//! - `count` counts equal chunks over many texts, on several threads;
//! - `train` learns merges from counted chunks;
//! - `encode` applies learned merges to a text and turns ids back into bytes.
//!
//! `parallel` spreads work over the cores. `python` is the only file that knows of Python. No input makes this crate
//! panic.

pub mod count;
pub mod encode;
mod parallel;
pub mod split;
pub mod train;

#[cfg(feature = "python")]
mod python;

/// Tokens 0..=255 are the single bytes.
pub const BYTES: u32 = 256;

/// Two neighbouring token ids.
pub type Pair = (u32, u32);
