//! Forward pass: embedding, blocks (`x + attention(norm(x))`, then `x + mlp(norm(x))`), final norm,
//! and the loss in chunks of rows.

use super::backend::{Backend, Order, View, ViewMut, Write};
use super::workspace::{Slot, Workspace};
use super::{Pass, linear, read, write_to};
use crate::layout::LayerParams;

impl<B: Backend> Pass<'_, B> {
    /// Token losses without keeping activations: one slot and one residual buffer serve all layers.
    pub(super) fn evaluate(&self, work: &mut Workspace<B>) {
        self.embed(&work.tokens, &mut work.inputs[0]);
        for layer in &self.layout.layers {
            let Workspace { inputs, slots, normed, act, rope, .. } = work;
            self.attention_half(layer, &inputs[0], &mut slots[0], normed, rope);
            self.mlp_half(layer, &mut slots[0], normed, act);
            self.residual(layer, &slots[0], act, &mut inputs[0]);
        }
        self.final_norm(&work.inputs[0], &mut work.normed, &mut work.rstd);
        let (rows, width) = (self.rows(), self.sizes.hidden);
        for first in (0..rows).step_by(self.sizes.chunk) {
            let n = self.sizes.chunk.min(rows - first);
            self.logits(&work.normed, &mut work.logits, first, n, width);
            let targets = View { buf: &work.targets, start: first, len: n };
            let logits = read(&work.logits, n * self.sizes.vocab);
            let losses = ViewMut { buf: &mut work.losses, start: first, len: n };
            self.backend.cross_entropy_forward(self.sizes.vocab, targets, logits, losses);
        }
    }

    /// Forward pass that keeps what the backward pass needs.
    pub(super) fn forward(&self, work: &mut Workspace<B>) {
        self.embed(&work.tokens, &mut work.inputs[0]);
        for (i, layer) in self.layout.layers.iter().enumerate() {
            let Workspace { inputs, slots, normed, act, rope, .. } = work;
            let slot = i.min(slots.len() - 1);
            self.attention_half(layer, &inputs[i], &mut slots[slot], normed, rope);
            self.mlp_half(layer, &mut slots[slot], normed, act);
            self.residual(layer, &slots[slot], act, &mut inputs[i + 1]);
        }
        let last = self.layout.layers.len();
        self.final_norm(&work.inputs[last], &mut work.normed, &mut work.rstd);
    }

    fn embed(&self, tokens: &B::Ids, x: &mut B::Act) {
        let (table, n) = (self.param(&self.layout.embed), self.rows());
        self.backend.embedding_forward(read(tokens, n), table, write_to(x, n * self.sizes.hidden));
    }

    /// `mid = x + attention(norm(x))`.
    pub(super) fn attention_half(
        &self,
        layer: &LayerParams,
        x: &B::Act,
        slot: &mut Slot<B>,
        normed: &mut B::Act,
        rope: &B::Buf,
    ) {
        let (b, n, s) = (self.backend, self.rows(), self.sizes);
        let (x, gain) = (read(x, n * s.hidden), self.param(&layer.input_norm));
        let eps = self.config.rms_norm_eps;
        b.rms_norm_forward(x, gain, eps, write_to(&mut slot.rstd1, n), write_to(normed, n * s.hidden));
        let h = read(normed, n * s.hidden);
        b.matmul(
            linear(n, s.hidden, s.q, Write::Set),
            h,
            self.weight(&layer.q),
            write_to(&mut slot.q, n * s.q),
        );
        b.matmul(
            linear(n, s.hidden, s.kv, Write::Set),
            h,
            self.weight(&layer.k),
            write_to(&mut slot.k, n * s.kv),
        );
        b.matmul(
            linear(n, s.hidden, s.kv, Write::Set),
            h,
            self.weight(&layer.v),
            write_to(&mut slot.v, n * s.kv),
        );
        self.turn(&mut slot.q, s.q, rope, Order::Normal);
        self.turn(&mut slot.k, s.kv, rope, Order::Normal);
        let heads = self.heads();
        let (q, k, v) = (read(&slot.q, n * s.q), read(&slot.k, n * s.kv), read(&slot.v, n * s.kv));
        b.attention_forward(
            heads,
            q,
            k,
            v,
            write_to(&mut slot.attn, n * s.q),
            write_to(&mut slot.lse, n * s.heads),
        );
        b.copy(x, write_to(&mut slot.mid, n * s.hidden));
        let attn = read(&slot.attn, n * s.q);
        b.matmul(
            linear(n, s.q, s.hidden, Write::Add),
            attn,
            self.weight(&layer.o),
            write_to(&mut slot.mid, n * s.hidden),
        );
    }

    /// `gate_up = norm(mid) · [gate; up]ᵀ`, `act = silu(gate) · up`.
    pub(super) fn mlp_half(
        &self,
        layer: &LayerParams,
        slot: &mut Slot<B>,
        normed: &mut B::Act,
        act: &mut B::Act,
    ) {
        let (b, n, s) = (self.backend, self.rows(), self.sizes);
        let (mid, gain) = (read(&slot.mid, n * s.hidden), self.param(&layer.post_norm));
        let eps = self.config.rms_norm_eps;
        b.rms_norm_forward(mid, gain, eps, write_to(&mut slot.rstd2, n), write_to(normed, n * s.hidden));
        let h = read(normed, n * s.hidden);
        let gate_up = write_to(&mut slot.gate_up, n * 2 * s.ffn);
        b.matmul(linear(n, s.hidden, 2 * s.ffn, Write::Set), h, self.weight(&layer.gate_up), gate_up);
        b.swiglu_forward(s.ffn, read(&slot.gate_up, n * 2 * s.ffn), write_to(act, n * s.ffn));
    }

    /// `out = mid + act · downᵀ`.
    fn residual(&self, layer: &LayerParams, slot: &Slot<B>, act: &B::Act, out: &mut B::Act) {
        let (b, n, s) = (self.backend, self.rows(), self.sizes);
        b.copy(read(&slot.mid, n * s.hidden), write_to(out, n * s.hidden));
        let product = linear(n, s.ffn, s.hidden, Write::Add);
        b.matmul(product, read(act, n * s.ffn), self.weight(&layer.down), write_to(out, n * s.hidden));
    }

    fn final_norm(&self, x: &B::Act, normed: &mut B::Act, rstd: &mut B::Buf) {
        let (n, width) = (self.rows(), self.sizes.hidden);
        let (gain, eps) = (self.param(&self.layout.final_norm), self.config.rms_norm_eps);
        self.backend.rms_norm_forward(
            read(x, n * width),
            gain,
            eps,
            write_to(rstd, n),
            write_to(normed, n * width),
        );
    }

    /// Logits of rows `first..first + n` over the ids the tokenizer can produce: padding ids have none.
    pub(super) fn logits(&self, normed: &B::Act, logits: &mut B::Buf, first: usize, n: usize, width: usize) {
        let vocab = self.sizes.vocab;
        let rows = View { buf: normed, start: first * width, len: n * width };
        let product = linear(n, width, vocab, Write::Set);
        self.backend.matmul_f32(product, rows, self.head(), write_to(logits, n * vocab));
    }

    /// Rows of the output projection that belong to real ids.
    pub(super) fn head(&self) -> View<'_, B::Act> {
        let start = self.layout.head.start;
        self.weight(&(start..start + self.sizes.vocab * self.sizes.hidden))
    }

    pub(super) fn turn(&self, x: &mut B::Act, width: usize, rope: &B::Buf, order: Order) {
        let (seq, d) = (self.batch.seq, self.config.head_dim);
        let x = write_to(x, self.rows() * width);
        self.backend.rope(x, read(rope, seq * d), seq, (width, d), order);
    }
}
