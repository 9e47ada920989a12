//! A training under way: counts what it is given, tells how far it is, and learns the merges in the end.

use std::thread;
use std::time::Instant;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::arguments::thread_count;
use super::texts::Texts;
use crate::count::ChunkCounts;
use crate::encode::{Model, tokens_of};
use crate::split::{GPT4_PATTERN, Splitter};
use crate::train::{learn_merges, words_of};

/// Merges between two looks at the interpreter's pending signals, so that Ctrl-C ends a training.
const SIGNAL_INTERVAL: u32 = 256;
/// Texts are counted when they are this many bytes together, however few they are.
pub const BUFFER_BYTES: usize = 32 << 20;

/// What was counted, and whom to tell.
pub struct Training<'py> {
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
    pub fn new(
        py: Python<'py>,
        pattern: Option<&str>,
        threads: Option<i64>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let splitter = py.detach(|| Splitter::new(pattern.unwrap_or(GPT4_PATTERN)))?;
        let counts = ChunkCounts::new(thread_count(threads)?);
        Ok(Self { py, splitter, counts, progress, started: Instant::now(), documents: 0, bytes: 0, speed: 0.0 })
    }

    pub fn py(&self) -> Python<'py> {
        self.py
    }

    /// Counts the texts that `read` gives, call by call until there are none, while it reads the next ones.
    pub fn count_all(&mut self, mut read: impl FnMut(usize) -> PyResult<Texts<'py>>) -> PyResult<()> {
        let mut texts = read(self.documents)?;
        while !texts.is_empty() {
            let documents = self.documents + texts.len();
            let next = self.count_while(&texts.strs()?, texts.len(), || read(documents))?;
            texts = next?;
        }
        Ok(())
    }

    /// Counts `texts`, which are `documents` documents, while `read`, which may use Python, does its work.
    pub fn count_while<R>(&mut self, texts: &[&str], documents: usize, read: impl FnOnce() -> R) -> PyResult<R> {
        let (py, counts, splitter) = (self.py, &mut self.counts, &self.splitter);
        let read = thread::scope(|scope| {
            let counting = scope.spawn(|| counts.add_texts(splitter, texts));
            let read = read();
            let counted = py.detach(|| counting.join());
            counted.map_err(|_| PyRuntimeError::new_err("a thread that counted text failed"))??;
            PyResult::Ok(read)
        })?;
        self.documents += documents;
        self.bytes += texts.iter().map(|text| text.len()).sum::<usize>();
        self.speed = self.bytes as f64 / 1e6 / self.started.elapsed().as_secs_f64();
        self.tell(0)?;
        Ok(read)
    }

    /// Looks for Ctrl-C and calls the callback.
    fn tell(&self, merges: u32) -> PyResult<()> {
        self.py.check_signals()?;
        match &self.progress {
            Some(progress) => progress.call1((self.documents, self.speed, merges)).map(drop),
            None => Ok(()),
        }
    }

    /// Reads texts under the interpreter lock, a buffer at a time, while the buffer before is counted without it.
    pub fn count_iterator(&mut self, iterator: &Bound<'py, PyAny>, buffer_size: usize) -> PyResult<()> {
        let mut items = iterator.try_iter()?;
        self.count_all(|place| {
            let mut texts = Texts::default();
            while texts.len() < buffer_size && texts.bytes() < BUFFER_BYTES {
                let Some(item) = items.next() else { break };
                texts.push(item?, "the iterator", place)?;
            }
            Ok(texts)
        })
    }

    /// The model of up to `limit` merges.
    pub fn finish(mut self, limit: u32) -> PyResult<Model> {
        let py = self.py;
        let counts = std::mem::replace(&mut self.counts, ChunkCounts::new(1));
        let too_large = |_| PyValueError::new_err("the chunks of the text that differ are more than 4 GB");
        let words = py
            .detach(|| {
                let counts = counts.finish();
                words_of(|visit| counts.for_each(visit))
            })
            .map_err(too_large)?;
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
