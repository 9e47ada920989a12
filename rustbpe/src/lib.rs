use pyo3::prelude::*;

#[pymodule]
mod rustbpe {
    #[pymodule_init]
    fn init(_m: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> { Ok(()) }
}
