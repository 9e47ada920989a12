//! What a thread does in each phase: prepare a product's input, compute some rows of it, rotate and store keys, attend.

use crate::MOST;
use crate::kernels::attend::{PIECE, Span, Stored};
use crate::kernels::exp;
use crate::kernels::gemv::{Gemv, Panel};
use crate::model::Format;
use crate::rows::Row;
use crate::scratch::Local;
use crate::walk::{Job, Phase, Walk};

/// Which kernel takes this many vectors, and how many it takes.
fn width(vectors: usize) -> (usize, usize) {
    let index = vectors.max(1).next_power_of_two().trailing_zeros() as usize;
    (index, 1 << index)
}

impl Walk {
    /// Input vectors of a phase's product, as the kernels want them.
    pub(crate) unsafe fn prepare(&self, phase: Phase, job: &Job<'_>, local: &mut Local) {
        let Some(format) = self.matrices(phase)[0].map(|m| m.format) else { return };
        let c = self.net.model.shape.n_embd;
        // SAFETY: these were written before the last barrier, and are not in this phase
        unsafe {
            match phase {
                Phase::Out(layer) => {
                    let mut mixed = std::mem::take(&mut local.vector);
                    for (b, row) in job.rows.iter().enumerate() {
                        self.mix_pieces(layer, b, row, &mut mixed[..c]);
                        self.put(local, b, &mixed[..c], 1.0, format);
                    }
                    local.vector = mixed;
                }
                Phase::Down(layer) => {
                    let wide = self.net.model.layers[layer].down.cols;
                    for b in 0..job.rows.len() {
                        self.put(local, b, self.hidden.read(b * self.longest, wide), 1.0, format);
                    }
                }
                _ => {
                    let first = if phase == Phase::Logits { job.first_logits } else { 0 };
                    for b in first..job.rows.len() {
                        let x = self.stream.read(b * c, c);
                        self.put(local, b - first, x, (self.net.kernels.norm_factor)(x), format);
                    }
                }
            }
        }
    }

    /// One vector times a factor into the place of number `b`.
    unsafe fn put(&self, local: &mut Local, b: usize, x: &[f32], factor: f32, format: Format) {
        let to = &mut local.x[b * local.stride..][..x.len()];
        // SAFETY: the kernels are ones that this processor can run; i16 need half the room of f32
        unsafe {
            match format {
                Format::F32 => (self.net.kernels.scale)(x, factor, to),
                Format::Bf16 => (self.net.kernels.split)(x, factor, to),
                Format::Int8 => {
                    let whole = std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<i16>(), x.len());
                    local.unit[b] = (self.net.kernels.quantize)(x, factor, whole);
                }
            }
        }
    }

    pub(crate) unsafe fn perform(&self, phase: Phase, task: usize, job: &Job<'_>, local: &mut Local) {
        let heads = self.net.model.shape.n_kv_head;
        // SAFETY: as promised by the caller
        unsafe {
            match phase {
                Phase::Insert(layer) => self.insert(layer, task / heads, task % heads, job),
                Phase::Attend(layer) => self.attend(layer, task / heads, task % heads, job, local),
                _ => self.product(phase, task, job, local),
            }
        }
    }

    unsafe fn product(&self, phase: Phase, task: usize, job: &Job<'_>, local: &mut Local) {
        let Some((which, m, first, rows)) = self.locate(phase, task) else { return };
        let vectors = job.rows.len() - if phase == Phase::Logits { job.first_logits } else { 0 };
        let (index, wide) = width(vectors);
        let table: &[Gemv; 4] = match m.format {
            Format::F32 => &self.net.kernels.f32,
            Format::Bf16 => &self.net.kernels.bf16,
            Format::Int8 => &self.net.kernels.int8,
        };
        let panel = Panel { w: m.row(first), rows, cols: m.cols, x: local.x.as_ptr().cast(), stride: local.stride * 4 };
        debug_assert!(rows * wide <= local.out.len() && vectors <= MOST);
        // SAFETY: the rows are the matrix's, the vectors were prepared for its format
        unsafe { table[index](&panel, local.out.as_mut_ptr()) };
        if m.format == Format::Int8 {
            for r in 0..rows {
                // SAFETY: an int8 matrix has a scale for each row
                let scale = unsafe { *m.scales.add(first + r) };
                (0..vectors).for_each(|b| local.out[r * wide + b] *= scale * local.unit[b]);
            }
        }
        for b in 0..vectors {
            let results = local.out[..rows * wide].iter().skip(b).step_by(wide).copied();
            // SAFETY: nobody else writes these rows
            unsafe { self.finish(phase, which, b, first, rows, results, job) };
        }
    }

    /// What becomes of the products of rows `first..first + rows` with vector `b`.
    #[expect(clippy::too_many_arguments, reason = "all say which numbers these are")]
    unsafe fn finish(
        &self,
        phase: Phase,
        which: usize,
        b: usize,
        first: usize,
        rows: usize,
        results: impl Iterator<Item = f32>,
        job: &Job<'_>,
    ) {
        let s = &self.net.model.shape;
        let (c, kv) = (s.n_embd, s.n_kv_head * s.head_dim());
        // SAFETY: these places belong to this task
        unsafe {
            match phase {
                Phase::Project(_) => {
                    let at = b * (c + 2 * kv) + [0, c, c + kv][which] + first;
                    self.qkv.write(at, rows).iter_mut().zip(results).for_each(|(to, value)| *to = value);
                }
                Phase::Up(_) => {
                    let hidden = self.hidden.write(b * self.longest + first, rows);
                    hidden.iter_mut().zip(results).for_each(|(to, value)| *to = value.max(0.0) * value.max(0.0));
                }
                Phase::Logits => {
                    let logits = std::slice::from_raw_parts_mut(job.logits.add(b * s.vocab + first), rows);
                    logits.iter_mut().zip(results).for_each(|(to, value)| *to = value);
                    (self.net.kernels.softcap)(logits, s.softcap);
                }
                _ => {
                    let stream = self.stream.write(b * c + first, rows);
                    stream.iter_mut().zip(results).for_each(|(to, value)| *to += value);
                    if let Phase::Down(layer) = phase {
                        let at = b * c + first;
                        let (start, pairs) = (self.first.read(at, rows), self.pairs.read(at, rows));
                        self.net.between_layers(layer, stream, start, self.middle.write(at, rows), pairs);
                    }
                }
            }
        }
    }

    /// Key and value of one head of row `b` into its cache.
    unsafe fn insert(&self, layer: usize, b: usize, head: usize, job: &Job<'_>) {
        let s = &self.net.model.shape;
        let (c, dim, kv) = (s.n_embd, s.head_dim(), s.n_kv_head * s.head_dim());
        let at = b * (c + 2 * kv) + c + head * dim;
        // SAFETY: the parts of this head belong to this task, and so do its places in the cache
        unsafe {
            let (k, v) = (self.qkv.write(at, dim), self.qkv.write(at + kv, dim));
            self.net.insert(layer, head, &job.rows[b], self.stream.read(b * c, c), k, v);
        }
    }

    /// All queries of one head group over one piece of the row's positions.
    unsafe fn attend(&self, layer: usize, task: usize, head: usize, job: &Job<'_>, local: &mut Local) {
        let s = &self.net.model.shape;
        let (c, dim, group) = (s.n_embd, s.head_dim(), s.n_head / s.n_kv_head);
        let Some(piece) = job.pieces_of(self.net.model.layers[layer].window).get(task) else { return };
        let row = &job.rows[piece.row];
        if job.inserts_late() && piece.first + piece.len > row.position {
            // SAFETY: this is the only piece that sees them
            unsafe { self.insert(layer, piece.row, head, job) };
        }
        let span = Span {
            k: row.key(layer, head, piece.first, dim),
            v: row.value(layer, head, piece.first, dim),
            len: piece.len,
            dim,
        };
        let attend = if row.stored == Stored::F32 { self.net.kernels.attend_f32 } else { self.net.kernels.attend_bf16 };
        let q = &mut local.vector[..dim];
        for query in head * group..(head + 1) * group {
            let place = (piece.row * s.n_head + query) * self.most_pieces + piece.index;
            // SAFETY: what is read was written before the barrier, and the places belong to this task
            unsafe {
                q.copy_from_slice(self.qkv.read(piece.row * (c + 2 * s.n_kv_head * dim) + query * dim, dim));
                self.net.turn_query(row, q);
                let (most, sum) = attend(&span, q.as_ptr(), self.sums.ptr(place * dim));
                self.weights.write(place * 2, 2).copy_from_slice(&[most, sum]);
            }
        }
    }

    /// The attention output of row `b`, from all its pieces.
    unsafe fn mix_pieces(&self, layer: usize, b: usize, row: &Row, out: &mut [f32]) {
        let s = &self.net.model.shape;
        let dim = s.head_dim();
        let keys = row.position.min(self.net.model.layers[layer].window) + 1;
        let pieces = keys.div_ceil(PIECE);
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            let place = (b * s.n_head + head) * self.most_pieces;
            // SAFETY: written before the barrier
            let (sums, weights) =
                unsafe { (self.sums.read(place * dim, pieces * dim), self.weights.read(place * 2, pieces * 2)) };
            let most = weights.iter().step_by(2).fold(f32::NEG_INFINITY, |most, &w| most.max(w));
            let factor = |i: usize| exp(weights[2 * i] - most);
            let total: f32 = (0..pieces).map(|i| factor(i) * weights[2 * i + 1]).sum();
            out.fill(0.0);
            for (i, values) in sums.chunks_exact(dim).enumerate() {
                let share = factor(i) / total;
                out.iter_mut().zip(values).for_each(|(to, value)| *to += share * value);
            }
        }
    }
}
