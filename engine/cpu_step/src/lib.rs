//! One decode step of a GPT on a CPU: a token in, the logits of the next one out, as fast as the weights can be read.
//!
//! A step does next to no arithmetic per byte, so everything here serves reading memory without a pause:
//!
//! - `kernels` are the inner loops, for each instruction set, chosen at run time;
//! - `pool` keeps threads at hand and shares out rows of matrices;
//! - `model` says where the weights lie (this crate copies none of them);
//! - `step` is the door, `walk` leads all threads through the layers, product by product, and `tasks` is what they do
//!   there;
//! - `prompt` is the same for many tokens of one sequence at once, where arithmetic is what counts;
//! - `net` is what both do to single tokens;
//! - `rows` are the sequences that take part: each has a cache and a position of its own, and all share one reading of
//!   the weights;
//! - `quantize` turns float32 weights into int8 ones;
//! - `probe` measures how fast the same threads read memory when they do nothing else.
//!
//! The crate knows nothing of Python, tensor libraries, files, texts or sampling. No input makes it panic.

pub mod kernels;
pub mod model;
mod net;
pub mod pool;
pub mod probe;
mod prompt;
pub mod quantize;
pub mod rows;
mod scratch;
pub mod step;
mod tasks;
mod walk;

pub use kernels::MOST;
pub use kernels::attend::Stored;
pub use model::{Backout, Format, Layer, Matrix, Mix, Model, Shape, Smear, Unfit, ValueEmbedding};
pub use prompt::MOST_TOKENS;
pub use rows::Row;
pub use step::Stepper;
