//! Learns merges: again and again, the most frequent pair of neighbours becomes a new token.
//!
//! Pair counts are kept up to date instead of being counted anew after each merge. A heap holds every pair with the
//! count it had when it was pushed. Old pairs only ever lose occurrences (all that a merge creates contain its new id),
//! so an entry at the top whose count still holds is the true maximum, and one whose count is out of date is pushed back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::Entry as Slot;

use foldhash::{HashMap, HashMapExt};

use crate::{BYTES, Pair};

/// A distinct chunk: its tokens so far, and how often it occurs in the text.
struct Word {
    ids: Vec<u32>,
    times: i64,
}

/// A pair's occurrences over the whole text, and the words that may contain it (some no longer do).
#[derive(Default)]
struct Occurrences {
    count: i64,
    words: Vec<u32>,
}

/// Highest count first; of equals, the smallest pair.
type HeapEntry = (i64, Reverse<Pair>);

struct Trainer {
    words: Vec<Word>,
    pairs: HashMap<Pair, Occurrences>,
    heap: BinaryHeap<HeapEntry>,
}

/// Up to `limit` merges in the order learned: merge number i makes token 256 + i. Fewer when no pair is left.
///
/// `tick` is called before every merge with the number of merges so far; its error ends the training.
pub fn learn_merges<'c, E>(
    chunks: impl Iterator<Item = (&'c [u8], u64)>,
    limit: u32,
    mut tick: impl FnMut(u32) -> Result<(), E>,
) -> Result<Vec<Pair>, E> {
    let mut trainer = Trainer::new(chunks);
    let mut merges = Vec::new();
    for done in 0..limit {
        tick(done)?;
        let Some(pair) = trainer.pop_most_frequent() else { break };
        trainer.merge(pair, BYTES + done);
        merges.push(pair);
    }
    Ok(merges)
}

impl Trainer {
    fn new<'c>(chunks: impl Iterator<Item = (&'c [u8], u64)>) -> Self {
        let words: Vec<Word> = chunks
            .filter(|(bytes, _)| bytes.len() > 1)
            .map(|(bytes, times)| Word { ids: bytes.iter().map(|&b| u32::from(b)).collect(), times: times as i64 })
            .collect();
        let mut pairs = HashMap::new();
        for (index, word) in words.iter().enumerate() {
            for pair in word.ids.windows(2) {
                add(&mut pairs, (pair[0], pair[1]), word.times, index as u32);
            }
        }
        let heap = pairs.iter().map(|(&pair, found): (_, &Occurrences)| (found.count, Reverse(pair))).collect();
        Self { words, pairs, heap }
    }

    fn pop_most_frequent(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.heap.pop() {
            let now = self.pairs.get(&pair).map_or(0, |found| found.count);
            if now == count {
                return Some(pair);
            }
            if now > 0 {
                self.heap.push((now, Reverse(pair)));
            } else {
                self.pairs.remove(&pair);
            }
        }
        None
    }

    /// Replaces `pair` by `new` in every word and brings the counts of all pairs around it up to date.
    fn merge(&mut self, pair: Pair, new: u32) {
        let Some(occurrences) = self.pairs.remove(&pair) else { return };
        let mut created = Vec::new();
        for index in occurrences.words {
            let Word { ids, times } = &mut self.words[index as usize];
            replace(ids, pair, new, |neighbours, change| {
                let count = change * *times;
                if change < 0 {
                    subtract(&mut self.pairs, neighbours, count);
                } else if add(&mut self.pairs, neighbours, count, index) {
                    created.push(neighbours);
                }
            });
        }
        for pair in created {
            match self.pairs.get(&pair) {
                Some(found) if found.count > 0 => self.heap.push((found.count, Reverse(pair))),
                _ => _ = self.pairs.remove(&pair), // came and went within this merge, as (X, a) in abab -> XX
            }
        }
    }
}

/// Counts `pair` in word `index`. True when the pair was not known before.
fn add(pairs: &mut HashMap<Pair, Occurrences>, pair: Pair, count: i64, index: u32) -> bool {
    let (found, is_new) = match pairs.entry(pair) {
        Slot::Occupied(slot) => (slot.into_mut(), false),
        Slot::Vacant(slot) => (slot.insert(Occurrences::default()), true),
    };
    found.count += count;
    if found.words.last() != Some(&index) {
        found.words.push(index);
    }
    is_new
}

/// `count` is negative. The pair being merged is gone from the map already: nothing to do for it.
fn subtract(pairs: &mut HashMap<Pair, Occurrences>, pair: Pair, count: i64) {
    if let Some(found) = pairs.get_mut(&pair) {
        found.count += count;
    }
}

/// Replaces each `pair` in `ids` by `new`, left to right, in place. Tells `changed` each pair of neighbours that went
/// away (-1) and each that appeared (+1); the sum of all calls is the exact difference between before and after.
///
/// a b c, (a, b) -> X:  (a, b) -1, (b, c) -1, (X, c) +1
fn replace(ids: &mut Vec<u32>, pair: Pair, new: u32, mut changed: impl FnMut(Pair, i64)) {
    let (mut read, mut write) = (0, 0);
    while read < ids.len() {
        if ids[read] != pair.0 || ids.get(read + 1) != Some(&pair.1) {
            ids[write] = ids[read];
            (read, write) = (read + 1, write + 1);
            continue;
        }
        changed(pair, -1);
        if write > 0 {
            let left = ids[write - 1];
            changed((left, pair.0), -1);
            changed((left, new), 1);
        }
        if let Some(&right) = ids.get(read + 2) {
            changed((pair.1, right), -1);
            changed((new, right), 1);
        }
        ids[write] = new;
        (read, write) = (read + 2, write + 1);
    }
    ids.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    fn learn(chunks: &[(&str, u64)], limit: u32) -> Vec<Pair> {
        learn_merges(chunks.iter().map(|&(c, n)| (c.as_bytes(), n)), limit, |_| Ok::<(), Infallible>(())).unwrap()
    }

    fn pair_counts(ids: &[u32]) -> BTreeMap<Pair, i64> {
        let mut counts = BTreeMap::new();
        ids.windows(2).for_each(|w| *counts.entry((w[0], w[1])).or_insert(0) += 1);
        counts
    }

    #[test]
    fn replace_reports_the_exact_difference() {
        for text in ["", "a", "ab", "abc", "aaa", "aaaa", "aaaaa", "ababab", "xabyab", "abab", "aabaab"] {
            for pair in [(97, 98), (97, 97), (98, 97)] {
                let mut ids: Vec<u32> = text.bytes().map(u32::from).collect();
                let mut counts = pair_counts(&ids);
                replace(&mut ids, pair, 256, |p, change| *counts.entry(p).or_insert(0) += change);
                counts.retain(|_, n| *n != 0);
                assert_eq!(counts, pair_counts(&ids), "{text} {pair:?}");
            }
        }
    }

    #[test]
    fn replaces_left_to_right_without_overlap() {
        let mut ids = vec![97; 5];
        replace(&mut ids, (97, 97), 256, |_, _| {});
        assert_eq!(ids, [256, 256, 97]);
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
    fn tick_counts_merges_and_its_error_ends_the_training() {
        let mut seen = Vec::new();
        let chunks = [(b"abcdefgh".as_slice(), 1)];
        let outcome = learn_merges(chunks.into_iter(), 9, |done| {
            seen.push(done);
            if done == 2 { Err("stop") } else { Ok(()) }
        });
        assert_eq!((outcome, seen), (Err("stop"), vec![0, 1, 2]));
    }
}
