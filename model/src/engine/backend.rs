//! The operations training is made of, each forward and backward, over one device's memory.
//!
//! Shapes use one legend: B batch, T sequence, N = B·T rows (tokens), C hidden width, F SwiGLU width,
//! H query heads, K key/value heads, D head dimension, V vocabulary. Matrices are row-major.
//! "Backward" functions take the gradient of their output and add to, or set, the gradient of their
//! inputs as each one says. Results must not depend on the number of threads.

use crate::error::Result;

/// Some elements of a device buffer, to read.
#[derive(Debug)]
pub struct View<'a, Buf> {
    /// The buffer.
    pub buf: &'a Buf,
    /// First element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

impl<Buf> Clone for View<'_, Buf> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Buf> Copy for View<'_, Buf> {}

/// Some elements of a device buffer, to write.
#[derive(Debug)]
pub struct ViewMut<'a, Buf> {
    /// The buffer.
    pub buf: &'a mut Buf,
    /// First element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

/// Whether a factor of a product is used as it lies in memory or transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As stored.
    Normal,
    /// Transposed.
    Transposed,
}

/// What a product does with the values already in its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replaces them.
    Set,
    /// Adds to them.
    Add,
}

/// `out[m, n] (=|+=) a[m, k] · b[k, n]`, where `a` and `b` may be stored transposed.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of the output.
    pub m: usize,
    /// Columns of the output.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// `Transposed`: `a` is stored `[k, m]`.
    pub a: Order,
    /// `Transposed`: `b` is stored `[n, k]`.
    pub b: Order,
    /// Whether the output is replaced or added to.
    pub write: Write,
}

/// Shape of causal attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Sequences.
    pub batch: usize,
    /// Tokens in each.
    pub seq: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// The target that counts nothing: its position adds neither loss nor gradient.
pub const IGNORE: u32 = u32::MAX;

/// Settings of one AdamW step (decoupled weight decay on every parameter).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weights shrink by `1 − lr·weight_decay`.
    pub weight_decay: f32,
    /// This step's number, from 1: corrects the bias of the moments.
    pub step: u64,
    /// Factor applied to the gradient first (gradient clipping).
    pub grad_scale: f32,
}

/// One device: its memory and the operations over it.
pub trait Backend: Sync {
    /// f32 memory of the device.
    type Buf: Send + Sync;

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// When the device has not enough memory.
    fn alloc(&self, len: usize) -> Result<Self::Buf>;

    /// Copies from the host; lengths are equal.
    ///
    /// # Errors
    /// When the device fails.
    fn upload(&self, from: &[f32], to: ViewMut<'_, Self::Buf>) -> Result<()>;

    /// Copies to the host; lengths are equal.
    ///
    /// # Errors
    /// When the device fails.
    fn download(&self, from: View<'_, Self::Buf>, to: &mut [f32]) -> Result<()>;

    /// Runs `work` with this device's threads: every operation inside uses them.
    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    /// Matrix product.
    fn matmul(&self, p: Product, a: View<'_, Self::Buf>, b: View<'_, Self::Buf>, out: ViewMut<'_, Self::Buf>);

    /// `to = from`.
    fn copy(&self, from: View<'_, Self::Buf>, to: ViewMut<'_, Self::Buf>);

    /// Sets every element to 0.
    fn zero(&self, buf: ViewMut<'_, Self::Buf>);

    /// `out[N, C] = table[tokens[N], C]`; ids were checked by the caller.
    fn embedding_forward(&self, tokens: &[u32], table: View<'_, Self::Buf>, out: ViewMut<'_, Self::Buf>);

    /// `dtable[tokens[N], C] += dout[N, C]`, added in order of the positions.
    fn embedding_backward(
        &self,
        tokens: &[u32],
        dout: View<'_, Self::Buf>,
        dtable: ViewMut<'_, Self::Buf>,
        width: usize,
    );

    /// `rstd[N] = 1/sqrt(mean(x²) + eps)`, `out[N, C] = x · rstd · gain[C]`.
    fn rms_norm_forward(
        &self,
        x: View<'_, Self::Buf>,
        gain: View<'_, Self::Buf>,
        eps: f32,
        rstd: ViewMut<'_, Self::Buf>,
        out: ViewMut<'_, Self::Buf>,
    );

    /// `out[N, C] = x · rstd · gain`, with `rstd` from the forward pass.
    fn rms_norm_again(
        &self,
        x: View<'_, Self::Buf>,
        gain: View<'_, Self::Buf>,
        rstd: View<'_, Self::Buf>,
        out: ViewMut<'_, Self::Buf>,
    );

    /// Adds to `dx[N, C]`, and sets or adds to `dgain[C]`.
    fn rms_norm_backward(
        &self,
        x: View<'_, Self::Buf>,
        gain: View<'_, Self::Buf>,
        rstd: View<'_, Self::Buf>,
        dout: View<'_, Self::Buf>,
        dx: ViewMut<'_, Self::Buf>,
        dgain: ViewMut<'_, Self::Buf>,
        write: Write,
    );

    /// Turns pairs `(j, j + D/2)` of each head of `x[B, T, heads·D]` by the angle of their position;
    /// `table` holds cos then sin, `[T, D/2]` each; `dims` is (heads·D, D). `Order::Transposed` turns
    /// back (the gradient).
    fn rope(
        &self,
        x: ViewMut<'_, Self::Buf>,
        table: View<'_, Self::Buf>,
        seq: usize,
        dims: (usize, usize),
        order: Order,
    );

    /// Causal attention: `out[B, T, H·D]` and the log-sum-exp of each row's scores, `lse[B, H, T]`.
    fn attention_forward(
        &self,
        heads: Heads,
        q: View<'_, Self::Buf>,
        k: View<'_, Self::Buf>,
        v: View<'_, Self::Buf>,
        out: ViewMut<'_, Self::Buf>,
        lse: ViewMut<'_, Self::Buf>,
    );

    /// Sets `dq`, `dk`, `dv` from the gradient of attention's output.
    fn attention_backward(
        &self,
        heads: Heads,
        q: View<'_, Self::Buf>,
        k: View<'_, Self::Buf>,
        v: View<'_, Self::Buf>,
        out: View<'_, Self::Buf>,
        lse: View<'_, Self::Buf>,
        dout: View<'_, Self::Buf>,
        dq: ViewMut<'_, Self::Buf>,
        dk: ViewMut<'_, Self::Buf>,
        dv: ViewMut<'_, Self::Buf>,
    );

    /// `out[N, F] = silu(gate) · up`, with `gate_up[N, 2F]` holding gate then up in each row.
    fn swiglu_forward(&self, width: usize, gate_up: View<'_, Self::Buf>, out: ViewMut<'_, Self::Buf>);

    /// Replaces `gate_up[N, 2F]` by its gradient, and `dout[N, F]` by the forward output (which the
    /// product after it needs for its own gradient).
    fn swiglu_backward(&self, width: usize, gate_up: ViewMut<'_, Self::Buf>, dout: ViewMut<'_, Self::Buf>);

    /// For each row of `logits[N, V]`: the loss `−log softmax(row)[target]` into `losses[N]`, 0 for
    /// [`IGNORE`].
    fn cross_entropy_forward(
        &self,
        vocab: usize,
        targets: &[u32],
        logits: View<'_, Self::Buf>,
        losses: &mut [f32],
    );

    /// As forward, and replaces each row by `scale · (softmax(row) − onehot(target))`, 0 for [`IGNORE`].
    fn cross_entropy_backward(
        &self,
        vocab: usize,
        targets: &[u32],
        scale: f32,
        logits: ViewMut<'_, Self::Buf>,
        losses: &mut [f32],
    );

    /// Sum of squares, in f64, in a fixed order.
    ///
    /// # Errors
    /// When the device fails.
    fn sum_of_squares(&self, x: View<'_, Self::Buf>) -> Result<f64>;

    /// One AdamW step over all parameters.
    fn adamw(
        &self,
        step: AdamW,
        grads: View<'_, Self::Buf>,
        theta: ViewMut<'_, Self::Buf>,
        m: ViewMut<'_, Self::Buf>,
        v: ViewMut<'_, Self::Buf>,
    );
}
