#!/usr/bin/env python3
"""The original DeMo's tensor code in PyTorch, timed: the comparison for `gauntlet bench demo`.

Restated from bloc97/DeMo (demo.py): chunks by reshape and permute, DCT by products with the basis, topk, scatter with
mean, inverse, sign. f32 values, int64 indices, no packing, no signature.

    python tests/peers/demo_speed.py [params] [peers] [topk] [runs] [threads]
"""

import json
import math
import sys
import time

import torch

EDGE = 64


def basis(n):
    j, k = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None, :]
    f = torch.cos(math.pi * (j + 0.5) * k / n) * math.sqrt(2.0 / n)
    f[:, 0] = math.sqrt(1.0 / n)
    return f.float()


F = basis(EDGE)


def encode(x):
    y, x_ = x.shape[0] // EDGE, x.shape[1] // EDGE
    x = x.view(y, EDGE, x_, EDGE).permute(0, 2, 1, 3)
    return torch.einsum("yxij,jb,ia->yxab", x, F, F)


def decode(c):
    y, x = c.shape[:2]
    c = torch.einsum("yxab,jb,ia->yxij", c, F, F)
    return c.permute(0, 2, 1, 3).reshape(y * EDGE, x * EDGE)


def compress(c, k):
    flat = c.reshape(*c.shape[:2], -1)
    index = torch.topk(flat.abs(), k, dim=-1, sorted=False).indices
    return index, flat.gather(-1, index)


def scatter(shape, index, value):
    c = torch.zeros(*shape[:2], EDGE * EDGE)
    c.scatter_reduce_(-1, index, value, reduce="mean", include_self=False)
    return c.view(*shape[:2], EDGE, EDGE)


def main():
    arguments = [int(a) for a in sys.argv[1:]] + [None] * 5
    params, peers, k, runs = (a or d for a, d in zip(arguments, (20_000_000, 15, 32, 3)))
    torch.set_num_threads(arguments[4] or 2)
    torch.manual_seed(0)
    cols = 2048
    rows = params // cols // EDGE * EDGE
    n = rows * cols
    shape = (rows // EDGE, cols // EDGE)
    grad, theta = torch.randn(rows, cols), torch.randn(rows, cols)
    delta = torch.zeros(rows, cols)
    times = {"encode": [], "decode_aggregate_apply": [], "trial": []}
    sent = []
    with torch.no_grad():
        for run in range(max(runs, 1) + 1):
            start = time.perf_counter()
            delta.mul_(0.999).add_(grad, alpha=1e-3)
            index, value = compress(encode(delta), k)
            delta.sub_(decode(scatter(shape, index, value)))
            times["encode"].append(time.perf_counter() - start)
            sent.append((index, value))
        gathered = [(i, v * (1 + p / 100)) for p, (i, v) in enumerate((sent * peers)[:peers])]
        for run in range(max(runs, 1) + 1):
            start = time.perf_counter()
            value = torch.cat([v / (v.norm() + 1e-8) for _, v in gathered], dim=-1)
            index = torch.cat([i for i, _ in gathered], dim=-1)
            theta.mul_(1 - 1e-3 * 0.1).sub_(decode(scatter(shape, index, value)).sign_(), alpha=1e-3)
            times["decode_aggregate_apply"].append(time.perf_counter() - start)
            start = time.perf_counter()
            trial = theta - 2e-4 * decode(scatter(shape, *gathered[0])).sign_()
            times["trial"].append(time.perf_counter() - start)
    assert trial.shape == theta.shape
    ns = {key: {"min": min(t[1:]) / n * 1e9, "median": sorted(t[1:])[len(t[1:]) // 2] / n * 1e9} for key, t in times.items()}
    print(json.dumps({"params": n, "peers": peers, "topk": k, "threads": torch.get_num_threads(), "ns_per_param": ns,
                      "bytes": n // 4096 * k * 12}, indent=2))


if __name__ == "__main__":
    main()
