"""Loads an exported model with Hugging Face transformers and compares it with gauntlet.

    pip install torch transformers numpy
    gauntlet export --model RUN --out EXPORT
    python tests/peers/hf_load.py --gauntlet target/release/gauntlet --model EXPORT --data PREPARED

Compared: the mean loss over the same sequences of a prepared folder, the ids of a greedy continuation, and
the ids and text of the tokenizer. Ids from tokenizer_vocab_size on are padding: gauntlet never predicts
them, so their logits are set to minus infinity here too. --half also saves the model in bf16 and f16 and
compares the loss gauntlet reads from those files. Ends with 1 where a difference is too large.
"""
import argparse
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers


def run(gauntlet, *args):
    done = subprocess.run([gauntlet, *map(str, args)], capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: {done.stderr.decode()}")
    return json.loads(done.stdout)


def read_tokens(folder, split, count):
    """The first tokens of a split, from the shards as the manifest lists them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    dtype = {"u16": "<u2", "u32": "<u4"}[manifest["dtype"]]
    shards = [np.fromfile(folder / shard["file"], dtype) for shard in manifest["splits"][split]["shards"]]
    return np.concatenate(shards)[:count].astype(np.int64)


def mean_loss(model, tokens, seq, sequences, vocab):
    """Mean cross-entropy in nats; sequence i is the tokens [i*seq, (i+1)*seq], both ends included."""
    total = 0.0
    for i in range(sequences):
        ids = torch.from_numpy(tokens[i * seq:(i + 1) * seq + 1])
        with torch.no_grad():
            logits = model(ids[None, :-1]).logits[0].float()
        logits[:, vocab:] = -math.inf
        total += torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum").double().item()
    return total / (seq * sequences)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gauntlet", required=True)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--prompt", default="It was the best of times, and 3 € too; l'été")
    parser.add_argument("--half", action="store_true")
    args = parser.parse_args()

    model = transformers.LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    vocab = getattr(model.config, "tokenizer_vocab_size", model.config.vocab_size)
    result = {"transformers": transformers.__version__, "torch": torch.__version__}
    wrong = []

    def compare(name, ours, theirs, limit):
        difference = abs(ours - theirs) / abs(theirs)
        result[name] = {"gauntlet": ours, "transformers": theirs, "relative difference": difference}
        if not difference <= limit:
            wrong.append(name)

    common = ["--data", args.data, "--seq", args.seq, "--sequences", args.sequences, "--json"]
    ours = run(args.gauntlet, "eval", "--model", args.model, *common)
    tokens = read_tokens(args.data, ours["split"], args.seq * ours["sequences"] + 1)
    theirs = mean_loss(model, tokens, args.seq, ours["sequences"], vocab)
    compare("loss", ours["loss"], theirs, 1e-5)

    made = run(args.gauntlet, "generate", "--model", args.model, "--prompt", args.prompt, "--max-tokens", 32,
               "--temperature", 0, "--json")
    ids = tokenizer.encode(args.prompt, add_special_tokens=False)
    out = model.generate(torch.tensor([ids]), max_new_tokens=32, do_sample=False)[0, len(ids):].tolist()
    out = out[:out.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in out else out
    result["prompt ids equal"] = ids == made["prompt_ids"]
    result["greedy ids equal"] = out == made["ids"]
    result["text equal"] = tokenizer.decode(out) == made["text"]
    wrong += [name for name in ("prompt ids equal", "greedy ids equal", "text equal") if not result[name]]

    for dtype in (torch.bfloat16, torch.float16) if args.half else ():
        with tempfile.TemporaryDirectory() as folder:
            half = transformers.LlamaForCausalLM.from_pretrained(args.model, dtype=dtype)
            half.save_pretrained(folder)
            # As exported: transformers writes an equal tokenizer in other bytes, and data belongs to the bytes.
            shutil.copy(args.model / "tokenizer.json", folder)
            # Both compute in f32 with the weights that were saved.
            theirs = mean_loss(half.float(), tokens, args.seq, ours["sequences"], vocab)
            read = run(args.gauntlet, "eval", "--model", folder, *common)
            compare(str(dtype), read["loss"], theirs, 1e-5)

    print(json.dumps(result, indent=2, ensure_ascii=False))
    if wrong:
        sys.exit(f"differs: {', '.join(wrong)}")


main()
