#!/usr/bin/env python3
"""Checks what weft makes of one exported model, with nothing but Python:

    python check_optimize.py --weft build/release/tools/weft fixtures/NAME

Every attention core, norm and Q/K/V is fused and no Softmax is left; the file that `weft optimize` writes explains the same and
gives the recorded outputs.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

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
    return {key: report[key] for key in ("attention", "norms", "qkv", "softmax_left")}


fused = counts(arguments.folder / "model.onnx")
problems = [f"{fused['softmax_left']} Softmax left"] if fused["softmax_left"] else []
for name, sites in (("attention", "cores"), ("norms", "sites"), ("qkv", "sites")):
    if fused[name][sites] != fused[name]["fused"]:
        problems.append(f"{name}: {fused[name]}")
with tempfile.TemporaryDirectory() as scratch:
    copy = pathlib.Path(scratch) / arguments.folder.name
    copy.mkdir()
    weft("optimize", arguments.folder / "model.onnx", "-o", copy / "model.onnx")
    again = counts(copy / "model.onnx")
    if again != fused:
        problems.append(f"the optimized file explains as {again}")
    for data in arguments.folder.glob("test_data_set_*"):
        (copy / data.name).symlink_to(data.resolve())
    weft("test", copy, "--of-largest", "1e-4")
print(fused)
if problems:
    sys.exit("\n".join(problems))
