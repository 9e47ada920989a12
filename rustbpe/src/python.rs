//! The Python module: converts arguments, releases the interpreter while the core works, turns errors into exceptions.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use pyo3::exceptions::{PyKeyError, PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyByteArray, PyBytes, PyString};

use crate::BYTES;
use crate::blocks::{BlockError, Blocks, decode};
use crate::count::ChunkCounts;
use crate::encode::{Model, tokens_of};
use crate::merge::VocabularyError;
use crate::parallel::cores;
use crate::split::{GPT4_PATTERN, SplitError, Splitter};
use crate::train::{learn_merges, words_of};

/// Merges between two looks at the interpreter's pending signals, so that Ctrl-C ends a training.
const SIGNAL_INTERVAL: u32 = 256;
/// Texts are counted when they are this many bytes together, however few they are.
const BUFFER_BYTES: usize = 64 << 20;
/// Blocks of a text file that are counted together: enough for many threads.
const BLOCKS: usize = 16;

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
        let replace = match errors {
            "strict" => false,
            "replace" => true,
            _ => return Err(PyValueError::new_err(format!("errors is '{errors}': must be 'strict' or 'replace'"))),
        };
        let mut training = Training::new(py, pattern, threads, progress)?;
        for path in paths {
            match path.extension().and_then(|suffix| suffix.to_str()) {
                Some("parquet") => training.count_parquet(&path, text_column)?,
                Some("jsonl") => training.count_jsonl(&path, text_column, replace)?,
                _ => training.count_text(&path, replace)?,
            }
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
        let texts = Buffer::of(texts)?;
        let texts = texts.strs()?;
        let flat = py.detach(|| model.encode_batch(&texts, &[], &[], cores()))?;
        let ids = flat.parts.concat();
        let starts = std::iter::once(0).chain(flat.ends.iter().copied());
        Ok(starts.zip(&flat.ends).map(|(start, &end)| ids[start..end].to_vec()).collect())
    }

    /// The ids of all texts in a row and where each text starts: numpy arrays `ids` (uint32) and `offsets` (int64, one
    /// more than there are texts). Text i is `ids[offsets[i]:offsets[i + 1]]`, ids `before` and `after` it included.
    #[pyo3(signature = (texts, before = Vec::new(), after = Vec::new(), threads = None))]
    fn encode_flat<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyAny>>,
        before: Vec<u32>,
        after: Vec<u32>,
        threads: Option<i64>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let model = self.model();
        let threads = thread_count(threads)?;
        let texts = Buffer::of(texts)?;
        let texts = texts.strs()?;
        let flat = py.detach(|| model.encode_batch(&texts, &before, &after, threads))?;
        let parts: Vec<&[u32]> = flat.parts.iter().map(Vec::as_slice).collect();
        let offsets: Vec<i64> = std::iter::once(0).chain(flat.ends.iter().map(|&end| end as i64)).collect();
        Ok((to_numpy(py, &parts, "uint32", u32::to_ne_bytes)?, to_numpy(py, &[&offsets], "int64", i64::to_ne_bytes)?))
    }

    /// The text of token ids. Bytes that are no UTF-8, as in half a character, become U+FFFD.
    fn decode(&self, ids: Vec<u32>) -> PyResult<String> {
        let unknown = |id| PyValueError::new_err(format!("unknown token id {id}"));
        Ok(String::from_utf8_lossy(&self.model().decode(&ids).map_err(unknown)?).into_owned())
    }
}

/// A numpy array over a bytearray, so that it can be written to and nothing is copied twice.
fn to_numpy<'py, T: Copy, const N: usize>(
    py: Python<'py>,
    parts: &[&[T]],
    dtype: &str,
    bytes_of: impl Fn(T) -> [u8; N],
) -> PyResult<Bound<'py, PyAny>> {
    let items = parts.iter().map(|part| part.len()).sum::<usize>();
    let array = PyByteArray::new_with(py, items * N, |bytes| {
        let (bytes, _) = bytes.as_chunks_mut::<N>();
        bytes.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(place, &item)| *place = bytes_of(item));
        Ok(())
    })?;
    py.import("numpy")?.call_method1("frombuffer", (array, dtype))
}

fn merges_for(vocab_size: i64) -> PyResult<u32> {
    let wrong = |limit| PyValueError::new_err(format!("vocab_size is {vocab_size}: must be {limit}"));
    if vocab_size < i64::from(BYTES) {
        return Err(wrong("at least 256, one token per byte"));
    }
    u32::try_from(vocab_size).map(|size| size - BYTES).map_err(|_| wrong("less than 2^32"))
}

fn positive(name: &str, value: i64) -> PyResult<usize> {
    let wrong = || PyValueError::new_err(format!("{name} is {value}: must be at least 1"));
    usize::try_from(value).ok().filter(|&size| size > 0).ok_or_else(wrong)
}

fn thread_count(threads: Option<i64>) -> PyResult<usize> {
    threads.map_or_else(|| Ok(cores()), |threads| positive("threads", threads))
}

/// Texts that Python owns, readable while other Python threads run.
enum Text<'py> {
    /// ASCII is UTF-8 as it stands.
    Ascii(Bound<'py, PyString>),
    /// A copy: asked for its UTF-8, a Python string would keep one for as long as it lives.
    Utf8(Bound<'py, PyBytes>),
}

#[derive(Default)]
struct Buffer<'py> {
    texts: Vec<Text<'py>>,
    bytes: usize,
}

impl<'py> Buffer<'py> {
    fn of(items: Vec<Bound<'py, PyAny>>) -> PyResult<Self> {
        let mut buffer = Self::default();
        items.into_iter().try_for_each(|item| buffer.push(item, "the list", 0))?;
        Ok(buffer)
    }

    /// Adds a text; `place` is how many came before this buffer, for the message.
    fn push(&mut self, item: Bound<'py, PyAny>, whole: &str, place: usize) -> PyResult<()> {
        let text = item.cast_into::<PyString>().map_err(|error| {
            let (item, kind) = (place + self.texts.len(), error.into_inner().get_type());
            PyTypeError::new_err(format!("item {item} of {whole} is not a string: {kind}"))
        })?;
        let text = if text.call_method0("isascii")?.is_truthy()? {
            self.bytes += text.len()?;
            Text::Ascii(text)
        } else {
            let bytes = text.encode_utf8()?;
            self.bytes += bytes.as_bytes().len();
            Text::Utf8(bytes)
        };
        self.texts.push(text);
        Ok(())
    }

    fn strs<'a>(&'a self) -> PyResult<Vec<&'a str>> {
        let str_of = |text: &'a Text<'py>| match text {
            Text::Ascii(text) => text.to_str(),
            Text::Utf8(bytes) => Ok(std::str::from_utf8(bytes.as_bytes())?),
        };
        self.texts.iter().map(str_of).collect()
    }
}

/// A training under way: what was counted, and whom to tell.
struct Training<'py> {
    py: Python<'py>,
    splitter: Splitter,
    counts: ChunkCounts,
    progress: Option<Bound<'py, PyAny>>,
    started: Instant,
    documents: usize,
    bytes: usize,
    /// Megabytes per second while counting.
    speed: f64,
}

impl<'py> Training<'py> {
    fn new(
        py: Python<'py>,
        pattern: Option<&str>,
        threads: Option<i64>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let splitter = py.detach(|| Splitter::new(pattern.unwrap_or(GPT4_PATTERN)))?;
        let counts = ChunkCounts::new(thread_count(threads)?);
        Ok(Self { py, splitter, counts, progress, started: Instant::now(), documents: 0, bytes: 0, speed: 0.0 })
    }

    fn count(&mut self, texts: &[&str], documents: usize) -> PyResult<()> {
        self.py.detach(|| self.counts.add_texts(&self.splitter, texts))?;
        self.documents += documents;
        self.bytes += texts.iter().map(|text| text.len()).sum::<usize>();
        self.speed = self.bytes as f64 / 1e6 / self.started.elapsed().as_secs_f64();
        self.tell(0)
    }

    /// Looks for Ctrl-C and calls the callback.
    fn tell(&self, merges: u32) -> PyResult<()> {
        self.py.check_signals()?;
        match &self.progress {
            Some(progress) => progress.call1((self.documents, self.speed, merges)).map(drop),
            None => Ok(()),
        }
    }

    /// Reads texts under the interpreter lock, a buffer at a time, and counts each buffer without it.
    fn count_iterator(&mut self, iterator: &Bound<'py, PyAny>, buffer_size: usize) -> PyResult<()> {
        let mut texts = iterator.try_iter()?;
        loop {
            let mut buffer = Buffer::default();
            while buffer.texts.len() < buffer_size && buffer.bytes < BUFFER_BYTES {
                let Some(item) = texts.next() else { break };
                buffer.push(item?, "the iterator", self.documents)?;
            }
            if buffer.texts.is_empty() {
                return Ok(());
            }
            self.count(&buffer.strs()?, buffer.texts.len())?;
        }
    }

    /// Parquet is read by pyarrow, a row group at a time: a reader in Rust would triple the time to build this crate,
    /// and unpacking is a tenth of the work.
    fn count_parquet(&mut self, path: &Path, column: &str) -> PyResult<()> {
        let py = self.py;
        let unreadable = |error: PyErr| {
            if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyKeyError>(py) {
                let cause = error.value(py);
                return PyValueError::new_err(format!("{}: not a readable parquet file: {cause}", path.display()));
            }
            error
        };
        let read_group = |file: &Bound<'py, PyAny>, group: usize| {
            let wanted = [("columns", [column])].into_py_dict(py)?;
            let columns = file.call_method("read_row_group", (group,), Some(&wanted))?;
            columns.call_method1("column", (column,))?.call_method0("to_pylist")
        };
        let file = py.import("pyarrow.parquet")?.call_method1("ParquetFile", (path,)).map_err(unreadable)?;
        for group in 0..file.getattr("num_row_groups")?.extract()? {
            let texts = read_group(&file, group).map_err(unreadable)?;
            let place = self.documents;
            let mut buffer = Buffer::default();
            let whole = format!("{}, counted over all files,", path.display());
            texts.try_iter()?.try_for_each(|text| buffer.push(text?, &whole, place))?;
            self.count(&buffer.strs()?, buffer.texts.len())?;
        }
        Ok(())
    }

    fn count_jsonl(&mut self, path: &Path, field: &str, replace: bool) -> PyResult<()> {
        let loads = self.py.import("json")?.getattr("loads")?;
        let mut lines = BufReader::new(File::open(path).map_err(|e| io_error(e, path))?);
        let (mut offset, mut number, mut buffer) = (0, 0, Buffer::default());
        loop {
            let mut line = Vec::new();
            let read = lines.read_until(b'\n', &mut line).map_err(|e| io_error(e, path))?;
            if read == 0 || buffer.bytes >= BUFFER_BYTES {
                self.count(&buffer.strs()?, buffer.texts.len())?;
                buffer = Buffer::default();
            }
            if read == 0 {
                return Ok(());
            }
            number += 1;
            let line = decode(line, offset, replace).map_err(|e| block_error(e, path))?;
            offset += read as u64;
            if line.trim().is_empty() {
                continue;
            }
            let text = loads.call1((line,)).and_then(|value| value.get_item(field)).map_err(|error| {
                PyValueError::new_err(format!("{}, line {number}: no text '{field}': {error}", path.display()))
            })?;
            if !text.is_instance_of::<PyString>() {
                let kind = text.get_type();
                let message = format!("{}, line {number}: '{field}' is not a string: {kind}", path.display());
                return Err(PyTypeError::new_err(message));
            }
            buffer.push(text, "the file", 0)?;
        }
    }

    fn count_text(&mut self, path: &Path, replace: bool) -> PyResult<()> {
        let file = File::open(path).map_err(|e| io_error(e, path))?;
        let mut blocks = Blocks::new(file, replace);
        loop {
            let some: Result<Vec<String>, BlockError> = self.py.detach(|| blocks.by_ref().take(BLOCKS).collect());
            let some = some.map_err(|e| block_error(e, path))?;
            if some.is_empty() {
                self.documents += 1;
                return Ok(());
            }
            self.count(&some.iter().map(String::as_str).collect::<Vec<_>>(), 0)?;
        }
    }

    fn finish(mut self, limit: u32) -> PyResult<Model> {
        let py = self.py;
        let counts = std::mem::replace(&mut self.counts, ChunkCounts::new(1));
        let too_large = |_| PyValueError::new_err("the chunks of the text that differ are more than 4 GB");
        let words = py.detach(|| words_of(|visit| counts.finish().for_each(visit))).map_err(too_large)?;
        let progress = self.progress.clone().map(Bound::unbind);
        let (documents, speed, each) = (self.documents, self.speed, (limit / 100).max(1));
        let tell = |merges: u32| {
            if !merges.is_multiple_of(SIGNAL_INTERVAL) && !merges.is_multiple_of(each) {
                return Ok(());
            }
            Python::attach(|py| {
                py.check_signals()?;
                match &progress {
                    Some(progress) if merges.is_multiple_of(each) => {
                        progress.call1(py, (documents, speed, merges)).map(drop)
                    }
                    _ => Ok(()),
                }
            })
        };
        let merges = py.detach(|| learn_merges(words, limit, tell))?;
        self.tell(merges.len() as u32)?;
        let splitter = self.splitter;
        Ok(py.detach(|| Model::new(splitter, tokens_of(&merges)))?)
    }
}

/// With the file's name, as Python's own `open` has it.
fn io_error(error: std::io::Error, path: &Path) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string(), path.to_owned())),
        None => PyOSError::new_err(format!("{}: {error}", path.display())),
    }
}

fn block_error(error: BlockError, path: &Path) -> PyErr {
    match error {
        BlockError::Io(error) => io_error(error, path),
        BlockError::Utf8(_) => PyValueError::new_err(format!("{}: {error}", path.display())),
    }
}

/// Trains byte-level BPE tokenizers, and applies them.
#[pymodule]
mod rustbpe {
    #[pymodule_export]
    use super::Tokenizer;
    #[pymodule_export]
    use crate::cpu_step::CpuStep;
}
