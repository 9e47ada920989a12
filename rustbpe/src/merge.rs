//! Turns one chunk into tokens: of all neighbours that make a token, join those whose token has the lowest id, first
//! the leftmost; again until none do. A chunk that is a token as a whole is that token. This is tiktoken's rule.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foldhash::{HashMap, HashMapExt};

use crate::Pair;

/// No token, and no neighbour on this side.
const NONE: u32 = u32::MAX;
/// From this many tokens on, the next pair is found with a heap.
const LONG: usize = 100;

/// Why a list of tokens is no vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabularyError {
    MissingByte(u8),
    Empty(usize),
    Twice(usize, usize),
    TooMany,
}

impl std::fmt::Display for VocabularyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MissingByte(byte) => write!(f, "no token is the single byte {byte}"),
            Self::Empty(id) => write!(f, "token {id} has no bytes"),
            Self::Twice(one, other) => write!(f, "tokens {one} and {other} have the same bytes"),
            Self::TooMany => write!(f, "there are more than 2^32 - 2 tokens"),
        }
    }
}

/// What every two tokens make, if they make one.
#[derive(Debug)]
pub struct Merges {
    /// Token of each byte.
    bytes: [u32; 256],
    /// Token of any two bytes, by `first * 256 + second`: chunks start out as bytes, so this is asked most.
    byte_pairs: Vec<u32>,
    pairs: HashMap<Pair, u32>,
}

impl Merges {
    /// `tokens` by id. Every way to cut a token in two tokens is a pair that makes it, whichever was learned.
    pub fn new(tokens: &[Vec<u8>]) -> Result<Self, VocabularyError> {
        let mut ids: HashMap<&[u8], u32> = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() {
                return Err(VocabularyError::Empty(id));
            }
            let number = u32::try_from(id).ok().filter(|&number| number < NONE - 1).ok_or(VocabularyError::TooMany)?;
            if let Some(other) = ids.insert(token, number) {
                return Err(VocabularyError::Twice(other as usize, id));
            }
        }
        let mut bytes = [0; 256];
        for byte in 0..=u8::MAX {
            bytes[byte as usize] = *ids.get([byte].as_slice()).ok_or(VocabularyError::MissingByte(byte))?;
        }
        let (mut pairs, mut byte_pairs) = (HashMap::new(), vec![NONE; 1 << 16]);
        for (token, &id) in &ids {
            if let [first, second] = **token {
                byte_pairs[usize::from(first) << 8 | usize::from(second)] = id;
            }
            for cut in 1..token.len() {
                if let (Some(&left), Some(&right)) = (ids.get(&token[..cut]), ids.get(&token[cut..])) {
                    pairs.insert((left, right), id);
                }
            }
        }
        Ok(Self { bytes, byte_pairs, pairs })
    }

    fn token_of(&self, left: u32, right: u32) -> u32 {
        self.pairs.get(&(left, right)).copied().unwrap_or(NONE)
    }

    /// Appends the tokens of `chunk`, by merging only: whether it is a token as a whole, the caller has looked.
    pub fn encode(&self, chunk: &[u8], out: &mut Vec<u32>) {
        if chunk.len() < LONG { self.encode_short(chunk, out) } else { self.encode_long(chunk, out) }
    }

    /// Looks at all neighbours for each merge: for a few tokens nothing is faster.
    fn encode_short(&self, chunk: &[u8], out: &mut Vec<u32>) {
        let mut ids = [0; LONG];
        let mut made = [NONE; LONG]; // what token i and the next one make
        let mut n = chunk.len();
        for (i, &byte) in chunk.iter().enumerate() {
            ids[i] = self.bytes[byte as usize];
        }
        for (i, two) in chunk.windows(2).enumerate() {
            made[i] = self.byte_pairs[usize::from(two[0]) << 8 | usize::from(two[1])];
        }
        loop {
            let (mut best, mut at) = (NONE, 0);
            for (i, &id) in made[..n.saturating_sub(1)].iter().enumerate() {
                if id < best {
                    (best, at) = (id, i);
                }
            }
            if best == NONE {
                break;
            }
            ids[at] = best;
            ids.copy_within(at + 2..n, at + 1);
            made.copy_within(at + 1..n, at);
            n -= 1;
            made[at] = if at + 1 < n { self.token_of(best, ids[at + 1]) } else { NONE };
            if at > 0 {
                made[at - 1] = self.token_of(ids[at - 1], best);
            }
        }
        out.extend_from_slice(&ids[..n]);
    }

    /// Tokens are a linked list over the chunk's bytes, so a merge costs O(log n), not a pass over the chunk.
    fn encode_long(&self, chunk: &[u8], out: &mut Vec<u32>) {
        let mut list = TokenList::new(chunk, &self.bytes);
        let offer = |list: &TokenList, at: u32| Some(Reverse((self.made_at(list, at)?, at)));
        let mut heap: BinaryHeap<_> = (0..chunk.len() as u32).filter_map(|at| offer(&list, at)).collect();
        while let Some(Reverse((id, at))) = heap.pop() {
            if self.made_at(&list, at) != Some(id) {
                continue; // one of the two was merged with another in the meantime
            }
            list.join(at, id);
            heap.extend(offer(&list, list.left[at as usize]));
            heap.extend(offer(&list, at));
        }
        out.extend(list.ids.into_iter().filter(|&id| id != NONE));
    }

    /// The token that the one at `at` and its right neighbour make.
    fn made_at(&self, list: &TokenList, at: u32) -> Option<u32> {
        let left = *list.ids.get(at as usize)?;
        let right = *list.ids.get(list.right[at as usize] as usize)?;
        Some(self.token_of(left, right)).filter(|&id| id != NONE)
    }
}

/// The tokens of one chunk; each sits at the place of its first byte, the other places hold `NONE`.
struct TokenList {
    ids: Vec<u32>,
    left: Vec<u32>,
    right: Vec<u32>,
}

impl TokenList {
    fn new(chunk: &[u8], tokens: &[u32; 256]) -> Self {
        let n = chunk.len() as u32;
        Self {
            ids: chunk.iter().map(|&byte| tokens[byte as usize]).collect(),
            left: (0..n).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect(),
            right: (0..n).map(|i| if i + 1 < n { i + 1 } else { NONE }).collect(),
        }
    }

    /// Makes the token at `at` and its right neighbour one token `id`.
    fn join(&mut self, at: u32, id: u32) {
        let gone = self.right[at as usize];
        let after = self.right[gone as usize];
        self.ids[at as usize] = id;
        self.ids[gone as usize] = NONE;
        self.right[at as usize] = after;
        if let Some(left) = self.left.get_mut(after as usize) {
            *left = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(learned: &[&str]) -> Vec<Vec<u8>> {
        let longer = learned.iter().map(|token| token.as_bytes().to_vec());
        (0..=u8::MAX).map(|byte| vec![byte]).chain(longer).collect()
    }

    /// The definition, on bytes: tiktoken's own small loop.
    fn slowly(tokens: &[Vec<u8>], chunk: &[u8]) -> Vec<u32> {
        let id = |bytes: &[u8]| tokens.iter().position(|token| token == bytes);
        let mut parts: Vec<Vec<u8>> = chunk.iter().map(|&byte| vec![byte]).collect();
        loop {
            let joined = parts.windows(2).enumerate().filter_map(|(i, w)| Some((id(&w.concat())?, i)));
            let Some((_, at)) = joined.min() else { break };
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
        parts.iter().map(|part| id(part).unwrap() as u32).collect()
    }

    #[test]
    fn equals_the_definition_in_both_ways() {
        let tokens = tokens(&["aa", "aaaa", "ab", "aabb", "ba", "bb", "aab", "abab", "aaa"]);
        let merges = Merges::new(&tokens).unwrap();
        for bits in 0..1_u32 << 12 {
            let chunk: Vec<u8> = (0..12).map(|i| if bits >> i & 1 == 0 { b'a' } else { b'b' }).collect();
            let expected = slowly(&tokens, &chunk);
            let (mut short, mut long) = (Vec::new(), Vec::new());
            merges.encode_short(&chunk, &mut short);
            merges.encode_long(&chunk, &mut long);
            assert_eq!((&short, &long), (&expected, &expected));
        }
    }

    #[test]
    fn refuses_what_is_no_vocabulary() {
        let wrong = |tokens: Vec<Vec<u8>>| Merges::new(&tokens).unwrap_err();
        assert_eq!(wrong(tokens(&[""])), VocabularyError::Empty(256));
        assert_eq!(wrong(tokens(&["ab", "cd", "ab"])), VocabularyError::Twice(256, 258));
        assert_eq!(wrong(tokens(&[])[1..].to_vec()), VocabularyError::MissingByte(0));
    }
}
