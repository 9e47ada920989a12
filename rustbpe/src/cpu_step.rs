//! The decode step as a Python class: takes tensors by address, names and numbers, and releases the interpreter.
//!
//! Python keeps the tensors alive: the class holds on to whatever object is handed over with them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ::cpu_step::kernels::available;
use ::cpu_step::quantize::{Quantize, quantize};
use ::cpu_step::{
    Backout, Format, Layer, MOST, MOST_TOKENS, Matrix, Mix, Model, Row, Shape, Smear, Stepper, Stored, Unfit, ValueEmbedding,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// Address, kind ("f32", "bf16", "int8"), rows, columns.
type Tensor = (usize, String, usize, usize);
/// Token, position, addresses of keys and values, elements per layer and per head, the token before (-1: none).
type RowOf = (u32, usize, usize, usize, usize, usize, i64);

fn unfit(error: Unfit) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A model that reads one token per row and gives logits.
#[pyclass(frozen, module = "rustbpe")]
pub struct CpuStep {
    stepper: Mutex<Stepper>,
    /// Threads do not survive a fork.
    process: u32,
    #[expect(dead_code, reason = "held so that the tensors stay")]
    owner: Py<PyAny>,
}

#[pymethods]
impl CpuStep {
    /// `tensors` by their names in the state dict, with an int8 "x.weight" its row scales "x.scales"; `numbers` are
    /// the shape and constants of the model; `windows` how many earlier keys each layer sees; `owner` keeps it all.
    ///
    /// `kernels` names an instruction set; None takes the best one.
    #[new]
    #[pyo3(signature = (tensors, numbers, windows, threads, owner, kernels=None))]
    fn new(
        tensors: HashMap<String, Tensor>,
        numbers: HashMap<String, f64>,
        windows: Vec<usize>,
        threads: usize,
        owner: Py<PyAny>,
        kernels: Option<&str>,
    ) -> PyResult<Self> {
        let model = Parts { tensors, numbers }.model(&windows)?;
        let table = available().into_iter().find(|table| kernels.is_none_or(|name| name == table.name));
        let table = table.ok_or_else(|| PyValueError::new_err(format!("this processor has no {kernels:?}")))?;
        // SAFETY: the owner keeps the tensors, whose addresses and sizes the caller has from them
        let stepper = unsafe { Stepper::with(model, threads, table) }.map_err(unfit)?;
        Ok(Self { stepper: Mutex::new(stepper), process: std::process::id(), owner })
    }

    /// Read one token per row; `rows` from number `first_logits` on get logits, float32 (rows, vocab), at `logits`.
    ///
    /// `bf16` says that all caches hold bfloat16, else float32.
    fn step(&self, py: Python<'_>, rows: Vec<RowOf>, bf16: bool, first_logits: usize, logits: usize) -> PyResult<()> {
        let stored = if bf16 { Stored::Bf16 } else { Stored::F32 };
        let rows: Vec<Row> = rows.into_iter().map(|row| row_of(row, stored)).collect();
        let logits = Address(logits);
        // SAFETY: the caller has the addresses from tensors that it holds during this call
        self.with(py, move |stepper| unsafe { stepper.step(&rows, first_logits, logits.get().cast()) })?.map_err(unfit)
    }

    /// Read neighbouring tokens, at most MOST_TOKENS, behind `row`, which is the first of them; the logits behind the last
    /// one, float32 (vocab,), at `logits`.
    fn read(&self, py: Python<'_>, tokens: Vec<u32>, row: RowOf, bf16: bool, logits: usize) -> PyResult<()> {
        let first = row_of(row, if bf16 { Stored::Bf16 } else { Stored::F32 });
        let before = std::iter::once(first.previous).chain(tokens.iter().copied().map(Some));
        let rows: Vec<Row> = (first.position..)
            .zip(tokens.iter().zip(before))
            .map(|(position, (&token, previous))| Row { token, position, previous, ..first })
            .collect();
        let logits = Address(logits);
        // SAFETY: as in `step`
        self.with(py, move |stepper| unsafe { stepper.read(&rows, logits.get().cast()) })?.map_err(unfit)
    }

    /// Bytes per second at which the same threads read the `count` floats at an address, and do nothing else.
    fn read_speed(&self, py: Python<'_>, address: usize, count: usize) -> PyResult<f64> {
        let memory = Address(address);
        self.with(py, move |stepper| {
            // SAFETY: the caller has the address from a tensor of that size, which it holds during this call
            stepper.read_speed(unsafe { std::slice::from_raw_parts(memory.get().cast::<f32>(), count) })
        })
    }

    /// Turn the float32 matrix (rows, cols) at `source` into int8 `numbers` of the same shape and float32 `scales` (rows,).
    #[staticmethod]
    fn quantize(
        py: Python<'_>,
        source: usize,
        rows: usize,
        cols: usize,
        numbers: usize,
        scales: usize,
        threads: usize,
    ) {
        let (from, numbers, scales) = (Address(source).get(), Address(numbers).get(), Address(scales).get());
        let work =
            Quantize { from: from.cast_const().cast(), rows, cols, numbers: numbers.cast(), scales: scales.cast() };
        // SAFETY: the caller has the addresses from tensors of these sizes, which it holds during this call
        py.detach(move || unsafe { quantize(work, threads) });
    }

    /// The instruction set in use.
    #[getter]
    fn kernels(&self) -> &'static str {
        self.stepper.lock().unwrap_or_else(PoisonError::into_inner).kernels()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.stepper.lock().unwrap_or_else(PoisonError::into_inner).threads()
    }

    /// Bytes of weights that one step reads.
    #[getter]
    fn bytes_per_step(&self) -> usize {
        self.stepper.lock().unwrap_or_else(PoisonError::into_inner).model().bytes_per_step()
    }

    /// The most rows of one step.
    #[classattr]
    const MOST_ROWS: usize = MOST;

    /// The most tokens of one `read`.
    #[classattr]
    const MOST_TOKENS: usize = MOST_TOKENS;
}

impl CpuStep {
    fn with<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Stepper) -> T + Send) -> PyResult<T> {
        if std::process::id() != self.process {
            return Err(PyRuntimeError::new_err("a decode step cannot be used in a forked process: make a new one"));
        }
        Ok(py.detach(|| work(&mut self.stepper.lock().unwrap_or_else(PoisonError::into_inner))))
    }
}

/// An address that may go to the thread that works while the interpreter is released.
#[derive(Clone, Copy)]
struct Address(usize);

impl Address {
    fn get(self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.0)
    }
}

fn row_of((token, position, k, v, layer_stride, head_stride, previous): RowOf, stored: Stored) -> Row {
    let (k, v, previous) = (Address(k).get(), Address(v).get(), u32::try_from(previous).ok());
    Row { token, position, k, v, stored, layer_stride, head_stride, previous }
}

/// What a model is put together from.
struct Parts {
    tensors: HashMap<String, Tensor>,
    numbers: HashMap<String, f64>,
}

impl Parts {
    fn model(&self, windows: &[usize]) -> PyResult<Model> {
        let shape = Shape {
            n_layer: self.count("n_layer")?,
            n_head: self.count("n_head")?,
            n_kv_head: self.count("n_kv_head")?,
            n_embd: self.count("n_embd")?,
            context: self.count("context")?,
            vocab: self.count("vocab_size")?,
            softcap: self.number("softcap")?,
            qk_scale: self.number("qk_scale")?,
        };
        let layers = windows.iter().enumerate().map(|(i, &window)| self.layer(i, window)).collect::<PyResult<_>>()?;
        let smear = |gate| Ok::<_, PyErr>(Smear { gate, amount: self.number("smear_lambda")? });
        let backout = |amount| Ok::<_, PyErr>(Backout { layer: self.count("backout_layer")?, amount });
        Ok(Model {
            shape,
            layers,
            embedding: self.matrix("transformer.wte.weight")?,
            head: self.matrix("lm_head.weight")?,
            cos: self.matrix("cos")?,
            sin: self.matrix("sin")?,
            smear: self.optional("smear_gate.weight")?.map(smear).transpose()?,
            backout: self.numbers.get("backout_lambda").map(|&amount| backout(amount as f32)).transpose()?,
            pairs: self.optional("bigram_embed.embed.weight")?,
        })
    }

    fn layer(&self, i: usize, window: usize) -> PyResult<Layer> {
        let matrix = |name: &str| self.matrix(&format!("transformer.h.{i}.{name}.weight"));
        let lambda = |name: &str| self.numbers.get(&format!("{name}.{i}")).map(|&value| value as f32);
        let value = |table| {
            let scale = self.number("gate_scale")?;
            Ok::<_, PyErr>(ValueEmbedding { table, gate: matrix("attn.ve_gate")?, scale })
        };
        Ok(Layer {
            q: matrix("attn.c_q")?,
            k: matrix("attn.c_k")?,
            v: matrix("attn.c_v")?,
            out: matrix("attn.c_proj")?,
            up: matrix("mlp.c_fc")?,
            down: matrix("mlp.c_proj")?,
            window,
            mix: lambda("resid_lambdas").map(|stream| Mix {
                stream,
                embedding: lambda("x0_lambdas").unwrap_or(0.0),
                pair: lambda("bigram_lambdas").unwrap_or(0.0),
            }),
            value_embedding: self.optional(&format!("value_embeds.{i}.weight"))?.map(value).transpose()?,
        })
    }

    fn matrix(&self, name: &str) -> PyResult<Matrix> {
        self.optional(name)?.ok_or_else(|| PyValueError::new_err(format!("there is no tensor {name}")))
    }

    fn optional(&self, name: &str) -> PyResult<Option<Matrix>> {
        let Some((address, kind, rows, cols)) = self.tensors.get(name) else { return Ok(None) };
        let format = match kind.as_str() {
            "f32" => Format::F32,
            "bf16" => Format::Bf16,
            "int8" => Format::Int8,
            _ => return Err(PyValueError::new_err(format!("{name}: numbers of kind {kind:?}"))),
        };
        let scales = self.tensors.get(&format!("{}scales", name.trim_end_matches("weight")));
        if format == Format::Int8 && scales.is_none_or(|(_, kind, count, _)| kind != "f32" || count != rows) {
            return Err(PyValueError::new_err(format!("{name} has no float32 scale for each of its rows")));
        }
        let scales = scales.map_or(std::ptr::null(), |(address, ..)| Address(*address).get().cast_const().cast());
        Ok(Some(Matrix { format, data: Address(*address).get(), rows: *rows, cols: *cols, scales }))
    }

    fn get(&self, name: &str) -> PyResult<f64> {
        self.numbers.get(name).copied().ok_or_else(|| PyValueError::new_err(format!("there is no number {name}")))
    }

    fn number(&self, name: &str) -> PyResult<f32> {
        Ok(self.get(name)? as f32)
    }

    fn count(&self, name: &str) -> PyResult<usize> {
        Ok(self.get(name)?.max(0.0) as usize)
    }
}
