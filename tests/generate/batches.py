#!/usr/bin/env python3
"""Prompts of random lengths one by one and in batches: equal results, and how much faster. Needs nothing but Python.

    python batches.py --weft PATH FOLDER --vocabulary 4000 [--prompts 200] [--batch-size 8] [--new-tokens 24] [--rounds 3]
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--weft", required=True)
parser.add_argument("folder")
parser.add_argument("--vocabulary", type=int, required=True)
parser.add_argument("--prompts", type=int, default=200)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--new-tokens", type=int, default=24)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", default="2")
arguments = parser.parse_args()
rng = random.Random(5)
with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch) / "prompts.jsonl"
    prompts = [[rng.randrange(5, arguments.vocabulary) for _ in range(rng.randint(4, 48))] for _ in range(arguments.prompts)]
    path.write_text("".join(json.dumps({"input_ids": prompt}) + "\n" for prompt in prompts))

    def run(batch):
        command = [arguments.weft, "generate", arguments.folder, "--ids-file", path, "--json", "--timing", "--threads", arguments.threads,
                   "--batch-size", str(batch), "--max-new-tokens", str(arguments.new_tokens)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        *lines, last = done.stdout.splitlines()
        return [json.loads(line)["sequences"] for line in lines], float(re.search(r"in ([0-9.]+) s", last)[1])

    times = {1: [], arguments.batch_size: []}
    results = {}
    for _ in range(arguments.rounds):
        for batch in times:
            results[batch], seconds = run(batch)
            times[batch].append(seconds)
equal = sum(a == b for a, b in zip(results[1], results[arguments.batch_size]))
alone, together = min(times[1]), min(times[arguments.batch_size])
print(f"{equal} of {arguments.prompts} equal; alone {alone:.2f} s, in batches of {arguments.batch_size} {together:.2f} s: {alone / together:.2f} times")
sys.exit(equal != arguments.prompts)
