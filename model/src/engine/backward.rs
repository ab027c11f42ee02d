//! Backward pass, the forward pass's operations in reverse, each by its own gradient.

use super::backend::{Backend, Order, View, ViewMut, Write};
use super::workspace::{Gradients, Workspace};
use super::{Pass, linear_dw, linear_dx, read, write_to};
use crate::layout::LayerParams;

impl<B: Backend> Pass<'_, B> {
    /// Forward, loss and backward.
    pub(super) fn train(&self, work: &mut Workspace<B>, grads: &mut B::Buf, scale: f32, write: Write) {
        let Some(mut d) = work.grads.take() else { return };
        self.forward(work);
        self.loss_backward(work, &mut d, grads, scale, write);
        for (i, layer) in self.layout.layers.iter().enumerate().rev() {
            let Workspace { inputs, slots, normed, act, rope, .. } = work;
            let slot = i.min(slots.len() - 1);
            if slots.len() < self.layout.layers.len() {
                self.attention_half(layer, &inputs[i], &mut slots[slot], normed, rope);
                self.mlp_half(layer, &mut slots[slot], normed, act);
            }
            self.mlp_backward(layer, &mut slots[slot], &mut d, (normed, act), grads, write);
            self.attention_backward(layer, &inputs[i], &slots[slot], &mut d, (normed, rope), grads, write);
        }
        self.embedding_backward(&work.tokens, &d, grads, write);
        work.grads = Some(d);
    }

    /// Loss and the gradients of output projection, final norm and last residual, chunk by chunk.
    fn loss_backward(
        &self,
        work: &mut Workspace<B>,
        d: &mut Gradients<B::Act>,
        grads: &mut B::Buf,
        scale: f32,
        write: Write,
    ) {
        let (b, rows, s) = (self.backend, self.rows(), self.sizes);
        let (width, vocab) = (s.hidden, s.vocab);
        let head = self.layout.head.start..self.layout.head.start + vocab * width;
        for first in (0..rows).step_by(s.chunk) {
            let n = s.chunk.min(rows - first);
            self.logits(&work.normed, &mut work.logits, first, n, width);
            let targets = View { buf: &work.targets, start: first, len: n };
            let losses = ViewMut { buf: &mut work.losses, start: first, len: n };
            b.cross_entropy_backward(vocab, targets, scale, write_to(&mut work.logits, n * vocab), losses);
            let dlogits = b.rounded(read(&work.logits, n * vocab), &mut work.dlogits);
            let chunk = |buf| View { buf, start: first * width, len: n * width };
            let write = if first == 0 { write } else { Write::Add };
            b.matmul_f32(
                linear_dw(n, width, vocab, write),
                dlogits,
                chunk(&work.normed),
                tensor(grads, &head),
            );
            let dnormed = ViewMut { buf: &mut d.normed, start: first * width, len: n * width };
            b.matmul(linear_dx(n, width, vocab, Write::Set), dlogits, self.head(), dnormed);
        }
        if write == Write::Set {
            b.zero(tensor(grads, &(head.end..self.layout.head.end)));
        }
        b.zero_act(write_to(&mut d.x, rows * width));
        let x = read(&work.inputs[self.layout.layers.len()], rows * width);
        let gain = &self.layout.final_norm;
        let dx = write_to(&mut d.x, rows * width);
        let rstd = read(&work.rstd, rows);
        let dout = read(&d.normed, rows * width);
        b.rms_norm_backward(x, self.param(gain), rstd, dout, dx, tensor(grads, gain), write);
    }

    /// From the gradient of a block's output in `d.x` to that of its middle, in place.
    fn mlp_backward(
        &self,
        layer: &LayerParams,
        slot: &mut super::workspace::Slot<B>,
        d: &mut Gradients<B::Act>,
        (normed, act): (&mut B::Act, &mut B::Act),
        grads: &mut B::Buf,
        write: Write,
    ) {
        let (b, n, s) = (self.backend, self.rows(), self.sizes);
        let (hidden, ffn) = (s.hidden, s.ffn);
        let dout = read(&d.x, n * hidden);
        b.matmul(
            linear_dx(n, ffn, hidden, Write::Set),
            dout,
            self.weight(&layer.down),
            write_to(act, n * ffn),
        );
        b.swiglu_backward(ffn, write_to(&mut slot.gate_up, n * 2 * ffn), write_to(act, n * ffn));
        b.matmul_f32(linear_dw(n, ffn, hidden, write), dout, read(act, n * ffn), tensor(grads, &layer.down));
        let (mid, rstd) = (read(&slot.mid, n * hidden), read(&slot.rstd2, n));
        let gain = self.param(&layer.post_norm);
        b.rms_norm_again(mid, gain, rstd, write_to(normed, n * hidden));
        let dgate_up = read(&slot.gate_up, n * 2 * ffn);
        let h = read(normed, n * hidden);
        b.matmul_f32(linear_dw(n, hidden, 2 * ffn, write), dgate_up, h, tensor(grads, &layer.gate_up));
        let dnormed = write_to(&mut d.normed, n * hidden);
        b.matmul(linear_dx(n, hidden, 2 * ffn, Write::Set), dgate_up, self.weight(&layer.gate_up), dnormed);
        let (dout, dx) = (read(&d.normed, n * hidden), write_to(&mut d.x, n * hidden));
        b.rms_norm_backward(mid, gain, rstd, dout, dx, tensor(grads, &layer.post_norm), write);
    }

    /// From the gradient of a block's middle in `d.x` to that of its input, in place.
    fn attention_backward(
        &self,
        layer: &LayerParams,
        x: &B::Act,
        slot: &super::workspace::Slot<B>,
        d: &mut Gradients<B::Act>,
        (normed, rope): (&mut B::Act, &B::Buf),
        grads: &mut B::Buf,
        write: Write,
    ) {
        let (b, n, s) = (self.backend, self.rows(), self.sizes);
        let (hidden, q, kv) = (s.hidden, s.q, s.kv);
        let dmid = read(&d.x, n * hidden);
        b.matmul(
            linear_dx(n, q, hidden, Write::Set),
            dmid,
            self.weight(&layer.o),
            write_to(&mut d.attn, n * q),
        );
        b.matmul_f32(linear_dw(n, q, hidden, write), dmid, read(&slot.attn, n * q), tensor(grads, &layer.o));
        b.attention_backward(
            self.heads(),
            read(&slot.q, n * q),
            read(&slot.k, n * kv),
            read(&slot.v, n * kv),
            read(&slot.attn, n * q),
            read(&slot.lse, n * s.heads),
            read(&d.attn, n * q),
            write_to(&mut d.q, n * q),
            write_to(&mut d.k, n * kv),
            write_to(&mut d.v, n * kv),
        );
        self.turn(&mut d.q, q, rope, Order::Transposed);
        self.turn(&mut d.k, kv, rope, Order::Transposed);
        let (x, rstd, gain) = (read(x, n * hidden), read(&slot.rstd1, n), self.param(&layer.input_norm));
        b.rms_norm_again(x, gain, rstd, write_to(normed, n * hidden));
        let parts = [(&d.q, q, &layer.q), (&d.k, kv, &layer.k), (&d.v, kv, &layer.v)];
        for (i, (dy, width, weight)) in parts.into_iter().enumerate() {
            let (dy, h) = (read(dy, n * width), read(normed, n * hidden));
            b.matmul_f32(linear_dw(n, hidden, width, write), dy, h, tensor(grads, weight));
            let sum = if i == 0 { Write::Set } else { Write::Add };
            let dnormed = write_to(&mut d.normed, n * hidden);
            b.matmul(linear_dx(n, hidden, width, sum), dy, self.weight(weight), dnormed);
        }
        let (dout, dx) = (read(&d.normed, n * hidden), write_to(&mut d.x, n * hidden));
        b.rms_norm_backward(x, gain, rstd, dout, dx, tensor(grads, &layer.input_norm), write);
    }

    /// Adds the embedding's gradient; a tied table already holds the output projection's.
    fn embedding_backward(&self, tokens: &B::Ids, d: &Gradients<B::Act>, grads: &mut B::Buf, write: Write) {
        let (embed, width) = (&self.layout.embed, self.sizes.hidden);
        if write == Write::Set && !self.config.tie_word_embeddings {
            self.backend.zero(tensor(grads, embed));
        }
        let (tokens, dx) = (read(tokens, self.rows()), read(&d.x, self.rows() * width));
        self.backend.embedding_backward(tokens, dx, tensor(grads, embed), width);
    }
}

/// A tensor's gradient.
fn tensor<'a, Buf>(grads: &'a mut Buf, range: &std::ops::Range<usize>) -> ViewMut<'a, Buf> {
    ViewMut { buf: grads, start: range.start, len: range.len() }
}
