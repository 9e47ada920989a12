//! Training text from files, never a whole one in memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyString};

use super::errors::{block_error, io_error};
use super::texts::Texts;
use super::training::{BUFFER_BYTES, Training};
use crate::blocks::{BlockError, Blocks, decode};

/// Blocks of a text file that are counted together: enough for many threads.
const BLOCKS: usize = 16;
/// Rows of a parquet file that are unpacked together.
const ROWS: usize = 1024;
/// The longest line of a JSONL file: its text is in memory twice, as JSON and as a string.
const LONGEST_LINE: usize = 64 << 20;

impl<'py> Training<'py> {
    /// Counts a file of the kind that its name says; any other is one text.
    pub fn count_file(&mut self, path: &Path, text_column: &str, replace: bool) -> PyResult<()> {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("parquet") => self.count_parquet(path, text_column),
            Some("jsonl") => self.count_jsonl(path, text_column, replace),
            _ => self.count_text(path, replace),
        }
    }

    /// Parquet is read by pyarrow: a reader in Rust would triple the time to build this crate, and unpacking is a tenth
    /// of the work.
    fn count_parquet(&mut self, path: &Path, column: &str) -> PyResult<()> {
        let py = self.py();
        let unreadable = |error: PyErr| {
            if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyKeyError>(py) {
                let cause = error.value(py);
                return PyValueError::new_err(format!("{}: not a readable parquet file: {cause}", path.display()));
            }
            error
        };
        let wanted = [("batch_size", ROWS.into_pyobject(py)?.into_any()), ("columns", [column].into_pyobject(py)?)];
        let file = py.import("pyarrow.parquet")?.call_method1("ParquetFile", (path,)).map_err(unreadable)?;
        file.getattr("schema_arrow")?.call_method1("field", (column,)).map_err(unreadable)?;
        let batches = file.call_method("iter_batches", (), Some(&wanted.into_py_dict(py)?)).map_err(unreadable)?;
        let mut batches = batches.try_iter()?;
        let whole = format!("{}, counted over all files,", path.display());
        self.count_all(|place| {
            let mut texts = Texts::default();
            while texts.bytes() < BUFFER_BYTES {
                let Some(batch) = batches.next() else { break };
                let rows = batch.and_then(|batch| batch.call_method1("column", (column,))).map_err(unreadable)?;
                let rows = rows.call_method0("to_pylist").map_err(unreadable)?;
                rows.try_iter()?.try_for_each(|text| texts.push(text?, &whole, place))?;
            }
            Ok(texts)
        })
    }

    fn count_jsonl(&mut self, path: &Path, field: &str, replace: bool) -> PyResult<()> {
        let file = File::open(path).map_err(|e| io_error(e, path))?;
        let mut lines = Lines {
            path,
            file: BufReader::new(file),
            loads: self.py().import("json")?.getattr("loads")?,
            offset: 0,
            number: 0,
        };
        self.count_all(|_| {
            let mut texts = Texts::default();
            while texts.bytes() < BUFFER_BYTES {
                let Some(text) = lines.next_text(field, replace)? else { break };
                texts.push(text, "the file", 0)?;
            }
            Ok(texts)
        })
    }

    fn count_text(&mut self, path: &Path, replace: bool) -> PyResult<()> {
        let file = File::open(path).map_err(|e| io_error(e, path))?;
        let mut blocks = Blocks::new(file, replace);
        let py = self.py();
        let mut read = || -> PyResult<Vec<String>> {
            let some: Result<_, BlockError> = py.detach(|| blocks.by_ref().take(BLOCKS).collect());
            some.map_err(|e| block_error(e, path))
        };
        let mut some = read()?;
        while !some.is_empty() {
            let texts: Vec<&str> = some.iter().map(String::as_str).collect();
            some = self.count_while(&texts, 0, &mut read)??;
        }
        self.count_while(&[], 1, || ())
    }
}

/// The lines of a JSONL file.
struct Lines<'a, 'py> {
    path: &'a Path,
    file: BufReader<File>,
    loads: Bound<'py, PyAny>,
    /// Bytes and lines read.
    offset: u64,
    number: usize,
}

impl<'py> Lines<'_, 'py> {
    /// The text of the next line that is not empty.
    fn next_text(&mut self, field: &str, replace: bool) -> PyResult<Option<Bound<'py, PyAny>>> {
        while let Some(line) = self.next_line(replace)? {
            if line.trim().is_empty() {
                continue;
            }
            let value = self.loads.call1((line,)).and_then(|value| value.get_item(field));
            let text = value.map_err(|error| self.wrong(&format!("no text '{field}': {error}")))?;
            if !text.is_instance_of::<PyString>() {
                let message = format!("'{field}' is not a string: {}", text.get_type());
                return Err(PyTypeError::new_err(self.place(&message)));
            }
            return Ok(Some(text));
        }
        Ok(None)
    }

    fn next_line(&mut self, replace: bool) -> PyResult<Option<String>> {
        let mut line = Vec::new();
        let mut limited = self.file.by_ref().take(LONGEST_LINE as u64 + 1);
        let read = limited.read_until(b'\n', &mut line).map_err(|e| io_error(e, self.path))?;
        self.number += 1;
        if read == 0 {
            return Ok(None);
        }
        if read > LONGEST_LINE {
            let megabytes = LONGEST_LINE >> 20;
            return Err(self.wrong(&format!("longer than {megabytes} MB: a document has a line of its own")));
        }
        let line = decode(line, self.offset, replace).map_err(|e| block_error(e, self.path))?;
        self.offset += read as u64;
        Ok(Some(line))
    }

    fn wrong(&self, what: &str) -> PyErr {
        PyValueError::new_err(self.place(what))
    }

    fn place(&self, what: &str) -> String {
        format!("{}, line {}: {what}", self.path.display(), self.number)
    }
}
