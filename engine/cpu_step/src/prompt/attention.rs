//! Attention of many neighbouring tokens: whole blocks of scores, as products of queries with packed keys.

use std::ops::Range;

use super::{Job, Local, Prompt};
use crate::kernels::attend::Stored;
use crate::kernels::gemm::{Block, FOUR, Source, Word};
use crate::kernels::simd::from_bf16;
use crate::model::Format;
use crate::rows::Row;

/// Queries of one head in one task: keys and values are packed once for all of them.
pub const QUERIES: usize = 64;

/// Neighbouring queries of one head, and which keys some of them see.
struct Sight<'a> {
    layer: usize,
    head: usize,
    query: usize,
    /// Number of the first query's token in the job.
    start: usize,
    rows: &'a [Row],
    window: usize,
    keys: Range<usize>,
}

impl Sight<'_> {
    /// Vectors in a product.
    fn count(&self) -> usize {
        self.rows.len().next_multiple_of(FOUR)
    }

    /// Which of the `width` keys of a panel a query sees.
    fn within(&self, row: &Row, panel: usize, width: usize) -> Range<usize> {
        let place = |position: usize| (position - self.keys.start).saturating_sub(panel * width).min(width);
        place(row.position.saturating_sub(self.window).max(self.keys.start))..place(row.position + 1)
    }
}

impl Prompt {
    /// Some queries of one head group over all keys that they see.
    pub(super) unsafe fn attend(&self, layer: usize, task: usize, job: Job<'_>, local: &mut Local) {
        let s = &self.net.model.shape;
        let (head, start) = (task % s.n_kv_head, task / s.n_kv_head * QUERIES);
        let rows = &job.rows[start..job.rows.len().min(start + QUERIES)];
        let window = self.net.model.layers[layer].window;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let group = s.n_head / s.n_kv_head;
        for query in head * group..(head + 1) * group {
            let keys = first.position.saturating_sub(window)..last.position + 1;
            let sight = Sight { layer, head, query, start, rows, window, keys };
            // SAFETY: keys and values were stored before the last barrier, and the results' places belong to this task
            unsafe {
                self.scores(&sight, local);
                self.softmax(&sight, local);
                self.weigh(&sight, local);
            }
        }
    }

    /// Products of queries and keys, panel by panel.
    unsafe fn scores(&self, sight: &Sight<'_>, local: &mut Local) {
        let (s, width) = (&self.net.model.shape, self.net.kernels.width);
        let (dim, row) = (s.head_dim(), s.n_embd + 2 * s.n_kv_head * s.head_dim());
        let tile = sight.count() * width;
        local.scores.clear();
        local.scores.resize(sight.keys.len().div_ceil(width) * tile, 0.0);
        for (first, scores) in sight.keys.clone().step_by(width).zip(local.scores.chunks_exact_mut(tile)) {
            let source = Source {
                w: sight.rows[0].key(sight.layer, sight.head, first, dim),
                format: if sight.rows[0].stored == Stored::F32 { Format::F32 } else { Format::Bf16 },
                rows: width.min(sight.keys.end - first),
                cols: dim,
                stride: dim,
            };
            let queries = self.qkv.ptr(sight.start * row + sight.query * dim);
            // SAFETY: as promised by the caller; what is taken for a query past the last one serves no purpose
            unsafe { self.accumulate(source, Word::F32, queries, row, &mut local.panel, scores) };
        }
    }

    /// Scores to weights that still have to be divided by their sums; what a query does not see weighs nothing.
    unsafe fn softmax(&self, sight: &Sight<'_>, local: &mut Local) {
        let (kernels, width) = (&self.net.kernels, self.net.kernels.width);
        for (i, row) in sight.rows.iter().enumerate() {
            let panels = || local.scores.chunks_exact(sight.count() * width).map(|panel| &panel[i * width..][..width]);
            let seen = panels().enumerate().map(|(p, part)| &part[sight.within(row, p, width)]);
            // SAFETY: the kernels are ones that this processor can run
            let most = seen.map(|part| unsafe { (kernels.largest)(part) }).fold(f32::NEG_INFINITY, f32::max);
            local.sums[i] = 0.0;
            for (p, panel) in local.scores.chunks_exact_mut(sight.count() * width).enumerate() {
                let (part, inside) = (&mut panel[i * width..][..width], sight.within(row, p, width));
                part[..inside.start].fill(0.0);
                part[inside.end..].fill(0.0);
                // SAFETY: as above
                local.sums[i] += unsafe { (kernels.exp_sum)(&mut part[inside], most) };
            }
        }
    }

    /// Values weighed, into the input of the attention's last product.
    unsafe fn weigh(&self, sight: &Sight<'_>, local: &mut Local) {
        let (dim, width, count) = (self.net.model.shape.head_dim(), self.net.kernels.width, sight.count());
        let word = self.net.kernels.word(self.net.model.layers[sight.layer].out.format);
        for column in (0..dim).step_by(width) {
            let wide = width.min(dim - column);
            let out = &mut local.out[..count * width];
            out.fill(0.0);
            for (first, scores) in sight.keys.clone().step_by(width).zip(local.scores.chunks_exact(count * width)) {
                let depth = width.min(sight.keys.end - first);
                for (position, to) in (first..first + depth).zip(local.panel.chunks_exact_mut(width)) {
                    let value = sight.rows[0].value(sight.layer, sight.head, position, dim);
                    // SAFETY: stored before the last barrier
                    unsafe { load(sight.rows[0].stored, value, column, &mut to[..wide]) };
                }
                let block = Block { x: scores.as_ptr(), stride: width, count, panel: local.panel.as_ptr(), depth };
                // SAFETY: all of that is this thread's own
                unsafe { (self.net.kernels.multiply_f32)(&block, out.as_mut_ptr()) };
            }
            for (i, values) in out.chunks_exact(width).take(sight.rows.len()).enumerate() {
                let (t, at) = (sight.start + i, sight.query * dim + column);
                // SAFETY: the place belongs to this task
                unsafe { self.put(&self.x, t, at, &values[..wide], 1.0 / local.sums[i], word) };
            }
        }
    }
}

/// Numbers of a cache from one place on.
unsafe fn load(stored: Stored, from: *const u8, at: usize, out: &mut [f32]) {
    for (i, to) in out.iter_mut().enumerate() {
        // SAFETY: the caller has seen that they are there
        unsafe {
            *to = match stored {
                Stored::F32 => *from.cast::<f32>().add(at + i),
                Stored::Bf16 => from_bf16(*from.cast::<u16>().add(at + i)),
            }
        }
    }
}
