//! Remembers the tokens of whole chunks: text repeats its words, so most chunks cost one look into a table.

use std::hint::black_box;

use foldhash::HashMap;

use crate::key::{EMPTY, Key, MAX_LEN};
use crate::merge::Merges;

/// Chunks looked up together, as in counting.
pub const BATCH: usize = 32;
/// Short chunks remembered at most; then it starts anew. With 24 bytes a slot the table stays below 26 MB.
const MAX_SLOTS: usize = 1 << 20;
/// Long chunks remembered at most, and the longest that is.
const MAX_LONG: usize = 1 << 17;
const MAX_LONG_LEN: usize = 128;

/// The tokens of a chunk: an id if it is one token, else a place in `Cache::ids`.
#[derive(Debug, Clone, Copy, Default)]
struct Tokens {
    count: u32,
    id_or_place: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    tokens: Tokens,
}

/// One thread's memory. It starts out with the vocabulary, since a chunk that is a token is that token.
#[derive(Debug, Clone)]
pub struct Cache {
    slots: Vec<Slot>,
    used: usize,
    shift: u32,
    seed: u64,
    ids: Vec<u32>,
    long: HashMap<Box<[u8]>, Tokens>,
    vocabulary_long: usize,
}

impl Cache {
    pub fn new(tokens: &[Vec<u8>], seed: u64) -> Self {
        let bits = (tokens.len() * 2).next_power_of_two().trailing_zeros().max(10);
        let slots = vec![Slot { key: EMPTY, tokens: Tokens::default() }; 1 << bits];
        let mut cache = Self {
            slots,
            used: 0,
            shift: u64::BITS - bits,
            seed,
            ids: Vec::new(),
            long: HashMap::default(),
            vocabulary_long: 0,
        };
        for (id, token) in tokens.iter().enumerate() {
            let found = Tokens { count: 1, id_or_place: id as u32 };
            if token.len() > MAX_LEN {
                cache.long.insert(token.as_slice().into(), found);
            } else if !token.is_empty() {
                cache.insert(Key::new(token, 0, token.len()), found);
            }
        }
        cache.vocabulary_long = cache.long.len();
        cache
    }

    /// Whether it is time to start anew from a copy of what it was at first.
    pub fn is_full(&self) -> bool {
        self.used * 3 > MAX_SLOTS * 2 || self.long.len() > self.vocabulary_long + MAX_LONG
    }

    #[inline(always)]
    pub fn key(&self, text: &[u8], start: usize, end: usize) -> (Key, u64) {
        let key = Key::new(text, start, end);
        (key, key.hash(self.seed))
    }

    /// Appends the tokens of each chunk of up to `MAX_LEN` bytes.
    #[inline(always)]
    pub fn encode_batch(&mut self, batch: &[(Key, u64)], merges: &Merges, out: &mut Vec<u32>) {
        let touched = batch.iter().fold(0, |sum, (_, hash)| sum ^ self.slots[self.home(*hash)].tokens.count);
        black_box(touched);
        for &(key, hash) in batch {
            match self.find(key, hash) {
                Some(tokens) if tokens.count == 1 => out.push(tokens.id_or_place),
                Some(tokens) => self.emit(tokens, out),
                None => self.encode_new(key, merges, out),
            }
        }
    }

    /// Appends the tokens of a chunk of more than `MAX_LEN` bytes.
    pub fn encode_long(&mut self, chunk: &[u8], merges: &Merges, out: &mut Vec<u32>) {
        if let Some(&tokens) = self.long.get(chunk) {
            return self.emit(tokens, out);
        }
        let first = out.len();
        merges.encode(chunk, out);
        if chunk.len() <= MAX_LONG_LEN {
            let tokens = self.remember(&out[first..]);
            self.long.insert(chunk.into(), tokens);
        }
    }

    fn emit(&self, tokens: Tokens, out: &mut Vec<u32>) {
        let place = tokens.id_or_place as usize;
        match tokens.count {
            1 => out.push(tokens.id_or_place),
            count => out.extend_from_slice(&self.ids[place..place + count as usize]),
        }
    }

    #[inline(never)]
    fn encode_new(&mut self, key: Key, merges: &Merges, out: &mut Vec<u32>) {
        let (bytes, len) = key.bytes();
        let first = out.len();
        merges.encode(&bytes[..len], out);
        let tokens = self.remember(&out[first..]);
        self.insert(key, tokens);
    }

    fn remember(&mut self, ids: &[u32]) -> Tokens {
        if let [id] = ids {
            return Tokens { count: 1, id_or_place: *id };
        }
        let place = self.ids.len() as u32;
        self.ids.extend_from_slice(ids);
        Tokens { count: ids.len() as u32, id_or_place: place }
    }

    fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline(always)]
    fn find(&self, key: Key, hash: u64) -> Option<Tokens> {
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            if slot.key == key {
                return Some(slot.tokens);
            }
            if slot.key.is_empty() {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a chunk that is not there yet.
    fn insert(&mut self, key: Key, tokens: Tokens) {
        if self.used * 3 > self.slots.len() * 2 {
            let larger = vec![Slot { key: EMPTY, tokens: Tokens::default() }; self.slots.len() * 2];
            let old = std::mem::replace(&mut self.slots, larger);
            (self.shift, self.used) = (self.shift - 1, 0);
            old.into_iter().filter(|slot| !slot.key.is_empty()).for_each(|slot| self.insert(slot.key, slot.tokens));
        }
        let mut at = self.home(key.hash(self.seed));
        while !self.slots[at].key.is_empty() {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = Slot { key, tokens };
        self.used += 1;
    }
}
