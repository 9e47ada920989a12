//! What a training step on a CPU does between its matrix products: norms, rotation, relu², softmax, the loss.
//!
//! A tensor library reads and writes the whole tensor for each small operation, and memory is what these wait for. Here
//! each function goes over its rows once, several steps of arithmetic at a time, while they lie in the first caches:
//!
//! - `numbers` are the two precisions that tensors come in, and the functions that are computed in float32 for both;
//! - `spread` shares rows out to threads and chooses the instruction set;
//! - `norm`, `rotary`, `relu`, `softmax` and `loss` are the functions, each with its gradient; `add` adds gradients up.
//!
//! A row's result depends on that row alone: neither the number of threads nor the instruction set changes a bit.
//! The crate knows nothing of Python, tensor libraries and models. No input makes it panic.

pub mod add;
pub mod loss;
pub mod norm;
pub mod numbers;
pub mod relu;
pub mod rotary;
pub mod softmax;
pub mod spread;

pub use numbers::{Bf16, Number};
pub use spread::{Rows, spread};
