//! Learns merges: again and again, the most frequent pair of neighbours becomes a new token.
//!
//! Why this is exact without keeping counts up to date. A pair's occurrences all appear at one moment: when the newer
//! of its two tokens is made. From then on they only become fewer. So each pair gets one list of places, written once,
//! and a heap holds it with its count at that time, which is never too low. When a pair comes to the top, its places
//! are counted again; if that puts it behind another pair it goes back, else it is the true maximum.
//!
//! Most pairs are so rare that they are never merged. Those below a floor get no list. When no listed pair is at or
//! above the floor any more, the floor is lowered and all pairs are counted anew, so a floor that was guessed too
//! high costs time and nothing else.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foldhash::HashMap;

use crate::words::{GAP, TooLarge, Words};
use crate::{BYTES, Pair};

/// Highest count first; of equals, the smallest pair. The last is the number of the pair's list of places.
type HeapEntry = (u64, Reverse<Pair>, u32);

struct Trainer {
    words: Words,
    heap: BinaryHeap<HeapEntry>,
    lists: Vec<Vec<u32>>,
    left: Side,
    right: Side,
    /// Pairs that occur less often have no list.
    floor: u64,
}

/// Up to `limit` merges in the order learned: merge number i makes token 256 + i. Fewer when no pair is left.
///
/// `tick` is called before every merge with the number of merges so far; its error ends the training.
pub fn learn_merges<E>(words: Words, limit: u32, mut tick: impl FnMut(u32) -> Result<(), E>) -> Result<Vec<Pair>, E> {
    let mut trainer = Trainer::new(words, limit);
    let mut merges = Vec::new();
    for done in 0..limit {
        tick(done)?;
        let Some((pair, places)) = trainer.pop_most_frequent() else { break };
        trainer.merge(pair, &places);
        merges.push(pair);
    }
    Ok(merges)
}

impl Trainer {
    fn new(words: Words, limit: u32) -> Self {
        let mut trainer = Self {
            words,
            heap: BinaryHeap::new(),
            lists: Vec::new(),
            left: Side::default(),
            right: Side::default(),
            floor: 0,
        };
        let mut counts = trainer.count_pairs();
        let total: u64 = counts.entries().map(|(_, entry)| entry.0).sum();
        // Word frequencies fall off such that the last merge's count is some multiple of this.
        trainer.floor = total / (u64::from(limit) + 1) / FLOOR_DIVISOR;
        trainer.list_pairs(&mut counts);
        trainer
    }

    /// How often each pair occurs, and at how many places.
    fn count_pairs(&self) -> PairTable {
        let mut counts = PairTable::default();
        self.words.for_each_pair(|_, pair, weight| {
            let entry = counts.entry(pair);
            *entry = (entry.0 + weight, entry.1 + 1);
        });
        counts
    }

    /// Lists the places of all pairs at or above the floor.
    fn list_pairs(&mut self, counts: &mut PairTable) {
        self.lists.clear();
        self.heap.clear();
        for (pair, entry) in counts.entries() {
            let &mut (count, places) = entry;
            entry.1 = NO_LIST;
            if places > 0 && count >= self.floor {
                entry.1 = self.lists.len() as u32;
                self.heap.push((count, Reverse(pair), entry.1));
                self.lists.push(Vec::with_capacity(places as usize));
            }
        }
        self.words.for_each_pair(|place, pair, _| {
            if let Some(list) = self.lists.get_mut(counts.entry(pair).1 as usize) {
                list.push(place);
            }
        });
    }

    /// The pair to merge next, with its places in ascending order.
    fn pop_most_frequent(&mut self) -> Option<(Pair, Vec<u32>)> {
        loop {
            let Some((_, Reverse(pair), number)) = self.heap.pop() else {
                if self.floor <= 1 {
                    return None;
                }
                self.floor /= 8;
                let mut counts = self.count_pairs();
                self.list_pairs(&mut counts);
                continue;
            };
            let mut places = std::mem::take(&mut self.lists[number as usize]);
            let count = self.recount(pair, &mut places);
            if count < self.floor.max(1) {
                continue; // it cannot become more frequent; if it is needed, a lower floor finds it again
            }
            let entry = (count, Reverse(pair), number);
            if self.heap.peek().is_none_or(|next| entry > *next) {
                return Some((pair, places));
            }
            self.lists[number as usize] = places;
            self.heap.push(entry);
        }
    }

    /// Drops the places where the pair no longer is. Whether it is at a place, the processor could not guess, so nothing
    /// here depends on it but a number.
    fn recount(&self, pair: Pair, places: &mut Vec<u32>) -> u64 {
        let length = self.words.length(pair.0);
        let (mut count, mut kept) = (0, 0);
        for i in 0..places.len() {
            places.get(i + AHEAD).inspect(|&&place| self.words.prefetch(place));
            let place = places[i];
            let weight = self.words.weight_at(place, pair, length);
            count += weight;
            places[kept] = place;
            kept += usize::from(weight > 0);
        }
        places.truncate(kept);
        count
    }

    /// Joins `pair` at all `places` and lists the pairs that come about.
    fn merge(&mut self, pair: Pair, places: &[u32]) {
        let length = self.words.length(pair.0);
        let token = self.words.new_token(pair);
        for &place in places {
            let weight = self.words.weight_at(place, pair, length);
            if weight == 0 {
                continue; // the middle of a a a, when the first two have just been joined
            }
            let (left, right) = self.words.join(place, pair, token);
            if left != GAP {
                self.left.add(left, place - self.words.length(left), weight);
            }
            if right != GAP {
                self.right.add(right, place, weight);
            }
        }
        self.left.list(self.floor, &mut self.heap, &mut self.lists, |left| (left, token));
        self.right.list(self.floor, &mut self.heap, &mut self.lists, |right| (token, right));
    }
}

/// The neighbours that a new token has on one side. Found by token id, not by hash: they are counted by the million.
#[derive(Default)]
struct Side {
    /// By token id; all zero between two merges.
    counts: Vec<(u64, u32)>,
    seen: Vec<u32>,
    /// (neighbour, place of the pair)
    places: Vec<(u32, u32)>,
}

impl Side {
    #[inline(always)]
    fn add(&mut self, neighbour: u32, place: u32, weight: u64) {
        if self.counts.len() <= neighbour as usize {
            self.counts.resize(neighbour as usize + 1, (0, 0));
        }
        let (count, times) = &mut self.counts[neighbour as usize];
        if *times == 0 {
            self.seen.push(neighbour);
        }
        (*count, *times) = (*count + weight, *times + 1);
        self.places.push((neighbour, place));
    }

    /// Lists the pairs that reach the floor and forgets everything.
    fn list(
        &mut self,
        floor: u64,
        heap: &mut BinaryHeap<HeapEntry>,
        lists: &mut Vec<Vec<u32>>,
        pair: impl Fn(u32) -> Pair,
    ) {
        for &neighbour in &self.seen {
            let (count, times) = &mut self.counts[neighbour as usize];
            if *count < floor {
                *times = NO_LIST;
                continue;
            }
            heap.push((*count, Reverse(pair(neighbour)), lists.len() as u32));
            lists.push(Vec::with_capacity(*times as usize));
            *times = lists.len() as u32 - 1;
        }
        for (neighbour, place) in self.places.drain(..) {
            let (_, number) = self.counts[neighbour as usize];
            if number != NO_LIST {
                lists[number as usize].push(place);
            }
        }
        for neighbour in self.seen.drain(..) {
            self.counts[neighbour as usize] = (0, 0);
        }
    }
}

/// A count and a number for each pair; those of two bytes, which are all pairs at first, are found without hashing.
struct PairTable {
    of_bytes: Vec<(u64, u32)>,
    others: HashMap<Pair, (u64, u32)>,
}

impl Default for PairTable {
    fn default() -> Self {
        Self { of_bytes: vec![(0, 0); (BYTES * BYTES) as usize], others: HashMap::default() }
    }
}

impl PairTable {
    #[inline(always)]
    fn entry(&mut self, pair: Pair) -> &mut (u64, u32) {
        if pair.0 < BYTES && pair.1 < BYTES {
            &mut self.of_bytes[(pair.0 * BYTES + pair.1) as usize]
        } else {
            self.others.entry(pair).or_default()
        }
    }

    fn entries(&mut self) -> impl Iterator<Item = (Pair, &mut (u64, u32))> {
        let of_bytes = self.of_bytes.iter_mut().zip(0..).map(|(entry, i)| ((i / BYTES, i % BYTES), entry));
        of_bytes.chain(self.others.iter_mut().map(|(&pair, entry)| (pair, entry)))
    }
}

const FLOOR_DIVISOR: u64 = 16;
/// How many places ahead a place is announced to the memory.
const AHEAD: usize = 24;
/// In place of the number of a list.
const NO_LIST: u32 = u32::MAX;

/// All chunks of a text as words for training.
pub fn words_of(for_each: impl Fn(&mut dyn FnMut(&[u8], u64))) -> Result<Words, TooLarge> {
    let mut bytes = 0;
    for_each(&mut |chunk, _| bytes += chunk.len() + 1);
    let (mut words, mut outcome) = (Words::with_capacity(bytes), Ok(()));
    for_each(&mut |chunk, times| outcome = outcome.and_then(|()| words.push(chunk, times)));
    outcome.map(|()| words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn words(chunks: &[(&str, u64)]) -> Words {
        words_of(|visit| chunks.iter().for_each(|&(c, n)| visit(c.as_bytes(), n))).unwrap()
    }

    fn learn(chunks: &[(&str, u64)], limit: u32) -> Vec<Pair> {
        learn_merges(words(chunks), limit, |_| Ok::<(), Infallible>(())).unwrap()
    }

    /// The definition: count all pairs, replace the best everywhere, left to right, and again.
    fn learn_slowly(chunks: &[(&str, u64)], limit: u32) -> Vec<Pair> {
        let mut rows: Vec<(Vec<u32>, u64)> =
            chunks.iter().map(|&(c, n)| (c.bytes().map(u32::from).collect(), n)).collect();
        let mut merges = Vec::new();
        for done in 0..limit {
            let mut counts = std::collections::BTreeMap::new();
            for (ids, n) in &rows {
                ids.windows(2).for_each(|w| *counts.entry((w[0], w[1])).or_insert(0) += n);
            }
            let Some((&pair, _)) = counts.iter().min_by_key(|&(pair, n)| (Reverse(*n), *pair)) else { break };
            for (ids, _) in &mut rows {
                let mut at = 0;
                while at + 1 < ids.len() {
                    if (ids[at], ids[at + 1]) == pair {
                        ids.splice(at..at + 2, [256 + done]);
                    }
                    at += 1;
                }
            }
            merges.push(pair);
        }
        merges
    }

    #[test]
    fn equals_the_definition() {
        let mut state = 1_u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for round in 0..600 {
            let texts: Vec<(String, u64)> = (0..random(12))
                .map(|_| {
                    let letters = 1 + random(3 + round % 4) as usize;
                    let word =
                        (0..random(24)).map(|_| ["a", "b", "c", "d", "é"][random(letters as u64 + 1) as usize % 5]);
                    (word.collect(), 1 + random(20) * random(20))
                })
                .collect();
            let chunks: Vec<(&str, u64)> = texts.iter().map(|(text, n)| (text.as_str(), *n)).collect();
            let limit = 1 + random(60) as u32;
            assert_eq!(learn(&chunks, limit), learn_slowly(&chunks, limit), "{chunks:?}");
        }
    }

    #[test]
    fn the_most_frequent_pair_comes_first() {
        assert_eq!(learn(&[("ab", 3), ("cd", 5)], 2), [(99, 100), (97, 98)]);
    }

    #[test]
    fn equal_counts_take_the_smallest_pair() {
        assert_eq!(learn(&[("zy", 2), ("ab", 2), ("ac", 2)], 3), [(97, 98), (97, 99), (122, 121)]);
    }

    #[test]
    fn overlapping_occurrences_count() {
        assert_eq!(learn(&[("aaa", 1), ("bc", 1)], 1), [(97, 97)]);
    }

    #[test]
    fn stops_when_nothing_is_left_to_merge() {
        assert_eq!(learn(&[("abab", 1), ("x", 9)], 10), [(97, 98), (256, 256)]);
        assert_eq!(learn(&[], 10), []);
    }

    #[test]
    fn a_floor_that_is_too_high_is_lowered() {
        let chunks = [("abab", 1_000_000), ("cd", 40), ("ce", 3), ("xyz", 1)];
        let mut trainer = Trainer::new(words(&chunks), 3);
        assert!(trainer.floor > 40);
        let mut merges = Vec::new();
        while let Some((pair, places)) = trainer.pop_most_frequent() {
            trainer.merge(pair, &places);
            merges.push(pair);
        }
        assert_eq!(merges, learn_slowly(&chunks, 20));
    }

    #[test]
    fn tick_counts_merges_and_its_error_ends_the_training() {
        let mut seen = Vec::new();
        let outcome = learn_merges(words(&[("abcdefgh", 1)]), 9, |done| {
            seen.push(done);
            if done == 2 { Err("stop") } else { Ok(()) }
        });
        assert_eq!((outcome, seen), (Err("stop"), vec![0, 1, 2]));
    }
}
