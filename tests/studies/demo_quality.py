#!/usr/bin/env python3
"""DeMo's payloads against f32 values and AdamW, in training: 4 workers, equal tokens, several seeds.

    gauntlet data prepare --data BOOKS --validation '*ulysses*' --vocab-size 4096 --out PREPARED
    python tests/studies/demo_quality.py --gauntlet target/release/gauntlet --data PREPARED --out study

Learning rates of AdamW and of DeMo with f32 values are chosen at the first seed, each among the same number of values;
the other codebooks take that of f32 values. Runs are kept: a study that was stopped goes on where it was, a run from
its newest checkpoint, on another machine too if the folder comes along. Prints a Markdown table. Needs Python's
standard library only.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess

RATES = [0.00025, 0.0005, 0.001, 0.002]
BITS = {"f32": 32, "8 bits": 8, "4 bits": 4, "3 bits": 3, "2 bits": 2, "1 bit": 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gauntlet", required=True, help="the program")
    parser.add_argument("--data", required=True, help="a prepared folder with a validation split")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--preset", default="small-10m")
    parser.add_argument("--batch", default=2, type=int, help="sequences of a worker a step")
    parser.add_argument("--seq", default=256, type=int)
    parser.add_argument("--steps", default=1024, type=int)
    parser.add_argument("--seeds", default=[1, 2, 3], type=int, nargs="+")
    parser.add_argument("--schemes", default=["adamw", "f32", "3 bits", "1 bit"], nargs="+", choices=["adamw", *BITS])
    parser.add_argument("--threads", default=2, type=int, help="results do not depend on it")
    args = parser.parse_args()

    best = {}
    for scheme in ("adamw", "f32"):
        losses = {rate: run(args, scheme, rate, args.seeds[0])["bits_per_byte"] for rate in RATES}
        best[scheme] = min(losses, key=losses.get)
        print(f"{scheme}, seed {args.seeds[0]}: " + ", ".join(f"{r} {b:.4f}" for r, b in losses.items()), flush=True)

    rows = {}
    for seed in args.seeds:
        for scheme in args.schemes:
            rate = best["adamw" if scheme == "adamw" else "f32"]
            rows.setdefault(scheme, []).append(run(args, scheme, rate, seed))
    table(args.seeds, rows)


def run(args, scheme, rate, seed):
    """The summary of one run, made unless it is there."""
    out = args.out / f"{scheme.replace(' ', '-')}-{rate}-{seed}"
    if not ended(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [args.gauntlet, "train", "--preset", args.preset, "--data", args.data, "--workers", "4"]
        command += ["--batch", args.batch, "--seq", args.seq, "--steps", args.steps, "--warmup", args.steps // 20]
        command += ["--validate-every", args.steps // 4, "--validation-sequences", "256"]
        command += ["--checkpoint-every", args.steps // 32, "--keep", "1", "--threads", args.threads]
        command += ["--lr", rate, "--seed", seed, "--out", out]
        command += ["--optimizer", "adamw"] if scheme == "adamw" else ["--optimizer", "demo", "--bits", BITS[scheme]]
        if any(out.glob("checkpoints/*")):  # a run keeps its settings
            command = [args.gauntlet, "train", "--resume", "--out", out, "--threads", args.threads]
        else:
            shutil.rmtree(out, ignore_errors=True)
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(out / "checkpoints")
    return ended(out)


def ended(out):
    """The summary of the run in a folder; None where none has trained to its end."""
    summary = out / "summary.json"
    run = json.loads(summary.read_text()) if summary.exists() else {}
    return run if run.get("finished") else None


def size(run):
    """Bytes of a submission; of gradients as they are, in brackets, where none is made."""
    return f"{run['payload_bytes']:,.0f}" if run["payload_bytes"] else f"({4 * run['parameters']:,})"


def table(seeds, rows):
    print("\n| | bytes a submission | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | spread |")
    print("|---" * (len(seeds) + 4) + "|")
    for scheme, runs in rows.items():
        bits = [run["bits_per_byte"] for run in runs]
        spread = f"{statistics.stdev(bits):.4f}" if len(bits) > 1 else ""
        cells = " | ".join(f"{b:.4f}" for b in bits)
        print(f"| {scheme} | {size(runs[-1])} | {cells} | {statistics.mean(bits):.4f} | {spread} |")


if __name__ == "__main__":
    main()
