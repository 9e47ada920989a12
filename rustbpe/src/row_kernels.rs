//! The row kernels of a training step for Python: tensors come by address, and the interpreter is released meanwhile.
//!
//! Whoever calls has the addresses from contiguous tensors of the sizes given, and holds these during the call.

use ::row_kernels::add::Add;
use ::row_kernels::loss::SoftcappedLoss;
use ::row_kernels::norm::{Norm, NormGradient};
use ::row_kernels::relu::{Relu2, Relu2Gradient};
use ::row_kernels::rotary::{Heads, MOST_DIM, RotateNorm, RotateNormGradient};
use ::row_kernels::softmax::{Sight, Softmax, SoftmaxGradient};
use ::row_kernels::spread::{STRETCH, grain};
use ::row_kernels::{Bf16, Rows, spread};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

fn at<T>(address: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut(address)
}

/// Runs one of two instances of a kernel, by the precision of its tensors.
macro_rules! in_precision {
    ($bf16:expr, $number:ident => $body:expr) => {
        if $bf16 {
            type $number = Bf16;
            $body
        } else {
            type $number = f32;
            $body
        }
    };
}

fn run<R: Rows + Send>(py: Python<'_>, work: R, rows: usize, width: usize, threads: usize) {
    // SAFETY: the addresses and sizes are the caller's, see above
    py.detach(move || unsafe { spread(&work, rows, grain(width), threads) });
}

/// Functions over the rows of tensors on the CPU. `bf16` says that these hold bfloat16, else float32.
#[pyclass(frozen, module = "rustbpe")]
pub struct RowKernels {
    bf16: bool,
    threads: usize,
}

#[pymethods]
impl RowKernels {
    #[new]
    fn new(bf16: bool, threads: usize) -> Self {
        Self { bf16, threads }
    }

    /// Logits (rows, vocab) before the softcap become their gradient; `losses` float32 (rows,), `targets` int64 (rows,).
    #[expect(clippy::too_many_arguments, reason = "they are the tensors and their sizes")]
    fn softcapped_loss(
        &self,
        py: Python<'_>,
        logits: usize,
        targets: usize,
        losses: usize,
        rows: usize,
        vocab: usize,
        softcap: f32,
        share: f32,
    ) {
        let (targets, losses) = (at::<i64>(targets).cast_const(), at(losses));
        in_precision!(self.bf16, N => {
            run(py, SoftcappedLoss::<N> { logits: at(logits), targets, losses, vocab, softcap, share }, rows, vocab,
                self.threads);
        });
    }

    /// `y` = norm(x), both (rows, width); `scale` float32 (rows,).
    fn norm(&self, py: Python<'_>, x: usize, y: usize, scale: usize, rows: usize, width: usize) {
        in_precision!(self.bf16, N => {
            run(py, Norm::<N> { x: at(x), y: at(y), scale: at(scale), width }, rows, width, self.threads);
        });
    }

    #[expect(clippy::too_many_arguments, reason = "they are the tensors and their sizes")]
    fn norm_gradient(&self, py: Python<'_>, y: usize, scale: usize, dy: usize, dx: usize, rows: usize, width: usize) {
        in_precision!(self.bf16, N => {
            run(py, NormGradient::<N> { y: at(y), scale: at(scale), dy: at(dy), dx: at(dx), width }, rows, width,
                self.threads);
        });
    }

    /// `y` = max(x, 0)², both of `count` elements.
    fn relu2(&self, py: Python<'_>, x: usize, y: usize, count: usize) {
        in_precision!(self.bf16, N => {
            run(py, Relu2::<N> { x: at(x), y: at(y), count }, count.div_ceil(STRETCH), STRETCH, self.threads);
        });
    }

    /// `dy` becomes the gradient by x.
    fn relu2_gradient(&self, py: Python<'_>, x: usize, dy: usize, count: usize) {
        in_precision!(self.bf16, N => {
            run(py, Relu2Gradient::<N> { x: at(x), dy: at(dy), count }, count.div_ceil(STRETCH), STRETCH, self.threads);
        });
    }

    /// `y` (B, H, T, D) = amount · norm(rotated x), with x (B, T, H, D), cos and sin (T, D/2), `scale` float32 (B, H, T).
    #[expect(clippy::too_many_arguments, reason = "they are the tensors and their sizes")]
    fn rotate_norm(
        &self,
        py: Python<'_>,
        x: usize,
        y: usize,
        scale: usize,
        turn: (usize, usize),
        shape: (usize, usize, usize, usize),
        amount: f32,
    ) -> PyResult<()> {
        in_precision!(self.bf16, N => {
            let (heads, rows) = heads::<N>(turn, shape)?;
            run(py, RotateNorm::<N> { heads, x: at(x), y: at(y), scale: at(scale), amount }, rows, heads.dim,
                self.threads);
        });
        Ok(())
    }

    /// `dx` (B, T, H, D) from `dy`, `y` and `scale` as above.
    #[expect(clippy::too_many_arguments, reason = "they are the tensors and their sizes")]
    fn rotate_norm_gradient(
        &self,
        py: Python<'_>,
        y: usize,
        scale: usize,
        dy: usize,
        dx: usize,
        turn: (usize, usize),
        shape: (usize, usize, usize, usize),
        amount: f32,
    ) -> PyResult<()> {
        in_precision!(self.bf16, N => {
            let (heads, rows) = heads::<N>(turn, shape)?;
            let work = RotateNormGradient::<N> { heads, y: at(y), scale: at(scale), dy: at(dy), dx: at(dx), amount };
            run(py, work, rows, heads.dim, self.threads);
        });
        Ok(())
    }

    /// Scores (heads, queries, keys) become attention weights. Query i sees keys up to `first + i`, the last `window + 1`.
    fn softmax(
        &self,
        py: Python<'_>,
        scores: usize,
        shape: (usize, usize, usize),
        first: usize,
        window: usize,
        scale: f32,
    ) {
        let (heads, queries, keys) = shape;
        let sight = Sight { queries, keys, first, window };
        in_precision!(self.bf16, N => {
            run(py, Softmax::<N> { scores: at(scores), sight, scale }, heads * queries, keys, self.threads);
        });
    }

    /// `slopes`, the gradient by these weights, becomes that by the scores.
    #[expect(clippy::too_many_arguments, reason = "they are the tensors and their sizes")]
    fn softmax_gradient(
        &self,
        py: Python<'_>,
        weights: usize,
        slopes: usize,
        shape: (usize, usize, usize),
        first: usize,
        window: usize,
        scale: f32,
    ) {
        let (heads, queries, keys) = shape;
        let sight = Sight { queries, keys, first, window };
        in_precision!(self.bf16, N => {
            let work = SoftmaxGradient::<N> { weights: at::<N>(weights), slopes: at(slopes), sight, scale };
            run(py, work, heads * queries, keys, self.threads);
        });
    }

    /// float32 `sum` += `part`, both of `count` elements.
    fn add(&self, py: Python<'_>, sum: usize, part: usize, count: usize) {
        in_precision!(self.bf16, N => {
            let work = Add::<N> { sum: at(sum), part: at(part), count };
            run(py, work, count.div_ceil(STRETCH), STRETCH, self.threads);
        });
    }

    /// The largest head that can be rotated.
    #[classattr]
    const MOST_DIM: usize = MOST_DIM;
}

fn heads<N>(turn: (usize, usize), shape: (usize, usize, usize, usize)) -> PyResult<(Heads<N>, usize)> {
    let (batch, positions, heads, dim) = shape;
    if dim > MOST_DIM || dim % 2 == 1 {
        return Err(PyValueError::new_err(format!(
            "heads of {dim} numbers: even ones up to {MOST_DIM} can be rotated"
        )));
    }
    let (cos, sin) = (at::<N>(turn.0).cast_const(), at::<N>(turn.1).cast_const());
    Ok((Heads { cos, sin, positions, heads, dim }, batch * positions * heads))
}
