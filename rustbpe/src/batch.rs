//! Chunks are handed out many at a time, so that the memory is asked for the next while the last are looked at.

/// Chunks handed out together, about: enough to keep the memory busy, few enough to stay in the nearest cache.
pub const BATCH: usize = 64;
/// A batch is handed out before another block could make it larger than this.
const ROOM: usize = 4 * BATCH;

/// Some chunks in a row, each beginning where the one before it ends.
#[derive(Debug, Clone, Copy)]
pub struct Chunks<'a> {
    /// Where the first one begins.
    pub start: usize,
    pub ends: &'a [usize],
}

impl Chunks<'_> {
    /// Start and end of each.
    #[inline(always)]
    pub fn spans(&self) -> impl Iterator<Item = (usize, usize)> {
        self.ends.iter().scan(self.start, |start, &end| Some((std::mem::replace(start, end), end)))
    }
}

/// Chunks found and not handed out yet.
pub struct Batch {
    start: usize,
    ends: [usize; ROOM],
    len: usize,
}

impl Batch {
    #[inline(always)]
    pub fn new() -> Self {
        Self { start: 0, ends: [0; ROOM], len: 0 }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub fn push(&mut self, end: usize) {
        self.ends[self.len % ROOM] = end;
        self.len += 1;
    }

    #[inline(always)]
    pub fn hand_out(&mut self, visit: &mut impl FnMut(Chunks<'_>)) {
        let ends = &self.ends[..self.len.min(ROOM)];
        visit(Chunks { start: self.start, ends });
        self.start = ends.last().copied().unwrap_or(self.start);
        self.len = 0;
    }
}
