//! Counts equal chunks over many texts, so that training sees each distinct chunk once.
//!
//! Counting is bound by memory, not by arithmetic: a table of a million chunks is far larger than a cache. So each
//! thread has a table of its own with the chunks' bytes inside it, and looks up a batch of chunks at a time: the first
//! pass over the batch only touches the slots, and the processor waits for all of them at once.

use std::hash::{BuildHasher, RandomState};

use foldhash::HashMap;

use crate::key::{EMPTY, Key};
use crate::pages::{self, prefetch};
use crate::parallel::{Queue, share};
use crate::split::{SplitError, Splitter};

/// Chunks looked up together: enough to keep the memory busy, few enough for the processor to have all under way.
const BATCH: usize = 48;

/// The chunks of all texts so far and how often each occurred.
#[derive(Debug)]
pub struct ChunkCounts {
    /// One per thread. Until `finish`, a chunk may be in several.
    tables: Vec<Table>,
}

impl ChunkCounts {
    /// Counts on `threads` threads.
    pub fn new(threads: usize) -> Self {
        let seed = RandomState::new().hash_one(0);
        Self { tables: (0..threads.max(1)).map(|_| Table::new(seed)).collect() }
    }

    /// Splits `texts` and adds their chunks.
    pub fn add_texts(&mut self, splitter: &Splitter, texts: &[&str]) -> Result<(), SplitError> {
        let work = |table: &mut Table, queue: &Queue| {
            let splitter = splitter.clone();
            while let Some(text) = queue.take().and_then(|i| texts.get(i)) {
                table.add_text(&splitter, text)?;
            }
            Ok(())
        };
        share(texts.len(), &mut self.tables, work).into_iter().collect()
    }

    /// Brings the threads' counts together; afterwards every chunk is in exactly one table.
    ///
    /// Thread i takes the i-th part of all hashes, which is the i-th part of every table.
    pub fn finish(self) -> FinishedCounts {
        let parts = self.tables.len();
        if parts == 1 {
            return FinishedCounts { tables: self.tables };
        }
        // A new seed: chunks come in the order of the old hashes, and in a table by the same ones they would pile up.
        let seed = RandomState::new().hash_one(1);
        let mut merged: Vec<Table> = (0..parts).map(|_| Table::new(seed)).collect();
        share(parts, &mut merged, |table, queue| {
            while let Some(part) = queue.take() {
                self.tables.iter().for_each(|other| table.take_part(other, part, parts));
            }
        });
        FinishedCounts { tables: merged }
    }
}

/// Every distinct chunk with its count.
#[derive(Debug)]
pub struct FinishedCounts {
    tables: Vec<Table>,
}

impl FinishedCounts {
    /// Gives `visit` each chunk and its count, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for table in &self.tables {
            for slot in table.slots.iter().filter(|slot| !slot.key.is_empty()) {
                let (bytes, len) = slot.key.bytes();
                visit(&bytes[..len], slot.count);
            }
            table.long.iter().for_each(|(chunk, &count)| visit(chunk, count));
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    count: u64,
}

/// Open addressing with linear probing, at most two thirds full.
#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
    used: usize,
    seed: u64,
    /// 64 minus the binary logarithm of the number of slots: the high bits of a hash say where to look.
    shift: u32,
    /// Chunks that are too long for a key: one in fifty or less.
    long: HashMap<Box<[u8]>, u64>,
}

impl Table {
    fn new(seed: u64) -> Self {
        const BITS: u32 = 14;
        let slots = vec![Slot { key: EMPTY, count: 0 }; 1 << BITS];
        Self { slots, used: 0, seed, shift: u64::BITS - BITS, long: HashMap::default() }
    }

    fn add_text(&mut self, splitter: &Splitter, text: &str) -> Result<(), SplitError> {
        let bytes = text.as_bytes();
        let mut batch = Vec::new();
        splitter.for_each_batch(text, |chunks| {
            batch.resize(chunks.ends.len(), (EMPTY, 0, 1));
            let (seed, mut start) = (self.seed, chunks.start);
            for (found, &end) in batch.iter_mut().zip(chunks.ends) {
                let key = Key::new(bytes, start, end);
                (*found, start) = ((key, key.hash(seed), 1), end);
            }
            self.add_batch(&batch, |table, i| {
                let start = if i == 0 { chunks.start } else { chunks.ends[i - 1] };
                table.add_long(&bytes[start..chunks.ends[i]], 1);
            });
        })
    }

    /// Adds (chunk, hash, times) of each; of chunks that no key holds, leaves the adding to `add_long`.
    #[inline(always)]
    fn add_batch(&mut self, batch: &[(Key, u64, u64)], mut add_long: impl FnMut(&mut Self, usize)) {
        batch.iter().for_each(|(_, hash, _)| prefetch(&self.slots[self.home(*hash)]));
        for (i, &(key, hash, times)) in batch.iter().enumerate() {
            if key.is_long() { add_long(self, i) } else { self.add(key, hash, times) }
        }
    }

    fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline(always)]
    fn add(&mut self, key: Key, hash: u64, times: u64) {
        let at = self.home(hash);
        if self.slots[at].key == key {
            self.slots[at].count += times;
            return;
        }
        self.add_behind(at, key, times);
    }

    /// Adds a chunk that is not where its hash says.
    #[inline(never)]
    fn add_behind(&mut self, home: usize, key: Key, times: u64) {
        let mut at = home;
        loop {
            let slot = &mut self.slots[at];
            if slot.key == key {
                slot.count += times;
                // At its home it is found faster the next time; what stood there is found from its own home.
                self.slots.swap(at, home);
                return;
            }
            if slot.key.is_empty() {
                *slot = Slot { key, count: times };
                self.used += 1;
                if self.used * 3 > self.slots.len() * 2 {
                    self.grow();
                }
                return;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let larger = pages::filled(Slot { key: EMPTY, count: 0 }, self.slots.len() * 2);
        let old = std::mem::replace(&mut self.slots, larger);
        self.shift -= 1;
        self.used = 0;
        for slot in old.into_iter().filter(|slot| !slot.key.is_empty()) {
            self.add(slot.key, slot.key.hash(self.seed), slot.count);
        }
    }

    fn add_long(&mut self, chunk: &[u8], times: u64) {
        match self.long.get_mut(chunk) {
            Some(count) => *count += times,
            None => _ = self.long.insert(chunk.into(), times),
        }
    }

    /// Adds what `other` has counted of the hashes in part `part` of `parts`.
    fn take_part(&mut self, other: &Self, part: usize, parts: usize) {
        let belongs = |hash: u64| ((u128::from(hash) * parts as u128) >> 64) as usize == part;
        let size = other.slots.len();
        let (first, end) = (size * part / parts, size * (part + 1) / parts);
        // A chunk stands at its home or behind it, at the latest where the next gap is.
        let mut at = first;
        let (mut batch, mut waiting) = ([(EMPTY, 0, 0); BATCH], 0);
        while at < end || (!other.slots[at % size].key.is_empty() && at < first + size) {
            let Slot { key, count } = other.slots[at % size];
            at += 1;
            if !key.is_empty() && belongs(key.hash(other.seed)) {
                batch[waiting] = (key, key.hash(self.seed), count);
                waiting += 1;
            }
            if waiting == BATCH {
                self.add_batch(&batch, |_, _| ());
                waiting = 0;
            }
        }
        self.add_batch(&batch[..waiting], |_, _| ());
        for (chunk, &count) in &other.long {
            if belongs(foldhash::fast::FixedState::with_seed(self.seed).hash_one(chunk)) {
                self.add_long(chunk, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::GPT4_PATTERN;

    fn count(texts: &[&str], threads: usize) -> Vec<(Vec<u8>, u64)> {
        let mut counts = ChunkCounts::new(threads);
        counts.add_texts(&Splitter::new(GPT4_PATTERN).unwrap(), texts).unwrap();
        let mut rows = Vec::new();
        counts.finish().for_each(|chunk, n| rows.push((chunk.to_vec(), n)));
        rows.sort();
        rows
    }

    #[test]
    fn counts_over_all_texts() {
        assert_eq!(count(&["a a", "a", ""], 1), [(b" a".to_vec(), 1), (b"a".to_vec(), 2)]);
    }

    #[test]
    fn threads_do_not_change_the_counts() {
        let texts: Vec<String> =
            (0..3000).map(|i| format!("text{} number {i} of averyveryverylongword{}", i % 7, i % 3)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let alone = count(&texts, 1);
        for threads in 2..6 {
            assert_eq!(count(&texts, threads), alone);
        }
    }

    #[test]
    fn the_table_grows_and_forgets_nothing() {
        let text: String =
            (0..200_000_u32).map(|i| format!(" w{}", char::from_u32(0x4E00 + i % 20_000).unwrap())).collect();
        let rows = count(&[&text], 3);
        assert_eq!(rows.len(), 20_000);
        assert!(rows.iter().all(|(_, n)| *n == 10));
    }

    #[test]
    fn an_error_in_one_thread_is_the_outcome() {
        let runaway = "a".repeat(40_000);
        let splitter = Splitter::new(r"(?:(?=a)a|a)*b(?<=c)").unwrap();
        assert!(ChunkCounts::new(2).add_texts(&splitter, &["b", &runaway]).is_err());
    }
}
