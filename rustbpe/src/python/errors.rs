//! The core's errors as Python exceptions.

use std::path::Path;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::blocks::BlockError;
use crate::merge::VocabularyError;
use crate::split::SplitError;

impl From<SplitError> for PyErr {
    fn from(error: SplitError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<VocabularyError> for PyErr {
    fn from(error: VocabularyError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

/// With the file's name, as Python's own `open` has it.
pub fn io_error(error: std::io::Error, path: &Path) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string(), path.to_owned())),
        None => PyOSError::new_err(format!("{}: {error}", path.display())),
    }
}

pub fn block_error(error: BlockError, path: &Path) -> PyErr {
    match error {
        BlockError::Io(error) => io_error(error, path),
        BlockError::Utf8(_) => PyValueError::new_err(format!("{}: {error}", path.display())),
    }
}
