//! Turns texts into ids and ids back into bytes.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::cache::Cache;
use crate::merge::{Merges, VocabularyError};
use crate::pages;
use crate::parallel::share;
use crate::split::{SplitError, Splitter};
use crate::{BYTES, Pair};

/// Bytes of text that a thread takes at a time.
const SHARE: usize = 1 << 18;

/// A trained tokenizer: threads share it.
#[derive(Debug)]
pub struct Model {
    splitter: Splitter,
    /// Bytes of each token, by id.
    tokens: Vec<Vec<u8>>,
    merges: Merges,
    /// A cache that knows the vocabulary and nothing else.
    fresh: Cache,
    /// Caches that no thread uses now; what they learned speeds up the next texts.
    idle: Mutex<Vec<Cache>>,
}

/// The ids of many texts in a row.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Flat {
    pub ids: Vec<u32>,
    /// Where each text ends in the row.
    pub ends: Vec<usize>,
}

impl Flat {
    /// For texts of `bytes` bytes: what ordinary text takes, with some room to spare.
    fn with_capacity(bytes: usize, texts: usize) -> Self {
        Self { ids: pages::with_capacity(bytes / 3 + texts), ends: Vec::with_capacity(texts) }
    }
}

impl Model {
    /// `tokens` by id.
    pub fn new(splitter: Splitter, tokens: Vec<Vec<u8>>) -> Result<Self, VocabularyError> {
        let merges = Merges::new(&tokens)?;
        let fresh = Cache::new(&tokens, RandomState::new().hash_one(0));
        Ok(Self { splitter, tokens, merges, fresh, idle: Mutex::default() })
    }

    pub fn pattern(&self) -> &str {
        self.splitter.pattern()
    }

    /// The bytes of every token, in id order.
    pub fn tokens(&self) -> &[Vec<u8>] {
        &self.tokens
    }

    pub fn encode(&self, text: &str) -> Result<Vec<u32>, SplitError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut cache = self.take_cache();
        let outcome = self.encode_with(&self.splitter, &mut cache, text, &mut ids);
        self.give_back(cache);
        outcome.map(|()| ids)
    }

    /// The ids of each text between `before` and `after`, on `threads` threads.
    pub fn encode_batch(
        &self,
        texts: &[&str],
        before: &[u32],
        after: &[u32],
        threads: usize,
    ) -> Result<Flat, SplitError> {
        if threads <= 1 {
            let mut cache = self.take_cache();
            let outcome = self.encode_share(&self.splitter, &mut cache, texts, before, after);
            self.give_back(cache);
            return outcome;
        }
        let shares = cut_shares(texts);
        let mut caches: Vec<Cache> = (0..threads.clamp(1, shares.len().max(1))).map(|_| self.take_cache()).collect();
        let outcome = share(shares.len(), &mut caches, |cache, queue| {
            let splitter = self.splitter.clone();
            let mut done = Vec::new();
            while let Some(number) = queue.take() {
                done.push((number, self.encode_share(&splitter, cache, shares[number], before, after)?));
            }
            Ok(done)
        });
        caches.into_iter().for_each(|cache| self.give_back(cache));
        let mut parts: Vec<(usize, Flat)> =
            outcome.into_iter().collect::<Result<Vec<_>, SplitError>>()?.into_iter().flatten().collect();
        parts.sort_unstable_by_key(|(number, _)| *number);
        let total = parts.iter().map(|(_, part)| part.ids.len()).sum();
        let mut flat = Flat { ids: pages::with_capacity(total), ends: Vec::with_capacity(texts.len()) };
        for (_, part) in parts {
            flat.ends.extend(part.ends.iter().map(|end| flat.ids.len() + end));
            flat.ids.extend_from_slice(&part.ids);
        }
        Ok(flat)
    }

    fn encode_share(
        &self,
        splitter: &Splitter,
        cache: &mut Cache,
        texts: &[&str],
        before: &[u32],
        after: &[u32],
    ) -> Result<Flat, SplitError> {
        let mut flat = Flat::with_capacity(texts.iter().map(|text| text.len()).sum(), texts.len());
        for text in texts {
            flat.ids.extend_from_slice(before);
            self.encode_with(splitter, cache, text, &mut flat.ids)?;
            flat.ids.extend_from_slice(after);
            flat.ends.push(flat.ids.len());
        }
        Ok(flat)
    }

    fn encode_with(
        &self,
        splitter: &Splitter,
        cache: &mut Cache,
        text: &str,
        out: &mut Vec<u32>,
    ) -> Result<(), SplitError> {
        if cache.is_full() {
            cache.clone_from(&self.fresh);
        }
        splitter.for_each_batch(text, |chunks| cache.encode_batch(text.as_bytes(), chunks, &self.merges, out))
    }

    fn take_cache(&self) -> Cache {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.fresh.clone())
    }

    fn give_back(&self, cache: Cache) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(cache);
    }

    /// The bytes of `ids` put together, or the first id that is no token.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>, u32> {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.tokens.get(id as usize).ok_or(id)?);
        }
        Ok(bytes)
    }
}

/// The bytes of every token, by id, that `merges` make in the order learned.
pub fn tokens_of(merges: &[Pair]) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..BYTES).map(|byte| vec![byte as u8]).collect();
    for &(left, right) in merges {
        tokens.push([tokens[left as usize].as_slice(), &tokens[right as usize]].concat());
    }
    tokens
}

/// `texts` in pieces of about `SHARE` bytes.
fn cut_shares<'a, 't>(texts: &'a [&'t str]) -> Vec<&'a [&'t str]> {
    let (mut shares, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (i, text) in texts.iter().enumerate() {
        bytes += text.len();
        if bytes >= SHARE || i + 1 == texts.len() {
            shares.push(&texts[first..=i]);
            (first, bytes) = (i + 1, 0);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::GPT4_PATTERN;

    fn model(merges: &[Pair]) -> Model {
        Model::new(Splitter::new(GPT4_PATTERN).unwrap(), tokens_of(merges)).unwrap()
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
    fn a_batch_is_its_texts_in_order() {
        let m = model(&[(97, 98), (98, 97)]);
        let texts: Vec<String> = (0..2000).map(|i| "ab ".repeat(i % 700)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let expected: Vec<u32> =
            texts.iter().flat_map(|t| [vec![7], m.encode(t).unwrap(), vec![8, 9]].concat()).collect();
        for threads in 1..4 {
            let flat = m.encode_batch(&texts, &[7], &[8, 9], threads).unwrap();
            assert_eq!(flat.ids, expected);
            assert_eq!(flat.ends.len(), texts.len());
            assert_eq!(flat.ends.last(), Some(&expected.len()));
        }
        assert_eq!(m.encode_batch(&[], &[7], &[], 2).unwrap(), Flat::default());
    }

    #[test]
    fn what_is_remembered_is_what_was_found() {
        let m = model(&[(97, 98), (256, 256), (32, 97)]);
        let text = "ab abab aba averylongchunkthatfitsnokeyabab ab abab aba averylongchunkthatfitsnokeyabab";
        let first = m.encode(text).unwrap();
        assert_eq!(m.encode(text).unwrap(), first);
        assert_eq!(m.decode(&first).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_long_chunk_takes_no_quadratic_time() {
        let m = model(&[(97, 97), (256, 256), (257, 257)]);
        assert_eq!(m.encode(&"a".repeat(2_000_000)).unwrap(), vec![258; 250_000]);
    }

    #[test]
    fn decodes_what_it_encoded_and_names_an_unknown_id() {
        let m = model(&[(104, 101), (108, 108), (256, 257)]);
        assert_eq!(m.decode(&m.encode("hello\u{1F600}").unwrap()).unwrap(), "hello\u{1F600}".as_bytes());
        assert_eq!(m.decode(&[97, 259]), Err(259));
    }
}
