#!/usr/bin/env python3
"""The original DeMo's tensor code in PyTorch, timed: the comparison for `gauntlet bench demo`.

Restated from bloc97/DeMo (demo.py): chunks by reshape and permute, DCT by products with the basis, topk, scatter with
mean, inverse, sign. f32 values, int64 indices, no packing, no signature.

    python tests/peers/demo_speed.py [params] [peers] [topk] [runs] [threads] [--device cuda:0]
"""

import argparse
import json
import math
import time

import torch

EDGE = 64


def basis(n):
    j, k = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None, :]
    f = torch.cos(math.pi * (j + 0.5) * k / n) * math.sqrt(2.0 / n)
    f[:, 0] = math.sqrt(1.0 / n)
    return f.float()


def encode(x, f):
    y, x_ = x.shape[0] // EDGE, x.shape[1] // EDGE
    x = x.view(y, EDGE, x_, EDGE).permute(0, 2, 1, 3)
    return torch.einsum("yxij,jb,ia->yxab", x, f, f)


def decode(c, f):
    y, x = c.shape[:2]
    c = torch.einsum("yxab,jb,ia->yxij", c, f, f)
    return c.permute(0, 2, 1, 3).reshape(y * EDGE, x * EDGE)


def compress(c, k):
    flat = c.reshape(*c.shape[:2], -1)
    index = torch.topk(flat.abs(), k, dim=-1, sorted=False).indices
    return index, flat.gather(-1, index)


def scatter(shape, index, value):
    c = torch.zeros(*shape[:2], EDGE * EDGE, device=value.device)
    c.scatter_reduce_(-1, index, value, reduce="mean", include_self=False)
    return c.view(*shape[:2], EDGE, EDGE)


class Clock:
    """Times of the parts, each until the device is done."""

    def __init__(self, device):
        self.device, self.times = device, {}

    def time(self, name, part):
        self.wait()
        start = time.perf_counter()
        result = part()
        self.wait()
        self.times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main():
    parser = argparse.ArgumentParser()
    for name, default in [("params", 20_000_000), ("peers", 15), ("topk", 32), ("runs", 3), ("threads", 2)]:
        parser.add_argument(name, nargs="?", type=lambda text: int(float(text)), default=default)
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    device, peers, k, runs = args.device, args.peers, args.topk, args.runs
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    f = basis(EDGE).to(device)
    cols = 2048
    rows = args.params // cols // EDGE * EDGE
    n = rows * cols
    shape = (rows // EDGE, cols // EDGE)
    grad, theta = torch.randn(rows, cols, device=device), torch.randn(rows, cols, device=device)
    delta = torch.zeros(rows, cols, device=device)
    clock = Clock(device)

    def send():
        delta.mul_(0.999).add_(grad, alpha=1e-3)
        index, value = compress(encode(delta, f), k)
        delta.sub_(decode(scatter(shape, index, value), f))
        return index, value

    def apply():
        value = torch.cat([v / (v.norm() + 1e-8) for _, v in gathered], dim=-1)
        index = torch.cat([i for i, _ in gathered], dim=-1)
        theta.mul_(1 - 1e-3 * 0.1).sub_(decode(scatter(shape, index, value), f).sign_(), alpha=1e-3)

    with torch.no_grad():
        # The first run of each warms up and does not count.
        sent = [clock.time("encode", send) for _ in range(max(runs, 1) + 1)]
        gathered = [(i, v * (1 + p / 100)) for p, (i, v) in enumerate((sent * peers)[:peers])]
        for _ in range(max(runs, 1) + 1):
            clock.time("decode_aggregate_apply", apply)
            trial = clock.time("trial", lambda: theta - 2e-4 * decode(scatter(shape, *gathered[0]), f).sign_())
    assert trial.shape == theta.shape
    ns = {key: {"min": min(t[1:]) / n * 1e9, "median": sorted(t[1:])[len(t[1:]) // 2] / n * 1e9}
          for key, t in clock.times.items()}
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    print(json.dumps({"params": n, "peers": peers, "topk": k, "device": str(device), "threads": torch.get_num_threads(),
                      "ns_per_param": ns, "bytes": n // 4096 * k * 12, "peak_bytes": peak}, indent=2))


if __name__ == "__main__":
    main()
