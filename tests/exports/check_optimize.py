#!/usr/bin/env python3
"""Checks what weft makes of one exported model, with nothing but Python:

    python check_optimize.py --weft build/release/tools/weft fixtures/NAME

Every attention core, norm and Q/K/V is fused and no Softmax is left; the files that `weft optimize` writes for each target give the
recorded outputs, explain the same and come back as the same graph.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from structure import difference, structure

TARGETS = ("weft", "standard", "microsoft")

parser = argparse.ArgumentParser()
parser.add_argument("--weft", required=True)
parser.add_argument("folder", type=pathlib.Path)
arguments = parser.parse_args()


def weft(*options):
    run = subprocess.run([arguments.weft, *options], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"weft {options[0]} exited with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout


def counts(model):
    report = json.loads(weft("explain", model, "--json"))
    return {key: report[key] for key in ("attention", "norms", "rotary", "qkv", "softmax_left")}


fused = counts(arguments.folder / "model.onnx")
problems = [f"{fused['softmax_left']} Softmax left"] if fused["softmax_left"] else []
for name, sites in (("attention", "cores"), ("norms", "sites"), ("rotary", "sites"), ("qkv", "sites")):
    if fused[name][sites] != fused[name]["fused"]:
        problems.append(f"{name}: {fused[name]}")
before = structure(arguments.weft, arguments.folder / "model.onnx")
with tempfile.TemporaryDirectory() as scratch:
    for target in TARGETS:
        copy = pathlib.Path(scratch) / target / arguments.folder.name
        copy.mkdir(parents=True)
        weft("optimize", arguments.folder / "model.onnx", "-o", copy / "model.onnx", "--target", target)
        again = counts(copy / "model.onnx")
        if again != fused:
            problems.append(f"the file for {target} explains as {again}")
        if (changed := difference(before, structure(arguments.weft, copy / "model.onnx"))):
            problems.append(f"the file for {target} comes back as another graph: {changed}")
        for data in arguments.folder.glob("test_data_set_*"):
            (copy / data.name).symlink_to(data.resolve())
        weft("test", copy, "--of-largest", "1e-4")
print(fused)
if problems:
    sys.exit("\n".join(problems))
