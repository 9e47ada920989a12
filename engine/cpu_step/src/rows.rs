//! The sequences that take part in a step, and which pieces of their caches its attention reads.

use crate::kernels::attend::{PIECE, Stored};
use crate::model::{Model, Unfit};

/// One token of one sequence, and where that sequence keeps its keys and values.
///
/// Several rows may belong to one sequence: neighbouring tokens in their order, with the same cache.
#[derive(Clone, Copy)]
pub struct Row {
    pub token: u32,
    /// Tokens before this one in its sequence.
    pub position: usize,
    /// Keys and values of layer 0, head 0, position 0; elements follow as (layer, head, position, head_dim).
    pub k: *mut u8,
    pub v: *mut u8,
    pub stored: Stored,
    /// Elements from one layer to the next, and from one head to the next.
    pub layer_stride: usize,
    pub head_stride: usize,
    /// The token before this one, where the architecture asks for it and there is one.
    pub previous: Option<u32>,
}

// SAFETY: the memory that it points to is used by one step at a time, whose threads share it out.
unsafe impl Send for Row {}
unsafe impl Sync for Row {}

impl Row {
    fn at(&self, base: *mut u8, layer: usize, head: usize, position: usize, dim: usize) -> *mut u8 {
        let size = if self.stored == Stored::F32 { 4 } else { 2 };
        base.wrapping_add((layer * self.layer_stride + head * self.head_stride + position * dim) * size)
    }

    #[must_use]
    pub fn key(&self, layer: usize, head: usize, position: usize, dim: usize) -> *mut u8 {
        self.at(self.k, layer, head, position, dim)
    }

    #[must_use]
    pub fn value(&self, layer: usize, head: usize, position: usize, dim: usize) -> *mut u8 {
        self.at(self.v, layer, head, position, dim)
    }

    /// Refuses what the model cannot read.
    pub fn check(&self, model: &Model) -> Result<(), Unfit> {
        let s = &model.shape;
        if self.position >= s.context {
            return Err(Unfit(format!("position {} is beyond the context of {} tokens", self.position, s.context)));
        }
        for token in [Some(self.token), self.previous].into_iter().flatten() {
            if token as usize >= s.vocab {
                return Err(Unfit(format!("token {token} is outside the vocabulary of {}", s.vocab)));
            }
        }
        if self.head_stride < (self.position + 1) * s.head_dim() || self.layer_stride < self.head_stride {
            return Err(Unfit(format!("the cache has no room for position {}", self.position)));
        }
        Ok(())
    }
}

/// What one attention task reads: a piece of one row's positions, for one key/value head.
#[derive(Clone, Copy)]
pub struct Piece {
    pub row: usize,
    /// Which of the row's pieces it is.
    pub index: usize,
    pub first: usize,
    pub len: usize,
}

/// The pieces of all rows, where a query sees `window` keys before its own.
#[must_use]
pub fn pieces(rows: &[Row], window: usize) -> Vec<Piece> {
    let mut all = Vec::new();
    for (row, r) in rows.iter().enumerate() {
        let (first, end) = (r.position.saturating_sub(window), r.position + 1);
        for (index, at) in (first..end).step_by(PIECE).enumerate() {
            all.push(Piece { row, index, first: at, len: PIECE.min(end - at) });
        }
    }
    all
}
