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

/// Factors of an AdamW step, computed in f64 and rounded once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AdamWFactors {
    /// `1 − lr·weight_decay`.
    pub(crate) decay: f32,
    /// `lr / (1 − β1^t)`.
    pub(crate) rate: f32,
    /// `1 / √(1 − β2^t)`.
    pub(crate) root: f32,
}

impl AdamW {
    pub(crate) fn factors(&self) -> AdamWFactors {
        let t = i32::try_from(self.step).unwrap_or(i32::MAX);
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(t);
        #[allow(clippy::cast_possible_truncation)] // factors are used in f32
        AdamWFactors {
            decay: (1.0 - f64::from(self.lr) * f64::from(self.weight_decay)) as f32,
            rate: (f64::from(self.lr) / correction(self.beta1)) as f32,
            root: (1.0 / correction(self.beta2).sqrt()) as f32,
        }
    }
}

/// What a backend's way of computing costs in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of an activation: 4 where products read f32, 2 where they read bf16 (weights are then held in bf16
    /// besides).
    pub activation: usize,
    /// Logits that may exist at a time.
    pub logits: usize,
}

impl Footprint {
    /// f32 on the CPU: logits of a chunk (16 MiB) stay near the caches.
    pub const CPU: Self = Self { activation: 4, logits: 4 << 20 };
}

/// One device: its memory and the operations over it.
///
/// Parameters, gradients, moments and statistics are f32 everywhere ([`Backend::Buf`]). Activations, their gradients
/// and the weights as products read them are of the type the device computes in ([`Backend::Act`]): the same f32
/// memory on the CPU, bf16 where tensor cores want it. Sums are f32 or better.
///
/// Operations are queued in order; one that fails on the device shows as an error of the next download.
pub trait Backend: Send + Sync {
    /// f32 memory of the device.
    type Buf: Send + Sync;

    /// Memory of activations, in the type products read.
    type Act: Send + Sync;

    /// Memory of token ids.
    type Ids: Send + Sync;

    /// What computing here costs in memory.
    const FOOTPRINT: Footprint;

    /// Refuses heads of a width that attention cannot be computed for here.
    ///
    /// # Errors
    /// What they need, and what would do.
    fn check_heads(&self, _head_dim: usize) -> Result<()> {
        Ok(())
    }

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// When the device has not enough memory.
    fn alloc(&self, len: usize) -> Result<Self::Buf>;

    /// A buffer of `len` zeros for activations.
    ///
    /// # Errors
    /// When the device has not enough memory.
    fn alloc_act(&self, len: usize) -> Result<Self::Act>;

    /// Room for `len` f32 values as products read them: empty where they read f32.
    ///
    /// # Errors
    /// When the device has not enough memory.
    fn alloc_rounded(&self, len: usize) -> Result<Self::Act>;

    /// A buffer for up to `len` token ids.
    ///
    /// # Errors
    /// When the device has not enough memory.
    fn alloc_ids(&self, len: usize) -> Result<Self::Ids>;

    /// Replaces the ids in the first elements of `to`.
    ///
    /// # Errors
    /// When the device fails.
    fn upload_ids(&self, from: &[u32], to: &mut Self::Ids) -> Result<()>;

    /// f32 values as products read them: `from` itself, or rounded into `room` of [`Backend::alloc_rounded`].
    fn rounded<'a>(&self, from: View<'a, Self::Buf>, room: &'a mut Self::Act) -> View<'a, Self::Act>;

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

    /// Matrix product of activations and weights.
    fn matmul(&self, p: Product, a: View<'_, Self::Act>, b: View<'_, Self::Act>, out: ViewMut<'_, Self::Act>);

    /// Matrix product whose output stays f32: gradients of weights, and logits.
    fn matmul_f32(
        &self,
        p: Product,
        a: View<'_, Self::Act>,
        b: View<'_, Self::Act>,
        out: ViewMut<'_, Self::Buf>,
    );

    /// `to = from`.
    fn copy(&self, from: View<'_, Self::Act>, to: ViewMut<'_, Self::Act>);

    /// Sets every element to 0.
    fn zero(&self, buf: ViewMut<'_, Self::Buf>);

    /// Sets every activation to 0.
    fn zero_act(&self, buf: ViewMut<'_, Self::Act>);

    /// `out[N, C] = table[tokens[N], C]`; ids were checked by the caller.
    fn embedding_forward(
        &self,
        tokens: View<'_, Self::Ids>,
        table: View<'_, Self::Buf>,
        out: ViewMut<'_, Self::Act>,
    );

    /// `dtable[tokens[N], C] += dout[N, C]`, added in order of the positions.
    fn embedding_backward(
        &self,
        tokens: View<'_, Self::Ids>,
        dout: View<'_, Self::Act>,
        dtable: ViewMut<'_, Self::Buf>,
        width: usize,
    );

    /// `rstd[N] = 1/sqrt(mean(x²) + eps)`, `out[N, C] = x · rstd · gain[C]`.
    fn rms_norm_forward(
        &self,
        x: View<'_, Self::Act>,
        gain: View<'_, Self::Buf>,
        eps: f32,
        rstd: ViewMut<'_, Self::Buf>,
        out: ViewMut<'_, Self::Act>,
    );

    /// `out[N, C] = x · rstd · gain`, with `rstd` from the forward pass.
    fn rms_norm_again(
        &self,
        x: View<'_, Self::Act>,
        gain: View<'_, Self::Buf>,
        rstd: View<'_, Self::Buf>,
        out: ViewMut<'_, Self::Act>,
    );

    /// Adds to `dx[N, C]`, and sets or adds to `dgain[C]`.
    fn rms_norm_backward(
        &self,
        x: View<'_, Self::Act>,
        gain: View<'_, Self::Buf>,
        rstd: View<'_, Self::Buf>,
        dout: View<'_, Self::Act>,
        dx: ViewMut<'_, Self::Act>,
        dgain: ViewMut<'_, Self::Buf>,
        write: Write,
    );

    /// Turns pairs `(j, j + D/2)` of each head of `x[B, T, heads·D]` by the angle of their position;
    /// `table` holds cos then sin, `[T, D/2]` each; `dims` is (heads·D, D). `Order::Transposed` turns
    /// back (the gradient).
    fn rope(
        &self,
        x: ViewMut<'_, Self::Act>,
        table: View<'_, Self::Buf>,
        seq: usize,
        dims: (usize, usize),
        order: Order,
    );

    /// Causal attention: `out[B, T, H·D]` and the log-sum-exp of each row's scores, `lse[B, H, T]`.
    fn attention_forward(
        &self,
        heads: Heads,
        q: View<'_, Self::Act>,
        k: View<'_, Self::Act>,
        v: View<'_, Self::Act>,
        out: ViewMut<'_, Self::Act>,
        lse: ViewMut<'_, Self::Buf>,
    );

    /// Sets `dq`, `dk`, `dv` from the gradient of attention's output.
    fn attention_backward(
        &self,
        heads: Heads,
        q: View<'_, Self::Act>,
        k: View<'_, Self::Act>,
        v: View<'_, Self::Act>,
        out: View<'_, Self::Act>,
        lse: View<'_, Self::Buf>,
        dout: View<'_, Self::Act>,
        dq: ViewMut<'_, Self::Act>,
        dk: ViewMut<'_, Self::Act>,
        dv: ViewMut<'_, Self::Act>,
    );

    /// `out[N, F] = silu(gate) · up`, with `gate_up[N, 2F]` holding gate then up in each row.
    fn swiglu_forward(&self, width: usize, gate_up: View<'_, Self::Act>, out: ViewMut<'_, Self::Act>);

    /// Replaces `gate_up[N, 2F]` by its gradient, and `dout[N, F]` by the forward output (which the
    /// product after it needs for its own gradient).
    fn swiglu_backward(&self, width: usize, gate_up: ViewMut<'_, Self::Act>, dout: ViewMut<'_, Self::Act>);

    /// For each row of `logits[N, V]`: the loss `−log softmax(row)[target]` into `losses[N]`, 0 for
    /// [`IGNORE`].
    fn cross_entropy_forward(
        &self,
        vocab: usize,
        targets: View<'_, Self::Ids>,
        logits: View<'_, Self::Buf>,
        losses: ViewMut<'_, Self::Buf>,
    );

    /// As forward, and replaces each row by `scale · (softmax(row) − onehot(target))`, 0 for [`IGNORE`].
    fn cross_entropy_backward(
        &self,
        vocab: usize,
        targets: View<'_, Self::Ids>,
        scale: f32,
        logits: ViewMut<'_, Self::Buf>,
        losses: ViewMut<'_, Self::Buf>,
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
