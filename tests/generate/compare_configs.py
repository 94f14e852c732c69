#!/usr/bin/env python3
"""Compares `weft generate` with transformers.generate for many generation configs: tokens exactly, scores to 1e-4.

    python compare_configs.py --weft PATH FOLDER
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--weft", required=True)
parser.add_argument("folder", type=pathlib.Path)
arguments = parser.parse_args()
cases = [json.loads(line) for line in (arguments.folder / "configs.jsonl").read_text().splitlines()]
equal = 0
for options, group in itertools.groupby(cases, key=lambda case: case["options"]):
    group = list(group)
    with tempfile.TemporaryDirectory() as scratch:
        prompts, config = pathlib.Path(scratch) / "prompts.jsonl", pathlib.Path(scratch) / "config.json"
        prompts.write_text("".join(json.dumps({"input_ids": case["input_ids"]}) + "\n" for case in group))
        config.write_text(json.dumps(options))
        run = subprocess.run([arguments.weft, "generate", arguments.folder, "--ids-file", prompts, "--config", config, "--json"],
                             capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{options}: {run.stderr}")
    for case, line in zip(group, run.stdout.splitlines(), strict=True):
        actual = json.loads(line)
        same = len(actual["scores"]) == len(case["scores"]) and all(
            abs(x - y) <= 1e-4 * max(1, abs(y)) for x, y in zip(actual["scores"], case["scores"]))
        if actual["sequences"] == case["sequences"] and same:
            equal += 1
        else:
            print(f"{options} {case['input_ids']}:\n  {actual['sequences']} {actual['scores']}\n  expected\n  {case['sequences']} {case['scores']}")
print(f"{equal} of {len(cases)} equal")
sys.exit(equal != len(cases))
