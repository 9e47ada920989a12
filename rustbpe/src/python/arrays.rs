//! Numbers handed to numpy where they lie: nothing is copied.

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The memory behind a numpy array. It is numpy's alone, so that may write to it.
#[pyclass(frozen, module = "rustbpe")]
struct Memory {
    numbers: Numbers,
}

pub(super) enum Numbers {
    U16(Vec<u16>),
    U32(Vec<u32>),
    I64(Vec<i64>),
}

impl From<Vec<u16>> for Numbers {
    fn from(numbers: Vec<u16>) -> Self {
        Self::U16(numbers)
    }
}

impl From<Vec<u32>> for Numbers {
    fn from(numbers: Vec<u32>) -> Self {
        Self::U32(numbers)
    }
}

impl From<Vec<i64>> for Numbers {
    fn from(numbers: Vec<i64>) -> Self {
        Self::I64(numbers)
    }
}

#[pymethods]
impl Memory {
    /// What numpy asks an object for that has memory of its own: type, length and address.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (kind, len, address) = match &self.numbers {
            Numbers::U16(numbers) => ("u2", numbers.len(), numbers.as_ptr() as usize),
            Numbers::U32(numbers) => ("u4", numbers.len(), numbers.as_ptr() as usize),
            Numbers::I64(numbers) => ("i8", numbers.len(), numbers.as_ptr() as usize),
        };
        let order = if cfg!(target_endian = "little") { "<" } else { ">" };
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", (len,))?;
        interface.set_item("typestr", format!("{order}{kind}"))?;
        interface.set_item("data", (address, false))?;
        Ok(interface)
    }
}

pub(super) fn to_numpy<'py>(py: Python<'py>, numbers: impl Into<Numbers>) -> PyResult<Bound<'py, PyAny>> {
    py.import("numpy")?.call_method1("asarray", (Memory { numbers: numbers.into() },))
}
