//! The class `Tokenizer`.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::arguments::{merges_for, positive, replaces, thread_count};
use super::arrays::to_numpy;
use super::texts::Texts;
use super::training::Training;
use crate::encode::{Model, tokens_of};
use crate::parallel::cores;
use crate::split::{GPT4_PATTERN, Splitter};

/// A byte-level BPE tokenizer. A new one knows the 256 bytes and GPT-4's split pattern.
#[pyclass(frozen, module = "rustbpe")]
pub struct Tokenizer {
    model: RwLock<Arc<Model>>,
}

impl Tokenizer {
    /// What the tokenizer is now; a training at the same time replaces it and leaves this one as it is.
    fn model(&self) -> Arc<Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, model: Model) {
        *self.model.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(model);
    }
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new() -> PyResult<Self> {
        let model = Model::new(Splitter::new(GPT4_PATTERN)?, tokens_of(&[]))?;
        Ok(Self { model: RwLock::new(Arc::new(model)) })
    }

    /// A tokenizer with known tokens: `ranks` are (bytes, id), ids 0, 1, ... in order.
    #[staticmethod]
    fn from_ranks(py: Python<'_>, pattern: &str, ranks: Vec<(Vec<u8>, usize)>) -> PyResult<Self> {
        if let Some((place, _)) = ranks.iter().enumerate().find(|(place, (_, id))| place != id) {
            return Err(PyValueError::new_err(format!("item {place} of the ranks does not have the id {place}")));
        }
        let tokens = ranks.into_iter().map(|(bytes, _)| bytes).collect();
        let model = py.detach(|| Ok::<_, PyErr>(Model::new(Splitter::new(pattern)?, tokens)?))?;
        Ok(Self { model: RwLock::new(Arc::new(model)) })
    }

    /// Learn `vocab_size - 256` merges from an iterator of strings; fewer when the text has no more pairs.
    ///
    /// Texts are read `buffer_size` at a time and split by `pattern` (default: GPT-4's) on `threads` threads (default:
    /// all cores). `progress(documents, megabytes_per_second, merges)` is called now and then; what it raises ends the
    /// training. On any error the tokenizer stays as it was.
    #[pyo3(signature = (iterator, vocab_size, buffer_size = 8192, pattern = None, *, threads = None, progress = None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn train_from_iterator(
        &self,
        py: Python<'_>,
        iterator: &Bound<'_, PyAny>,
        vocab_size: i64,
        buffer_size: i64,
        pattern: Option<&str>,
        threads: Option<i64>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let limit = merges_for(vocab_size)?;
        let buffer_size = positive("buffer_size", buffer_size)?;
        let mut training = Training::new(py, pattern, threads, progress)?;
        training.count_iterator(iterator, buffer_size)?;
        self.replace(training.finish(limit)?);
        Ok(())
    }

    /// As `train_from_iterator`, from files: the column `text_column` of .parquet files, the field `text_column` of
    /// each line of .jsonl files, and any other file as one text.
    ///
    /// `errors` says what to do with a text or JSONL file that is not UTF-8: "strict" raises a ValueError with the file
    /// and the byte, "replace" reads U+FFFD.
    #[pyo3(signature = (paths, vocab_size, pattern = None, threads = None, progress = None, text_column = "text",
                        errors = "strict"))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn train_from_files(
        &self,
        py: Python<'_>,
        paths: Vec<PathBuf>,
        vocab_size: i64,
        pattern: Option<&str>,
        threads: Option<i64>,
        progress: Option<Bound<'_, PyAny>>,
        text_column: &str,
        errors: &str,
    ) -> PyResult<()> {
        let limit = merges_for(vocab_size)?;
        let replace = replaces(errors)?;
        let mut training = Training::new(py, pattern, threads, progress)?;
        for path in paths {
            training.count_file(&path, text_column, replace)?;
        }
        self.replace(training.finish(limit)?);
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

    /// The token ids of each text, on all cores, as lists. `encode_flat` is many times faster.
    fn batch_encode(&self, py: Python<'_>, texts: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Vec<u32>>> {
        let model = self.model();
        let texts = Texts::of(texts)?;
        let texts = texts.strs()?;
        let flat = py.detach(|| model.encode_batch(&texts, &[], &[], cores()))?;
        let starts = std::iter::once(0).chain(flat.ends.iter().copied());
        Ok(starts.zip(&flat.ends).map(|(start, &end)| flat.ids[start..end].to_vec()).collect())
    }

    /// The ids of all texts in a row and where each text starts: numpy arrays `ids` (uint32) and `offsets` (int64, one
    /// more than there are texts). Text i is `ids[offsets[i]:offsets[i + 1]]`, ids `before` and `after` it included.
    /// With `small`, `ids` are uint16; a ValueError if an id does not fit.
    #[pyo3(signature = (texts, before = Vec::new(), after = Vec::new(), threads = None, small = false))]
    fn encode_flat<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyAny>>,
        before: Vec<u32>,
        after: Vec<u32>,
        threads: Option<i64>,
        small: bool,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let model = self.model();
        let threads = thread_count(threads)?;
        let largest = before.iter().chain(&after).copied().max().unwrap_or(0).max(model.tokens().len() as u32 - 1);
        if small && largest > u32::from(u16::MAX) {
            return Err(PyValueError::new_err(format!("id {largest} does not fit into 16 bits")));
        }
        let texts = Texts::of(texts)?;
        let texts = texts.strs()?;
        let flat = py.detach(|| model.encode_batch(&texts, &before, &after, threads))?;
        let offsets: Vec<i64> = std::iter::once(0).chain(flat.ends.iter().map(|&end| end as i64)).collect();
        let ids = if small {
            to_numpy(py, flat.ids.iter().map(|&id| id as u16).collect::<Vec<_>>())?
        } else {
            to_numpy(py, flat.ids)?
        };
        Ok((ids, to_numpy(py, offsets)?))
    }

    /// The text of token ids. Bytes that are no UTF-8, as in half a character, become U+FFFD.
    fn decode(&self, ids: Vec<u32>) -> PyResult<String> {
        let unknown = |id| PyValueError::new_err(format!("unknown token id {id}"));
        Ok(String::from_utf8_lossy(&self.model().decode(&ids).map_err(unknown)?).into_owned())
    }
}
