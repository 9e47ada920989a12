//! Applies learned merges to a text, and turns ids back into bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foldhash::{HashMap, HashMapExt};

use crate::Pair;
use crate::parallel::{Queue, share};
use crate::split::{SplitError, Splitter};

/// No neighbour on this side.
const NONE: usize = usize::MAX;

/// A trained tokenizer: immutable, so threads share it.
#[derive(Debug)]
pub struct Model {
    splitter: Splitter,
    merges: HashMap<Pair, u32>,
    /// Bytes of each token, by id.
    tokens: Vec<Vec<u8>>,
}

impl Model {
    /// `merges` in the order learned. A merge of tokens that do not exist yet is ignored: training makes none.
    pub fn new(splitter: Splitter, merges: &[Pair]) -> Self {
        let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
        let mut ids = HashMap::with_capacity(merges.len());
        for &(left, right) in merges {
            let (Some(a), Some(b)) = (tokens.get(left as usize), tokens.get(right as usize)) else { continue };
            let joined = [a.as_slice(), b.as_slice()].concat();
            ids.insert((left, right), tokens.len() as u32);
            tokens.push(joined);
        }
        Self { splitter, merges: ids, tokens }
    }

    pub fn pattern(&self) -> &str {
        self.splitter.pattern()
    }

    /// The bytes of every token, in id order.
    pub fn tokens(&self) -> &[Vec<u8>] {
        &self.tokens
    }

    pub fn encode(&self, text: &str) -> Result<Vec<u32>, SplitError> {
        self.encode_with(&self.splitter, text)
    }

    /// The ids of each text, on all cores.
    pub fn batch_encode(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, SplitError> {
        let mut all = vec![Vec::new(); texts.len()];
        for part in share(texts.len(), |queue| self.encode_share(texts, queue)) {
            for (place, ids) in part? {
                all[place] = ids;
            }
        }
        Ok(all)
    }

    /// The places and ids of the texts that this thread gets hold of.
    fn encode_share(&self, texts: &[String], queue: &Queue) -> Result<Vec<(usize, Vec<u32>)>, SplitError> {
        let splitter = self.splitter.clone();
        let mut part = Vec::new();
        while let Some(place) = queue.take() {
            part.push((place, self.encode_with(&splitter, &texts[place])?));
        }
        Ok(part)
    }

    fn encode_with(&self, splitter: &Splitter, text: &str) -> Result<Vec<u32>, SplitError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        splitter.for_each_chunk(text, |chunk| self.encode_chunk(chunk.as_bytes(), &mut ids))?;
        Ok(ids)
    }

    /// The bytes of `ids` put together, or the first id that is no token.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>, u32> {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.tokens.get(id as usize).ok_or(id)?);
        }
        Ok(bytes)
    }

    /// Merges the neighbours whose token was learned first, leftmost first, until none can be merged.
    ///
    /// Tokens are a linked list over the chunk's bytes, so a merge costs O(log n), not a pass over the chunk.
    fn encode_chunk(&self, chunk: &[u8], out: &mut Vec<u32>) {
        let mut list = TokenList::new(chunk);
        let mut heap = BinaryHeap::new();
        for at in 0..chunk.len() {
            self.offer(&list, at, &mut heap);
        }
        while let Some(Reverse((id, at))) = heap.pop() {
            if self.merge_at(&list, at) != Some(id) {
                continue; // one of the two was merged with another in the meantime
            }
            list.join(at, id);
            self.offer(&list, list.left[at], &mut heap);
            self.offer(&list, at, &mut heap);
        }
        out.extend(list.ids.into_iter().filter(|&id| id != GONE));
    }

    fn offer(&self, list: &TokenList, at: usize, heap: &mut BinaryHeap<Reverse<(u32, usize)>>) {
        if let Some(id) = self.merge_at(list, at) {
            heap.push(Reverse((id, at)));
        }
    }

    /// The token that the one at `at` and its right neighbour make.
    fn merge_at(&self, list: &TokenList, at: usize) -> Option<u32> {
        let left = *list.ids.get(at)?;
        let right = *list.ids.get(list.right[at])?;
        self.merges.get(&(left, right)).copied()
    }
}

/// An id that marks a place whose token was joined to its left neighbour.
const GONE: u32 = u32::MAX;

/// The tokens of one chunk; each sits at the place of its first byte.
struct TokenList {
    ids: Vec<u32>,
    left: Vec<usize>,
    right: Vec<usize>,
}

impl TokenList {
    fn new(bytes: &[u8]) -> Self {
        let n = bytes.len();
        Self {
            ids: bytes.iter().map(|&b| u32::from(b)).collect(),
            left: (0..n).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect(),
            right: (0..n).map(|i| if i + 1 < n { i + 1 } else { NONE }).collect(),
        }
    }

    /// Makes the token at `at` and its right neighbour one token `id`.
    fn join(&mut self, at: usize, id: u32) {
        let gone = self.right[at];
        let after = self.right[gone];
        self.ids[at] = id;
        self.ids[gone] = GONE;
        self.right[at] = after;
        if after != NONE {
            self.left[after] = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::GPT4_PATTERN;

    fn model(merges: &[Pair]) -> Model {
        Model::new(Splitter::new(GPT4_PATTERN).unwrap(), merges)
    }

    /// The definition: merge the first of the earliest learned pairs, again and again.
    fn slowly(model: &Model, chunk: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> = chunk.iter().map(|&b| u32::from(b)).collect();
        loop {
            let pairs = ids.windows(2).enumerate().filter_map(|(i, w)| Some((*model.merges.get(&(w[0], w[1]))?, i)));
            let Some((id, at)) = pairs.min() else { return ids };
            ids.splice(at..at + 2, [id]);
        }
    }

    #[test]
    fn without_merges_tokens_are_bytes() {
        assert_eq!(model(&[]).encode("aé").unwrap(), [97, 0xC3, 0xA9]);
    }

    #[test]
    fn earlier_merges_win_and_ties_go_left() {
        let m = model(&[(98, 99), (97, 98), (97, 97)]);
        assert_eq!(m.encode("abc").unwrap(), [97, 256]);
        assert_eq!(m.encode("aaa").unwrap(), [258, 97]);
    }

    #[test]
    fn equals_the_definition() {
        let m = model(&[(97, 97), (256, 256), (97, 98), (257, 258), (98, 97), (258, 258), (256, 97)]);
        for bits in 0..1u32 << 12 {
            let chunk: Vec<u8> = (0..12).map(|i| if bits >> i & 1 == 0 { b'a' } else { b'b' }).collect();
            let mut fast = Vec::new();
            m.encode_chunk(&chunk, &mut fast);
            assert_eq!(fast, slowly(&m, &chunk));
        }
    }

    #[test]
    fn a_batch_is_its_texts_in_order() {
        let m = model(&[(97, 98), (98, 97)]);
        let texts: Vec<String> = (0..100).map(|i| "ab".repeat(i)).collect();
        let one_by_one: Vec<_> = texts.iter().map(|t| m.encode(t).unwrap()).collect();
        assert_eq!(m.batch_encode(&texts).unwrap(), one_by_one);
    }

    #[test]
    fn decodes_what_it_encoded_and_names_an_unknown_id() {
        let m = model(&[(104, 101), (108, 108), (256, 257)]);
        assert_eq!(m.decode(&m.encode("hello\u{1F600}").unwrap()).unwrap(), "hello\u{1F600}".as_bytes());
        assert_eq!(m.decode(&[97, 259]), Err(259));
    }
}
