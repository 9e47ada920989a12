//! Numbers and words from Python, checked.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::BYTES;
use crate::parallel::cores;

/// How many merges make a vocabulary of this size.
pub fn merges_for(vocab_size: i64) -> PyResult<u32> {
    let wrong = |limit| PyValueError::new_err(format!("vocab_size is {vocab_size}: must be {limit}"));
    if vocab_size < i64::from(BYTES) {
        return Err(wrong("at least 256, one token per byte"));
    }
    u32::try_from(vocab_size).map(|size| size - BYTES).map_err(|_| wrong("less than 2^32"))
}

pub fn positive(name: &str, value: i64) -> PyResult<usize> {
    let wrong = || PyValueError::new_err(format!("{name} is {value}: must be at least 1"));
    usize::try_from(value).ok().filter(|&size| size > 0).ok_or_else(wrong)
}

pub fn thread_count(threads: Option<i64>) -> PyResult<usize> {
    threads.map_or_else(|| Ok(cores()), |threads| positive("threads", threads))
}

/// Whether invalid UTF-8 is to be replaced.
pub fn replaces(errors: &str) -> PyResult<bool> {
    match errors {
        "strict" => Ok(false),
        "replace" => Ok(true),
        _ => Err(PyValueError::new_err(format!("errors is '{errors}': must be 'strict' or 'replace'"))),
    }
}
