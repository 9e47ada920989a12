//! Remembers the tokens of whole chunks: text repeats its words, so most chunks cost one look into a table.

use foldhash::HashMap;

use crate::batch::Chunks;
use crate::key::{EMPTY, Key, MAX_LEN};
use crate::merge::Merges;
use crate::pages::{self, prefetch};

/// Short chunks remembered at most; then it starts anew. With 32 bytes a slot the table stays below 34 MB.
const MAX_SLOTS: usize = 1 << 20;
/// Long chunks remembered at most, and the longest that is.
const MAX_LONG: usize = 1 << 17;
const MAX_LONG_LEN: usize = 128;

/// The tokens of a chunk: their number is the last element. Up to three ids stand before it, more of them are in
/// `Cache::ids` from the place that the first element says.
type Tokens = [u32; 4];

/// Ids that stand in a slot.
const INLINE: u32 = 3;

/// Ids read together where there are more.
const SLACK: usize = MAX_LEN + 1;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    tokens: Tokens,
}

/// The slots in which a chunk is looked for first: one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([Slot; 2]);

const FREE: Line = Line([Slot { key: EMPTY, tokens: [0; 4] }; 2]);

/// One thread's memory. It starts out with the vocabulary, since a chunk that is a token is that token.
#[derive(Debug, Clone)]
pub struct Cache {
    /// A chunk is in the line that its hash says or in one behind it, at the latest where the next gap is.
    lines: Vec<Line>,
    used: usize,
    seed: u64,
    /// Ids of chunks of four tokens and more, and then as many that are none as a read may go too far.
    ids: Vec<u32>,
    long: HashMap<Box<[u8]>, Tokens>,
    vocabulary_long: usize,
    /// Scratch memory of `encode_batch`.
    batch: Vec<(Key, usize)>,
    made: Vec<u32>,
}

impl Cache {
    pub fn new(tokens: &[Vec<u8>], seed: u64) -> Self {
        let mut cache = Self {
            lines: pages::filled(FREE, tokens.len().next_power_of_two().max(512)),
            used: 0,
            seed,
            ids: vec![0; SLACK],
            batch: Vec::new(),
            made: Vec::new(),
            long: HashMap::default(),
            vocabulary_long: 0,
        };
        for (id, token) in tokens.iter().enumerate() {
            let found = [id as u32, 0, 0, 1];
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

    /// Appends the tokens of each chunk.
    ///
    /// As many ids are written as a slot has, and the next chunk's over those that do not count: how many count is no
    /// question that the processor could guess wrong.
    #[inline(always)]
    pub fn encode_batch(&mut self, text: &[u8], chunks: Chunks<'_>, merges: &Merges, out: &mut Vec<u32>) {
        let mut batch = std::mem::take(&mut self.batch);
        let mut made = std::mem::take(&mut self.made);
        batch.resize(batch.len().max(chunks.ends.len()), (EMPTY, 0));
        made.resize(made.len().max((chunks.ends.len() + 1) * SLACK), 0);
        let (lines, seed) = (self.lines.as_slice(), self.seed);
        let mut start = chunks.start;
        for (found, &end) in batch.iter_mut().zip(chunks.ends) {
            let key = Key::new(text, start, end);
            let home = key.hash(seed) as usize & (lines.len() - 1);
            prefetch(&lines[home]);
            (*found, start) = ((key, home), end);
        }
        let mut n = 0;
        for (&(key, home), (start, end)) in batch.iter().zip(chunks.spans()) {
            let Line(line) = &self.lines[home];
            let slot = &line[usize::from(line[0].key != key)];
            let mut tokens = slot.tokens;
            if slot.key != key {
                if key.is_long() {
                    out.extend_from_slice(&made[..n]);
                    n = 0;
                    self.encode_long(&text[start..end], merges, out);
                    continue;
                }
                tokens = self.find_or_encode(key, merges);
            }
            if tokens[3] <= INLINE {
                made[n..n + 4].copy_from_slice(&tokens);
            } else {
                let place = tokens[0] as usize;
                made[n..n + SLACK].copy_from_slice(&self.ids[place..place + SLACK]);
            }
            n += tokens[3] as usize;
        }
        out.extend_from_slice(&made[..n]);
        (self.batch, self.made) = (batch, made);
    }

    /// Appends the tokens of a chunk of more than `MAX_LEN` bytes.
    fn encode_long(&mut self, chunk: &[u8], merges: &Merges, out: &mut Vec<u32>) {
        if let Some(&tokens) = self.long.get(chunk) {
            let count = tokens[3] as usize;
            match tokens[3] {
                ..=INLINE => out.extend_from_slice(&tokens[..count]),
                _ => out.extend_from_slice(&self.ids[tokens[0] as usize..][..count]),
            }
            return;
        }
        let first = out.len();
        merges.encode(chunk, out);
        if chunk.len() <= MAX_LONG_LEN {
            let tokens = self.remember(&out[first..]);
            self.long.insert(chunk.into(), tokens);
        }
    }

    /// The tokens of a chunk that is not in the line where it is looked for first.
    #[inline(never)]
    fn find_or_encode(&mut self, key: Key, merges: &Merges) -> Tokens {
        let (home, (line, place)) = (self.home(key), self.place_of(key));
        let found = self.lines[line].0[place];
        if !found.key.is_empty() {
            // Nearer to its home it is found faster the next time; what stood there is found from its own home.
            self.lines[line].0[place] = std::mem::replace(&mut self.lines[home].0[1], found);
            return found.tokens;
        }
        let (bytes, len) = key.bytes();
        let mut ids = Vec::with_capacity(MAX_LEN);
        merges.encode(&bytes[..len], &mut ids);
        let tokens = self.remember(&ids);
        self.insert(key, tokens);
        tokens
    }

    /// Line and place where a chunk is, or where it would be.
    fn place_of(&self, key: Key) -> (usize, usize) {
        let mut at = self.home(key);
        loop {
            if let Some(i) = self.lines[at].0.iter().position(|slot| slot.key == key || slot.key.is_empty()) {
                return (at, i);
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    fn remember(&mut self, ids: &[u32]) -> Tokens {
        let mut tokens = [0, 0, 0, ids.len() as u32];
        if ids.len() as u32 <= INLINE {
            tokens[..ids.len()].copy_from_slice(ids);
        } else {
            let place = self.ids.len() - SLACK;
            tokens[0] = place as u32;
            self.ids.truncate(place);
            self.ids.extend_from_slice(ids);
            self.ids.extend_from_slice(&[0; SLACK]);
        }
        tokens
    }

    #[inline(always)]
    fn home(&self, key: Key) -> usize {
        key.hash(self.seed) as usize & (self.lines.len() - 1)
    }

    /// Adds a chunk that is not there yet.
    fn insert(&mut self, key: Key, tokens: Tokens) {
        if self.used * 3 > self.lines.len() * 4 {
            let larger = pages::filled(FREE, self.lines.len() * 2);
            let old = std::mem::replace(&mut self.lines, larger);
            self.used = 0;
            let slots = old.into_iter().flat_map(|line| line.0);
            slots.filter(|slot| !slot.key.is_empty()).for_each(|slot| self.insert(slot.key, slot.tokens));
        }
        let (line, place) = self.place_of(key);
        self.lines[line].0[place] = Slot { key, tokens };
        self.used += 1;
    }
}
