//! The distinct chunks of a training text as one long row of tokens, in which a merge costs a few writes.
//!
//! Every byte of a chunk has a cell. A token is written into the first and the last cell of its bytes and its length
//! is known, so both neighbours of a token are found without a list:
//!
//! ```text
//! | t h e | i n |      one cell per byte, a gap between the words
//! | t h e | X X |      (i, n) -> X
//! | Y - Y | X X |      (t, h) -> Z, (Z, e) -> Y: the cell in the middle is inside
//! ```

use foldhash::HashMap;

use crate::{BYTES, Pair, pages};

/// The token of the cells between words.
pub const GAP: u32 = u32::MAX;
/// The token of a cell that is neither the first nor the last of its token. Training makes fewer tokens than that.
const INSIDE: u32 = u32::MAX - 1;

#[derive(Debug, Clone, Copy)]
struct Cell {
    token: u32,
    /// Place in `weights` of how often the word occurs: few words have a number of their own, so this stays small.
    weight: u32,
}

/// The text is more than cells can be numbered: four billion bytes of chunks that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

#[derive(Debug)]
pub struct Words {
    cells: Vec<Cell>,
    weights: Vec<u64>,
    weight_places: HashMap<u64, u32>,
    /// Bytes of each token, by id.
    lengths: Vec<u32>,
}

impl Words {
    /// None, and room for some of `bytes` bytes together, a gap behind each counted as one.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut cells = pages::with_capacity(bytes + 1);
        cells.push(Cell { token: GAP, weight: 0 });
        Self { cells, weights: vec![0], weight_places: HashMap::default(), lengths: vec![1; BYTES as usize] }
    }

    /// Adds a word that occurs `times` times. One of a single byte has no pair and is left out.
    pub fn push(&mut self, word: &[u8], times: u64) -> Result<(), TooLarge> {
        if word.len() < 2 {
            return Ok(());
        }
        u32::try_from(self.cells.len() + word.len()).map_err(|_| TooLarge)?;
        let weight = *self.weight_places.entry(times).or_insert_with(|| {
            self.weights.push(times);
            (self.weights.len() - 1) as u32
        });
        self.cells.extend(word.iter().map(|&byte| Cell { token: u32::from(byte), weight }));
        self.cells.push(Cell { token: GAP, weight: 0 });
        Ok(())
    }

    /// Gives `visit` place, pair and weight of any two neighbours.
    pub fn for_each_pair(&self, mut visit: impl FnMut(u32, Pair, u64)) {
        let mut place = 0;
        while let Some(&Cell { token, weight }) = self.cells.get(place) {
            if token == GAP {
                place += 1;
                continue;
            }
            let next = place + self.lengths[token as usize] as usize;
            let right = self.cells[next].token;
            if right != GAP {
                visit(place as u32, (token, right), self.weights[weight as usize]);
            }
            place = next;
        }
    }

    /// How often `pair` occurs at `place`: not at all if one of the two has been merged with another token since.
    #[inline(always)]
    pub fn weight_at(&self, place: u32, pair: Pair, left_length: u32) -> u64 {
        let Cell { token, weight } = self.cells[place as usize];
        let right = self.cells[(place + left_length) as usize].token;
        self.weights[weight as usize] * u64::from((token == pair.0) & (right == pair.1))
    }

    #[inline(always)]
    pub fn prefetch(&self, place: u32) {
        pages::prefetch(&self.cells[place as usize]);
    }

    pub fn length(&self, token: u32) -> u32 {
        self.lengths[token as usize]
    }

    /// Makes the next token, whose bytes are those of `pair`, and returns its id.
    pub fn new_token(&mut self, pair: Pair) -> u32 {
        self.lengths.push(self.length(pair.0) + self.length(pair.1));
        (self.lengths.len() - 1) as u32
    }

    /// Joins `pair`, which stands at `place`, to `token`. Returns the neighbours, `GAP` if there is none.
    #[inline(always)]
    pub fn join(&mut self, place: u32, pair: Pair, token: u32) -> (u32, u32) {
        let place = place as usize;
        let middle = place + self.lengths[pair.0 as usize] as usize;
        let end = middle + self.lengths[pair.1 as usize] as usize;
        self.cells[middle - 1].token = INSIDE;
        self.cells[middle].token = INSIDE;
        self.cells[place].token = token;
        self.cells[end - 1].token = token;
        (self.cells[place - 1].token, self.cells[end].token)
    }
}
