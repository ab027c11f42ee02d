#!/usr/bin/env python3
"""DeMo's settings one by one in training, 0.9M parameters, 1.05M tokens, 4 workers: values, k, what is subtracted,
the strength cap, levels.

    gauntlet data prepare --data BOOKS --validation '*ulysses*' --out PREPARED
    python tests/studies/demo_settings.py --gauntlet target/release/gauntlet --data PREPARED --out settings

Runs that are there are not made again. Prints a Markdown table: bits per byte, and the difference from f32 values at the
same seed. Needs Python's standard library only; some 30 runs of a minute or two.
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess

from demo_quality import ended, size

BASE = "--preset byte-1m --workers 4 --batch 4 --seq 128 --steps 512 --warmup 25 --lr 0.002 --validation-sequences 512"
F32 = "DeMo, f32 values"
# Name, flags, number of seeds.
ROWS = [
    ("AdamW", "--optimizer adamw", 3),
    (F32, "--bits 32", 3),
    ("1 bit", "--bits 1", 3),
    ("2 bits", "--bits 2", 3),
    ("3 bits", "--bits 3", 3),
    ("4 bits", "--bits 4", 1),
    ("8 bits", "--bits 8", 1),
    ("1 bit, k = 8", "--bits 1 --topk 8", 1),
    ("1 bit, k = 16", "--bits 1 --topk 16", 1),
    ("1 bit, k = 64", "--bits 1 --topk 64", 1),
    ("1 bit, 2 of 4 applied, subtracted always", "--bits 1 --gather 2 --subtract always", 1),
    ("1 bit, 2 of 4 applied, subtracted when applied", "--bits 1 --gather 2 --subtract when-recorded", 1),
    ("1 bit, no strength cap", "--bits 1 --strength-cap false", 3),
    ("2 bits, level 96", "--bits 2 --levels 96", 1),
    ("3 bits, levels 32 64 96", "--bits 3 --levels 32,64,96", 1),
    ("3 bits, levels 52 65 94", "--bits 3 --levels 52,65,94", 1),
    ("4 bits, levels 45 51 57 64 73 89 107", "--bits 4 --levels 45,51,57,64,73,89,107", 1),
    ("3 bits, k = 8", "--bits 3 --topk 8", 1),
    ("3 bits, k = 16", "--bits 3 --topk 16", 1),
    ("3 bits, k = 64", "--bits 3 --topk 64", 1),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gauntlet", required=True, help="the program")
    parser.add_argument("--data", required=True, help="a prepared folder of bytes with a validation split")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    print("| | bytes a submission | seed 1 | 2 | 3 | mean | against f32, seed by seed |\n|---|---|---|---|---|---|---|")
    losses = {}
    for name, flags, seeds in sorted(ROWS, key=lambda row: row[0] != F32):
        runs = [run(args, flags, seed) for seed in range(1, seeds + 1)]
        losses[name] = [run["bits_per_byte"] for run in runs]
        shown = [f"{loss:.4f}" for loss in losses[name]] + [""] * (3 - seeds)
        mean = f"{statistics.mean(losses[name]):.4f}" if seeds > 1 else ""
        against = [] if name == F32 else [f"{a - b:+.4f}" for a, b in zip(losses[name], losses[F32])]
        print(f"| {name} | {size(runs[0])} | {' | '.join(shown)} | {mean} | {' '.join(against)} |", flush=True)
    print(f"spread of f32 values over seeds (standard deviation): {statistics.stdev(losses[F32]):.4f}")


def run(args, flags, seed):
    """The summary of one run, made unless it is there."""
    out = args.out / f"{flags.replace('--', '').replace(' ', '-')}-{seed}"
    if not ended(out):
        shutil.rmtree(out, ignore_errors=True)
        command = [args.gauntlet, "train", *BASE.split(), "--data", args.data, "--seed", str(seed), "--out", str(out)]
        if "adamw" not in flags:
            command += ["--optimizer", "demo"]
        subprocess.run([*command, *flags.split()], check=True, stdout=subprocess.DEVNULL)
    return ended(out)


if __name__ == "__main__":
    main()
