#!/usr/bin/env python3
"""Compares `weft generate` with the recorded output of transformers.generate: tokens exactly, scores to 1e-4. Needs nothing but Python.

    python compare.py --weft PATH FOLDER greedy|beam4
"""

import argparse
import json
import pathlib
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--weft", required=True)
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("strategy", choices=["greedy", "beam4"])
arguments = parser.parse_args()
options = ["--num-beams", "4", "--num-return-sequences", "2"] if arguments.strategy == "beam4" else []
command = [arguments.weft, "generate", arguments.folder, "--ids-file", arguments.folder / "prompts.jsonl", "--json", *options]
run = subprocess.run(command, capture_output=True, text=True)
if run.returncode:
    sys.exit(run.stderr)
actual = [json.loads(line) for line in run.stdout.splitlines()]
expected = [json.loads(line) for line in (arguments.folder / f"{arguments.strategy}.jsonl").read_text().splitlines()]
wrong = 0
for number, (a, e) in enumerate(zip(actual, expected)):
    same_scores = len(a["scores"]) == len(e["scores"]) and all(abs(x - y) <= 1e-4 * max(1, abs(y)) for x, y in zip(a["scores"], e["scores"]))
    if a["sequences"] != e["sequences"] or not same_scores:
        wrong += 1
        print(f"prompt {number}:\n  {a}\n  expected\n  {e}")
print(f"{len(expected) - wrong} of {len(expected)} prompts equal")
sys.exit(wrong > 0 or len(actual) != len(expected))
