//! Counts equal chunks over many texts, so that training sees each distinct chunk once.

use foldhash::HashMap;

use crate::parallel::{Queue, share};
use crate::split::{SplitError, Splitter};

/// Chunk -> how often it occurred.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ChunkCounts {
    counts: HashMap<Box<str>, u64>,
}

impl ChunkCounts {
    /// Splits `texts` and adds their chunks, on all cores.
    pub fn add_texts(&mut self, splitter: &Splitter, texts: &[String]) -> Result<(), SplitError> {
        for part in share(texts.len(), |queue| Self::of_share(splitter, texts, queue)) {
            self.merge(part?);
        }
        Ok(())
    }

    /// The chunks of the texts that this thread gets hold of.
    fn of_share(splitter: &Splitter, texts: &[String], queue: &Queue) -> Result<Self, SplitError> {
        let splitter = splitter.clone();
        let mut counts = Self::default();
        while let Some(text) = queue.take().and_then(|i| texts.get(i)) {
            counts.add_text(&splitter, text)?;
        }
        Ok(counts)
    }

    fn add_text(&mut self, splitter: &Splitter, text: &str) -> Result<(), SplitError> {
        splitter.for_each_chunk(text, |chunk| self.add(chunk, 1))
    }

    fn add(&mut self, chunk: &str, times: u64) {
        match self.counts.get_mut(chunk) {
            Some(count) => *count += times,
            None => _ = self.counts.insert(chunk.into(), times),
        }
    }

    fn merge(&mut self, other: Self) {
        if self.counts.is_empty() {
            self.counts = other.counts;
            return;
        }
        for (chunk, times) in other.counts {
            *self.counts.entry(chunk).or_insert(0) += times;
        }
    }

    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The distinct chunks as byte strings with their counts, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.counts.iter().map(|(chunk, &times)| (chunk.as_bytes(), times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::GPT4_PATTERN;

    fn count(texts: &[&str]) -> Vec<(Vec<u8>, u64)> {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_string()).collect();
        let mut counts = ChunkCounts::default();
        counts.add_texts(&Splitter::new(GPT4_PATTERN).unwrap(), &texts).unwrap();
        let mut rows: Vec<_> = counts.iter().map(|(chunk, n)| (chunk.to_vec(), n)).collect();
        rows.sort();
        rows
    }

    #[test]
    fn counts_over_all_texts() {
        assert_eq!(count(&["a a", "a", ""]), [(b" a".to_vec(), 1), (b"a".to_vec(), 2)]);
    }

    #[test]
    fn threads_do_not_change_the_counts() {
        let texts: Vec<String> = (0..500).map(|i| format!("text number {} of {}", i % 7, i % 3)).collect();
        let splitter = Splitter::new(GPT4_PATTERN).unwrap();
        let (mut together, mut one_by_one) = (ChunkCounts::default(), ChunkCounts::default());
        together.add_texts(&splitter, &texts).unwrap();
        texts.iter().for_each(|t| one_by_one.add_text(&splitter, t).unwrap());
        assert_eq!(together, one_by_one);
    }

    #[test]
    fn an_error_in_one_thread_is_the_outcome() {
        let texts = vec!["b".to_string(), "a".repeat(40_000)];
        let splitter = Splitter::new(r"(?:(?=a)a|a)*b(?<=c)").unwrap();
        assert!(ChunkCounts::default().add_texts(&splitter, &texts).is_err());
    }
}
