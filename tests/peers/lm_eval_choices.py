"""Scores multiple-choice questions with lm-evaluation-harness itself and compares `gauntlet eval --task`.

    pip install torch transformers lm_eval
    gauntlet export --model RUN --out EXPORT
    python tests/peers/lm_eval_choices.py --gauntlet target/release/gauntlet --model EXPORT \\
        --task hellaswag --file validation.jsonl

The harness runs its own task definition on the local file. Padding ids are masked as gauntlet does.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

DEFINITIONS = {"hellaswag": "hellaswag/hellaswag.yaml", "piqa": "piqa/piqa.yaml",
               "arc-easy": "arc/arc_easy.yaml"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gauntlet", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True, choices=DEFINITIONS)
    parser.add_argument("--file", required=True)
    args = parser.parse_args()

    model = transformers.LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    vocab = getattr(model.config, "tokenizer_vocab_size", model.config.vocab_size)

    def mask(_module, _inputs, logits):
        logits[..., vocab:] = -math.inf
        return logits

    model.lm_head.register_forward_hook(mask)
    harness = HFLM(pretrained=model, tokenizer=transformers.AutoTokenizer.from_pretrained(args.model),
                   batch_size=1, device="cpu")
    definition = pathlib.Path(lm_eval.__file__).parent / "tasks" / DEFINITIONS[args.task]
    with tempfile.TemporaryDirectory() as folder:
        local = {"include": str(definition), "task": "local", "dataset_path": "json", "dataset_name": None,
                 "dataset_kwargs": {"data_files": {"validation": str(pathlib.Path(args.file).resolve())}},
                 "training_split": None, "validation_split": "validation", "test_split": None, "tag": None}
        (pathlib.Path(folder) / "local.yaml").write_text(json.dumps(local))
        results = lm_eval.simple_evaluate(model=harness, tasks=["local"],
                                          task_manager=TaskManager(include_path=folder))["results"]["local"]
    command = [args.gauntlet, "eval", "--model", args.model, "--task", args.task, "--file", args.file, "--json"]
    ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    wrong = []
    for name in ("acc", "acc_norm"):
        for ending in ("", "_stderr"):
            theirs = results[f"{name}{ending},none"]
            print(f"{name}{ending}: gauntlet {ours[name + ending]}, harness {theirs}")
            if not abs(ours[name + ending] - theirs) <= 1e-9:
                wrong.append(name + ending)
    if wrong:
        sys.exit(f"differs: {', '.join(wrong)}")


main()
