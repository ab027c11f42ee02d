"""The same training run in PyTorch: same weights, same sequences in the same order, same hyper-parameters.

    pip install torch numpy transformers safetensors blake3
    gauntlet train --preset small-10m --data DATA --steps 1 --lr 0 --out start ...   (saves the initial weights)
    gauntlet train --preset small-10m --data DATA --steps N --out run ...
    python tests/peers/train_torch.py start run DATA

Reads run/train.toml and run/metrics.jsonl, trains transformers' LlamaForCausalLM on the CPU from the weights
in `start`, draws the sequences by its own implementation of the order (data/src/permutation.rs,
assignment.rs, batch.rs), and prints both curves and their largest relative difference.
"""
import json
import math
import pathlib
import sys
import time
import tomllib

import numpy as np
import torch
from blake3 import blake3
from transformers import LlamaForCausalLM

start, run, data = (pathlib.Path(p) for p in sys.argv[1:4])
s = tomllib.loads((run / "train.toml").read_text())
manifest = json.loads((data / "manifest.json").read_text())
kind = {"u16": "<u2", "u32": "<u4"}[manifest["dtype"]]


def tokens_of(split):
    shards = manifest["splits"][split]["shards"]
    return np.concatenate([np.fromfile(data / x["file"], dtype=kind) for x in shards]).astype(np.int64)


def token_bytes():
    """UTF-8 bytes of text of each id of a byte-level tokenizer; end of text has none."""
    if manifest["tokenizer"]["file"] is None:
        return np.append(np.ones(256, dtype=np.int64), 0)
    tokenizer = json.loads((data / manifest["tokenizer"]["file"]).read_text())
    lengths = np.zeros(manifest["tokenizer"]["vocab_size"], dtype=np.int64)
    for token, i in tokenizer["model"]["vocab"].items():
        lengths[i] = len(token)  # a letter of the tokenizer's own alphabet a byte
    lengths[manifest["tokenizer"]["eos_id"]] = 0
    return lengths


class Order:
    """Position -> sequence id: a Feistel permutation of [0, n) an epoch, keyed by BLAKE3."""

    def __init__(self, seed, n):
        context = "gauntlet-data v1 centralised training order"
        self.key = blake3(seed.to_bytes(8, "little"), derive_key_context=context).digest()
        self.n = n
        root = math.isqrt(n)
        self.a = root if root * root == n else root + 1
        self.b = -(-n // self.a)

    def at(self, index):
        epoch, x = divmod(index, self.n)
        key = blake3(b"epoch" + epoch.to_bytes(8, "little"), key=self.key).digest()
        while True:
            left, right = divmod(x, self.b)
            for i in range(10):
                v = right if i % 2 == 0 else left
                f = int.from_bytes(blake3(bytes([i]) + v.to_bytes(8, "little"), key=key).digest()[:8], "little")
                if i % 2 == 0:
                    left = (left + f) % self.a
                else:
                    right = (right + f) % self.b
            x = left * self.b + right
            if x < self.n:
                return x


def rows(tokens, ids, seq):
    x = np.stack([tokens[i * seq:(i + 1) * seq + 1] for i in ids])
    return torch.from_numpy(x[:, :-1].copy()), torch.from_numpy(x[:, 1:].copy())


def loss_of(model, x, y):
    logits = model(input_ids=x, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def lr_at(step):
    if step < s["warmup"]:
        return s["lr"] * (step + 1) / s["warmup"]
    progress = min((step - s["warmup"]) / max(s["steps"] - s["warmup"], 1), 1.0)
    return s["lr"] * (s["lr-floor"] + (1 - s["lr-floor"]) * 0.5 * (1 + math.cos(math.pi * progress)))


def validate(model, tokens, seq, lengths):
    n = min((len(tokens) - 1) // seq, s["validation-sequences"] or 10**18)
    total = 0.0
    with torch.no_grad():
        for first in range(0, n, s["batch"]):
            ids = range(first, min(first + s["batch"], n))
            total += loss_of(model, *rows(tokens, ids, seq)).item() * len(ids)
    bytes_per_token = lengths[tokens[1:n * seq + 1]].mean()
    return total / n / (math.log(2) * bytes_per_token)


def main():
    torch.manual_seed(0)
    folder = sorted((start / "checkpoints").glob("step-*"))[-1]
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    betas = (s["beta1"], s["beta2"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=betas, eps=s["eps"],
                                  weight_decay=s["weight-decay"], fused=True)
    train, held_out = tokens_of("train"), tokens_of("validation")
    lengths = token_bytes()
    seq, batch, accumulate = s["seq"], s["batch"], s["accumulate"]
    order = Order(s["seed"], (len(train) - 1) // seq)
    ours = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ours = {m["step"]: m["bits_per_byte"] for m in ours if m["kind"] == "validation"}
    worst, seconds = 0.0, 0.0
    for step in range(s["steps"] + 1):
        if step in ours:
            theirs = validate(model, held_out, seq, lengths)
            difference = ours[step] / theirs - 1
            worst = max(worst, abs(difference))
            print(f"step {step:5d}  bits per byte: PyTorch {theirs:.4f}  gauntlet {ours[step]:.4f}  {difference:+.3%}",
                  flush=True)
        if step == s["steps"]:
            break
        began = time.perf_counter()
        for i in range(accumulate):
            first = (step * accumulate + i) * batch
            x, y = rows(train, [order.at(first + r) for r in range(batch)], seq)
            (loss_of(model, x, y) / accumulate).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), s["clip"] or math.inf)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - began
    speed = s["steps"] * accumulate * batch * seq / seconds
    print(f"largest difference {worst:.3%}; PyTorch {speed:.0f} tokens/s with {torch.get_num_threads()} threads")


main()
