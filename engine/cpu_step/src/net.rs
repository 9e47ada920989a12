//! What happens to single tokens ahead of, inside and between the layers, however many of them are read at once.

use crate::kernels::Kernels;
use crate::kernels::attend::Stored;
use crate::kernels::simd::to_bf16;
use crate::model::{Matrix, Model};
use crate::rows::Row;

/// Factors of the hash of a token and its predecessor.
const HASH: (i64, i64) = (36_313, 27_191);

/// A model and the inner loops that compute it.
pub struct Net {
    pub model: Model,
    /// Ones that this processor can run.
    pub kernels: Kernels,
}

impl Net {
    /// A token ahead of the first layer: the `stream`, its `first` state, and the embedding of its pair; each (n_embd).
    pub fn embed(&self, row: &Row, stream: &mut [f32], first: &mut [f32], pairs: &mut [f32]) {
        let model = &self.model;
        self.embedding(row.token, first);
        if let (Some(smear), Some(previous)) = (model.smear, row.previous) {
            self.embedding(previous, stream);
            let share = smear.amount * sigmoid(dot(&smear.gate, 0, first));
            first.iter_mut().zip(&*stream).for_each(|(x, before)| *x += share * before);
        }
        stream.copy_from_slice(first);
        if let Some(table) = model.pairs {
            table.row_into(pair_row(&table, row), pairs);
        }
        if let Some(mix) = model.layers.first().and_then(|layer| layer.mix) {
            for (i, x) in stream.iter_mut().enumerate() {
                *x = mix.stream * first[i] + mix.embedding * first[i] + mix.pair * pairs[i];
            }
        }
    }

    /// The normalised embedding of a token.
    fn embedding(&self, token: u32, out: &mut [f32]) {
        self.model.embedding.row_into(token as usize, out);
        // SAFETY: the kernels are ones that this processor can run
        let factor = unsafe { (self.kernels.norm_factor)(out) };
        out.iter_mut().for_each(|x| *x *= factor);
    }

    /// Rotates and normalises a query, and scales it so that its products with keys are the scores.
    pub fn turn_query(&self, row: &Row, query: &mut [f32]) {
        self.rotate(query, row.position, self.model.shape.qk_scale / (query.len() as f32).sqrt());
    }

    /// Rotates and normalises the key of one head of a token, whose stream is `x`; key and value go into its cache.
    ///
    /// # Safety
    /// The head's places in the cache are used by nobody else meanwhile, and `Row::check` has approved.
    pub unsafe fn insert(&self, layer: usize, head: usize, row: &Row, x: &[f32], k: &mut [f32], v: &mut [f32]) {
        let dim = k.len();
        self.rotate(k, row.position, self.model.shape.qk_scale);
        if let Some(value) = self.model.layers[layer].value_embedding {
            // SAFETY: as in `embedding`
            let opening = dot(&value.gate, head, x) * unsafe { (self.kernels.norm_factor)(x) };
            let gate = value.scale * sigmoid(opening);
            let mut own = vec![0.0; value.table.cols];
            value.table.row_into(row.token as usize, &mut own);
            v.iter_mut().zip(&own[head * dim..]).for_each(|(v, own)| *v += gate * own);
        }
        // SAFETY: `Row::check` saw that there is room
        unsafe {
            store(row.stored, k, row.key(layer, head, row.position, dim));
            store(row.stored, v, row.value(layer, head, row.position, dim));
        }
    }

    /// Rotary embedding by a position, then QK norm.
    fn rotate(&self, x: &mut [f32], position: usize, factor: f32) {
        let half = x.len() / 2;
        // SAFETY: the tables have a row of floats for every position of the context
        unsafe {
            let angles = |m: &Matrix| std::slice::from_raw_parts(m.row(position).cast::<f32>(), half);
            (self.kernels.rotate)(x, angles(&self.model.cos), angles(&self.model.sin), factor);
        }
    }

    /// What the architecture does to the stream between a layer and the next one, or the end. All are the same channels
    /// of the same token.
    pub fn between_layers(&self, layer: usize, stream: &mut [f32], first: &[f32], middle: &mut [f32], pairs: &[f32]) {
        if let Some(backout) = self.model.backout {
            if layer == backout.layer {
                middle.copy_from_slice(stream);
            }
            if layer + 1 == self.model.layers.len() {
                stream.iter_mut().zip(middle).for_each(|(x, taken)| *x -= backout.amount * *taken);
            }
        }
        if let Some(mix) = self.model.layers.get(layer + 1).and_then(|next| next.mix) {
            for ((x, x0), pair) in stream.iter_mut().zip(first).zip(pairs) {
                *x = mix.stream * *x + mix.embedding * x0 + mix.pair * pair;
            }
        }
    }
}

/// Numbers into a cache, in the cache's precision.
unsafe fn store(stored: Stored, from: &[f32], to: *mut u8) {
    for (i, &value) in from.iter().enumerate() {
        // SAFETY: the caller has seen that there is room
        unsafe {
            match stored {
                Stored::F32 => *to.cast::<f32>().add(i) = value,
                Stored::Bf16 => *to.cast::<u16>().add(i) = to_bf16(value),
            }
        }
    }
}

/// Row of a token and its predecessor in the table of pairs.
fn pair_row(table: &Matrix, row: &Row) -> usize {
    let last = table.rows - 1;
    row.previous.map_or(last, |previous| {
        let hash = (HASH.0 * i64::from(row.token)) ^ (HASH.1 * i64::from(previous));
        hash.rem_euclid(last as i64) as usize
    })
}

/// A row of a small matrix times the first numbers of a vector.
fn dot(m: &Matrix, row: usize, x: &[f32]) -> f32 {
    let mut weights = vec![0.0; m.cols];
    m.row_into(row, &mut weights);
    weights.iter().zip(x).map(|(w, x)| w * x).sum()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
