//! What a model is to this crate: shapes, and where its weights lie. Memory belongs to whoever built it.

use std::fmt;

use crate::kernels::gemv::int8_limit;
use crate::kernels::simd::from_bf16;

/// How the weights of a matrix are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    F32,
    Bf16,
    /// One byte each, with a scale per row.
    Int8,
}

impl Format {
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }
}

/// Weights (rows, cols), row after row. `scales` has one factor per row and is read for int8 only.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub format: Format,
    pub data: *const u8,
    pub rows: usize,
    pub cols: usize,
    pub scales: *const f32,
}

// SAFETY: only read, and `Model::new` demands that the memory stays.
unsafe impl Send for Matrix {}
unsafe impl Sync for Matrix {}

impl Matrix {
    /// Bytes of the weights.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows * self.cols * self.format.bytes()
    }

    #[must_use]
    pub fn row(&self, row: usize) -> *const u8 {
        self.data.wrapping_add(row * self.cols * self.format.bytes())
    }

    /// One row as floats.
    pub(crate) fn row_into(&self, row: usize, out: &mut [f32]) {
        let from = self.row(row);
        let n = self.cols.min(out.len());
        // SAFETY: the caller names a row that exists, and the matrix is as large as it says
        unsafe {
            match self.format {
                Format::F32 => (0..n).for_each(|i| out[i] = *from.cast::<f32>().add(i)),
                Format::Bf16 => (0..n).for_each(|i| out[i] = from_bf16(*from.cast::<u16>().add(i))),
                Format::Int8 => {
                    let scale = *self.scales.add(row);
                    (0..n).for_each(|i| out[i] = f32::from(*from.cast::<i8>().add(i)) * scale);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub n_layer: usize,
    pub n_head: usize,
    pub n_kv_head: usize,
    pub n_embd: usize,
    /// Longest sequence: rows of the rotary tables.
    pub context: usize,
    /// Logits that are computed; the tables may have more rows.
    pub vocab: usize,
    /// Logits are squeezed into (-softcap, softcap).
    pub softcap: f32,
    /// After QK norm, q and k are each multiplied by this.
    pub qk_scale: f32,
}

impl Shape {
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }
}

/// A token's own addition to the attention values of one layer, behind a gate per key/value head.
#[derive(Clone, Copy)]
pub struct ValueEmbedding {
    /// (vocabulary, n_kv_head * head_dim)
    pub table: Matrix,
    /// (n_kv_head, channels of the layer's input that it reads)
    pub gate: Matrix,
    /// The gate opens from 0 to this.
    pub scale: f32,
}

/// Ahead of a layer the stream becomes `stream` times itself, `embedding` times what it was ahead of the first layer, and
/// `pair` times the embedding of the token and its predecessor.
#[derive(Clone, Copy)]
pub struct Mix {
    pub stream: f32,
    pub embedding: f32,
    pub pair: f32,
}

#[derive(Clone, Copy)]
pub struct Layer {
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    pub out: Matrix,
    pub up: Matrix,
    pub down: Matrix,
    /// Earlier keys that a query sees beside its own.
    pub window: usize,
    pub mix: Option<Mix>,
    pub value_embedding: Option<ValueEmbedding>,
}

/// Each token gets a gated share of its predecessor's embedding.
#[derive(Clone, Copy)]
pub struct Smear {
    /// (1, channels)
    pub gate: Matrix,
    pub amount: f32,
}

/// This share of a middle layer's output is taken away at the end.
#[derive(Clone, Copy)]
pub struct Backout {
    pub layer: usize,
    pub amount: f32,
}

/// A whole model. `cos` and `sin` are (context, head_dim / 2).
pub struct Model {
    pub shape: Shape,
    pub embedding: Matrix,
    pub layers: Vec<Layer>,
    pub head: Matrix,
    pub cos: Matrix,
    pub sin: Matrix,
    pub smear: Option<Smear>,
    pub backout: Option<Backout>,
    /// Embeddings of hashed pairs of tokens; the last row belongs to a token that has no predecessor.
    pub pairs: Option<Matrix>,
}

/// Why a model cannot be stepped here.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit(pub String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl Model {
    /// Checks that the shapes agree with each other, so that a step stays within the memory it was given.
    pub fn check(&self) -> Result<(), Unfit> {
        let s = &self.shape;
        let sizes = [s.n_layer, s.n_head, s.n_kv_head, s.n_embd, s.context, s.vocab];
        let heads_fit = || s.n_embd.is_multiple_of(s.n_head) && s.n_head.is_multiple_of(s.n_kv_head);
        if sizes.contains(&0) || !heads_fit() || !s.head_dim().is_multiple_of(2) {
            return Err(Unfit(format!("no such model: {s:?}")));
        }
        if self.layers.len() != s.n_layer {
            return Err(Unfit(format!("{} layers instead of {}", self.layers.len(), s.n_layer)));
        }
        let (c, kv) = (s.n_embd, s.n_kv_head * s.head_dim());
        for (i, layer) in self.layers.iter().enumerate() {
            let hidden = layer.up.rows;
            if !hidden.is_multiple_of(2) {
                return Err(Unfit(format!("layer {i}: an odd number of {hidden} channels in the MLP")));
            }
            let wanted = [(layer.q, c, c), (layer.k, kv, c), (layer.v, kv, c), (layer.out, c, c)];
            for (m, rows, cols) in wanted.into_iter().chain([(layer.up, hidden, c), (layer.down, c, hidden)]) {
                sized(&m, rows, cols, i)?;
            }
            if [layer.k.format, layer.v.format] != [layer.q.format; 2] {
                return Err(Unfit(format!("layer {i}: queries, keys and values are stored differently")));
            }
            if let Some(value) = layer.value_embedding {
                at_least(&value.table, s.vocab, kv)?;
                if value.gate.rows != s.n_kv_head || value.gate.cols > c {
                    return Err(Unfit(format!("layer {i}: a value gate of {} x {}", value.gate.rows, value.gate.cols)));
                }
            }
        }
        at_least(&self.embedding, s.vocab, c)?;
        at_least(&self.head, s.vocab, c)?;
        if self.smear.is_some_and(|smear| smear.gate.rows != 1 || smear.gate.cols > c) {
            return Err(Unfit("the smear gate has a wrong shape".to_owned()));
        }
        if self.pairs.is_some_and(|table| table.rows < 2 || table.cols != c) {
            return Err(Unfit("the table of token pairs has a wrong shape".to_owned()));
        }
        for table in [&self.cos, &self.sin] {
            at_least(table, s.context, s.head_dim() / 2)?;
            if table.format != Format::F32 {
                return Err(Unfit("rotary tables must be float32".to_owned()));
            }
        }
        Ok(())
    }

    /// Bytes of weights that one step reads: every matrix once, of the tables next to nothing.
    #[must_use]
    pub fn bytes_per_step(&self) -> usize {
        let head = self.shape.vocab * self.head.cols * self.head.format.bytes();
        let all = |l: &Layer| [l.q, l.k, l.v, l.out, l.up, l.down].iter().map(Matrix::bytes).sum::<usize>();
        head + self.layers.iter().map(all).sum::<usize>()
    }
}

fn sized(m: &Matrix, rows: usize, cols: usize, layer: usize) -> Result<(), Unfit> {
    if (m.rows, m.cols) != (rows, cols) {
        return Err(Unfit(format!("layer {layer}: a matrix is {} x {}, not {rows} x {cols}", m.rows, m.cols)));
    }
    if m.format == Format::Int8 && int8_limit(cols) < 256.0 {
        return Err(Unfit(format!("int8 rows of {cols} weights are too long for 32-bit sums")));
    }
    Ok(())
}

fn at_least(m: &Matrix, rows: usize, cols: usize) -> Result<(), Unfit> {
    if m.rows < rows || m.cols != cols {
        return Err(Unfit(format!("a table is {} x {}, not {rows} x {cols}", m.rows, m.cols)));
    }
    Ok(())
}
