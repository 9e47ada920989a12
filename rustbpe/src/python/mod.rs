//! The Python module: converts arguments, releases the interpreter while the core works, turns errors into exceptions.
//!
//! `tokenizer` is the class; `texts` and `arrays` are what goes in and what comes out; `training` and `files` feed the
//! core with text and tell how far it is; `arguments` and `errors` speak of what was wrong.

mod arguments;
mod arrays;
mod errors;
mod files;
mod texts;
mod tokenizer;
mod training;

use pyo3::prelude::*;

/// Trains byte-level BPE tokenizers, and applies them.
#[pymodule]
mod rustbpe {
    #[pymodule_export]
    use super::tokenizer::Tokenizer;
    #[pymodule_export]
    use crate::cpu_step::CpuStep;
    #[pymodule_export]
    use crate::row_kernels::RowKernels;
}
