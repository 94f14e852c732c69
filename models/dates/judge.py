#!/usr/bin/env python3
"""Counts how many lines of heldout.tsv `weft generate` gets exactly right: python judge.py --weft PATH [--num-beams N]. Fails below 99 %."""

import argparse
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
parser = argparse.ArgumentParser()
parser.add_argument("--weft", required=True)
parser.add_argument("--num-beams", default="1")
arguments = parser.parse_args()
pairs = [line.split("\t") for line in (HERE / "heldout.tsv").read_text().splitlines()]
command = [arguments.weft, "generate", HERE, "--num-beams", arguments.num_beams]
for text, _ in pairs:
    command += ["--text", text]
run = subprocess.run(command, capture_output=True, text=True)
if run.returncode:
    sys.exit(run.stderr)
right = sum(actual == wanted for actual, (_, wanted) in zip(run.stdout.splitlines(), pairs))
print(f"{right} of {len(pairs)} exact")
sys.exit(right < 0.99 * len(pairs))
