#!/usr/bin/env python3
"""One training step in PyTorch beside `gauntlet bench step`: same shape, same batch, alternating in one run.

Eager and torch.compile, both with scaled_dot_product_attention, bf16 autocast over f32 master weights, activations in
bf16 between layers, clipping to norm 1, fused AdamW: what our step does. Needs PyTorch alone; the model is written out below.

    python3 tests/peers/gpu_step.py path/to/gauntlet [--device cuda:0] [--preset 1b] [--seq 2048] [--batch 8]
                                    [--rounds 3] [--runs 5] [--eager-only] [--peak-tflops X] [--first FILE]
                                    [--peak-only]

Every round runs eager, gauntlet, compile, gauntlet, all without recomputing activations. One JSON object a measurement,
then a summary of medians. A side that fails is reported, the others are measured all the same, and the exit code is 1.
`--first` names what `gauntlet bench step` printed for the same shape, which gives shape and peak rate without a run.
MFU is a share of the larger of two peak rates, ours and PyTorch's, each the best of several products of 8192 x 8192
matrices in bf16; `--peak-only` measures PyTorch's alone.
`--device cpu` runs the same code on the CPU with a small preset, to see that it works.
"""
import argparse
import gc
import json
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Norm(nn.RMSNorm):
    """PyTorch's fused kernel takes a weight of the input's type only."""

    def forward(self, x):
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads, self.kv, self.dim = s["heads"], s["kv_heads"], s["head_dim"]
        self.q = nn.Linear(s["hidden"], self.heads * self.dim, bias=False)
        self.k = nn.Linear(s["hidden"], self.kv * self.dim, bias=False)
        self.v = nn.Linear(s["hidden"], self.kv * self.dim, bias=False)
        self.o = nn.Linear(self.heads * self.dim, s["hidden"], bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.dim).transpose(1, 2)
        k = self.k(x).view(b, t, self.kv, self.dim).transpose(1, 2)
        v = self.v(x).view(b, t, self.kv, self.dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        grouped = {"enable_gqa": True} if self.kv != self.heads else {}
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)
        return self.o(out.transpose(1, 2).reshape(b, t, self.heads * self.dim))


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-b, a), dim=-1) * sin).to(x.dtype)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.norm1, self.norm2 = Norm(s["hidden"], eps=1e-5), Norm(s["hidden"], eps=1e-5)
        self.attention = Attention(s)
        self.gate = nn.Linear(s["hidden"], s["ffn"], bias=False)
        self.up = nn.Linear(s["hidden"], s["ffn"], bias=False)
        self.down = nn.Linear(s["ffn"], s["hidden"], bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embedding = nn.Embedding(s["vocab"], s["hidden"])
        self.blocks = nn.ModuleList(Block(s) for _ in range(s["layers"]))
        self.norm = Norm(s["hidden"], eps=1e-5)
        self.head = nn.Linear(s["hidden"], s["vocab"], bias=False)
        angles = torch.outer(
            torch.arange(s["seq"]).double(),
            500000.0 ** (-torch.arange(0, s["head_dim"], 2).double() / s["head_dim"]),
        ).repeat(1, 2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, targets):
        # Under autocast the residual stream would be the embedding's f32; ours is bf16, so theirs is too.
        x = self.embedding(tokens).to(torch.bfloat16)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def ours(args):
    command = [args.gauntlet, "bench", "step", "--preset", args.preset, "--seq", str(args.seq), "--batch",
               str(args.batch), "--runs", str(args.runs), "--device", args.device, "--recompute", "off"]
    if args.peak_tflops:
        command += ["--peak-tflops", str(args.peak_tflops)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Theirs:
    """A model and its optimizer, made anew for every measurement so that no memory is held in between."""

    def __init__(self, shape, device):
        torch.manual_seed(0)
        self.device, self.on_gpu = device, device.startswith("cuda")
        self.model = Llama(shape).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8,
                                           weight_decay=0.1, fused=True)
        ids = torch.randint(shape["vocab"], (shape["batch"], shape["seq"] + 1), device=device)
        self.tokens, self.targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def seconds(self, compiled, warm, runs):
        model = torch.compile(self.model) if compiled else self.model
        times = []
        for i in range(warm + runs):
            self.wait()
            began = time.perf_counter()
            with torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16):
                loss = model(self.tokens, self.targets)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.wait()
            if i >= warm:
                times.append(time.perf_counter() - began)
        return times, loss.item()

    def wait(self):
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def forget(device):
    """Gives back what nothing refers to any more; models refer to themselves."""
    torch.compiler.reset()  # what it compiled holds the model
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def torch_peak_tflops(device):
    """The best of several products, measured as `gauntlet bench step` measures its own."""
    on_gpu = device.startswith("cuda")
    edge, in_a_row = (8192, 10) if on_gpu else (512, 1)
    a, b = (torch.randn(edge, edge, device=device, dtype=torch.bfloat16) for _ in range(2))
    wait = (lambda: torch.cuda.synchronize(device)) if on_gpu else (lambda: None)
    best = float("inf")
    for i in range(7):
        wait()
        began = time.perf_counter()
        for _ in range(in_a_row):
            a @ b.T
        wait()
        if i >= 2:
            best = min(best, (time.perf_counter() - began) / in_a_row)
    return 2 * edge**3 / best / 1e12


def theirs(name, shape, args):
    on_gpu = args.device.startswith("cuda")
    forget(args.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(args.device)
    side = Theirs(shape, args.device)
    times, loss = side.seconds(name == "compile", 3, args.runs)
    peak = torch.cuda.max_memory_allocated(args.device) if on_gpu else None
    parameters = sum(p.numel() for p in side.model.parameters())
    del side
    forget(args.device)  # for the other side, which runs in a process of its own
    tokens = shape["batch"] * shape["seq"]
    return {"side": f"torch {name}", "tokens_per_s": tokens / statistics.median(times), "seconds": times,
            "loss": loss, "peak_bytes": peak, "parameters": parameters}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gauntlet")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--preset", default="1b")
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--eager-only", action="store_true")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--first")
    parser.add_argument("--peak-only", action="store_true")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    peak = torch_peak_tflops(args.device)
    if args.peak_only:
        return print(json.dumps({"torch": torch.__version__, "torch_peak_tflops": peak}))
    names = ["eager"] if args.eager_only else ["eager", "compile"]
    found, errors = {}, []
    # Gives the shape, and does not count.
    first = json.load(open(args.first)) if args.first else ours(args)
    shape = first["shape"]
    args.peak_tflops = args.peak_tflops or first["peak_tflops"]
    print(json.dumps({"torch": torch.__version__, "device": first.get("device_name", first["device"]), "shape": shape,
                      "gauntlet_peak_tflops": args.peak_tflops, "torch_peak_tflops": peak}), flush=True)
    for round_ in range(args.rounds):
        for name in names:
            for side, measure in ((f"torch {name}", lambda: theirs(name, shape, args)), ("gauntlet", lambda: mine(args))):
                try:
                    result = measure()
                    if result["parameters"] != first["parameters"]:
                        raise RuntimeError(f"{result['parameters']} parameters, {first['parameters']} in the first run")
                    found.setdefault(side, []).append(result)
                except Exception as error:  # the other side is measured all the same
                    result = {"side": side, "error": f"{type(error).__name__}: {error}"}
                    errors.append(f"{side}: {result['error']}")
                print(json.dumps({"round": round_, **result}), flush=True)
    # The flops of a step are those gauntlet counts, so that both sides' MFU is a share of the same work.
    flops_a_token = first["gflops"] * 1e9 / first["tokens_per_s"]
    largest = max(peak, args.peak_tflops or 0)
    summary = {}
    for side, results in found.items():
        rate = statistics.median(r["tokens_per_s"] for r in results)
        summary[side] = {
            "tokens_per_s": rate,
            "mfu": rate * flops_a_token / (largest * 1e12),
            "peak_bytes": max((r["peak_bytes"] or 0 for r in results), default=0) or None,
            "spread": [min(r["tokens_per_s"] for r in results), max(r["tokens_per_s"] for r in results)],
        }
    own = summary.get("gauntlet", {}).get("tokens_per_s")
    ratios = {f"gauntlet over {side}": own / s["tokens_per_s"] for side, s in summary.items() if own and side != "gauntlet"}
    print(json.dumps({"summary": summary, **ratios}, indent=2))
    if errors:
        sys.exit("\n".join(errors))


def mine(args):
    one = ours(args)
    return {"side": "gauntlet", **{name: one[name] for name in ("tokens_per_s", "mfu", "loss", "seconds", "parameters",
                                                               "recompute", "library_products", "own_products")},
            "peak_bytes": one["device_bytes"]}


main()
