//! The Python module: converts arguments, releases the interpreter while the core works, turns errors into exceptions.

use std::sync::{Arc, PoisonError, RwLock};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyString};

use crate::BYTES;
use crate::count::ChunkCounts;
use crate::encode::Model;
use crate::split::{GPT4_PATTERN, SplitError, Splitter};
use crate::train::learn_merges;

/// Merges between two looks at the interpreter's pending signals, so that Ctrl-C ends a training.
const SIGNAL_INTERVAL: u32 = 256;

impl From<SplitError> for PyErr {
    fn from(error: SplitError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

/// A byte-level BPE tokenizer. A new one knows the 256 bytes and GPT-4's split pattern.
#[pyclass(frozen, module = "rustbpe")]
struct Tokenizer {
    model: RwLock<Arc<Model>>,
}

impl Tokenizer {
    /// What the tokenizer is now; a training at the same time replaces it and leaves this one as it is.
    fn model(&self) -> Arc<Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new() -> PyResult<Self> {
        let model = Model::new(Splitter::new(GPT4_PATTERN)?, &[]);
        Ok(Self { model: RwLock::new(Arc::new(model)) })
    }

    /// Learn `vocab_size - 256` merges from an iterator of strings; fewer when the text has no more pairs.
    ///
    /// Texts are read `buffer_size` at a time and split by `pattern` (default: GPT-4's). On any error the tokenizer
    /// stays as it was.
    #[pyo3(signature = (iterator, vocab_size, buffer_size = 8192, pattern = None))]
    fn train_from_iterator(
        &self,
        py: Python<'_>,
        iterator: &Bound<'_, PyAny>,
        vocab_size: i64,
        buffer_size: i64,
        pattern: Option<&str>,
    ) -> PyResult<()> {
        let limit = merges_for(vocab_size)?;
        let buffer_size = usize::try_from(buffer_size)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| PyValueError::new_err(format!("buffer_size is {buffer_size}: must be at least 1")))?;
        let splitter = py.detach(|| Splitter::new(pattern.unwrap_or(GPT4_PATTERN)))?;
        let counts = count_chunks(&splitter, iterator, buffer_size)?;
        let merges = py.detach(|| learn_merges(counts.iter(), limit, check_signals))?;
        let model = py.detach(|| Model::new(splitter, &merges));
        *self.model.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(model);
        Ok(())
    }

    /// The split pattern.
    fn get_pattern(&self) -> String {
        self.model().pattern().to_owned()
    }

    /// Number of tokens: the 256 bytes and what was learned.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.model().tokens().len()
    }

    /// `(bytes, id)` of every token, in id order.
    fn get_mergeable_ranks<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, usize)> {
        self.model().tokens().iter().enumerate().map(|(id, bytes)| (PyBytes::new(py, bytes), id)).collect()
    }

    /// The token ids of a text.
    fn encode(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        let model = self.model();
        Ok(py.detach(|| model.encode(text))?)
    }

    /// The token ids of each text, on all cores.
    fn batch_encode(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Vec<Vec<u32>>> {
        let model = self.model();
        Ok(py.detach(|| model.batch_encode(&texts))?)
    }

    /// The text of token ids. Bytes that are no UTF-8, as in half a character, become U+FFFD.
    fn decode(&self, ids: Vec<u32>) -> PyResult<String> {
        let unknown = |id| PyValueError::new_err(format!("unknown token id {id}"));
        Ok(String::from_utf8_lossy(&self.model().decode(&ids).map_err(unknown)?).into_owned())
    }
}

fn merges_for(vocab_size: i64) -> PyResult<u32> {
    let wrong = |limit| PyValueError::new_err(format!("vocab_size is {vocab_size}: must be {limit}"));
    if vocab_size < i64::from(BYTES) {
        return Err(wrong("at least 256, one token per byte"));
    }
    u32::try_from(vocab_size).map(|size| size - BYTES).map_err(|_| wrong("less than 2^32"))
}

/// Reads texts under the interpreter lock, a buffer at a time, and counts each buffer without it.
fn count_chunks(splitter: &Splitter, iterator: &Bound<'_, PyAny>, buffer_size: usize) -> PyResult<ChunkCounts> {
    let py = iterator.py();
    let mut counts = ChunkCounts::default();
    let mut texts = iterator.try_iter()?;
    let mut place = 0;
    loop {
        let buffer = next_texts(&mut texts, buffer_size, place)?;
        if buffer.is_empty() {
            return Ok(counts);
        }
        place += buffer.len();
        py.detach(|| counts.add_texts(splitter, &buffer))?;
        py.check_signals()?;
    }
}

/// Up to `limit` texts; `place` is how many came before, for the message.
fn next_texts(texts: &mut Bound<'_, PyIterator>, limit: usize, place: usize) -> PyResult<Vec<String>> {
    let mut buffer = Vec::new();
    for item in texts.take(limit) {
        let item = item?;
        let text = item.cast::<PyString>().map_err(|_| {
            let kind = item.get_type();
            PyTypeError::new_err(format!("item {} of the iterator is not a string: {kind}", place + buffer.len()))
        })?;
        buffer.push(text.to_str()?.to_owned());
    }
    Ok(buffer)
}

fn check_signals(merges: u32) -> PyResult<()> {
    if merges % SIGNAL_INTERVAL == 0 { Python::attach(|py| py.check_signals()) } else { Ok(()) }
}

/// Trains byte-level BPE tokenizers, and applies them.
#[pymodule]
mod rustbpe {
    #[pymodule_export]
    use super::Tokenizer;
}
