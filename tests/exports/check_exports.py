#!/usr/bin/env python3
"""Checks weft on the fixtures against ONNX Runtime (needs onnx, onnxruntime, numpy):

    python check_exports.py --weft build/release/tools/weft [--fixtures fixtures]

For each: `weft explain` leaves no Softmax and fuses every attention core, norm and Q/K/V; the file that `weft optimize` writes loads in
ONNX Runtime and gives PyTorch's numbers (1e-4 of the largest magnitude); `weft explain` of that file counts the same.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime


def read_set(folder, prefix):
    result = {}
    for path in sorted(folder.glob(f"{prefix}_*.pb")):
        tensor = onnx.load_tensor(path)
        result[tensor.name] = onnx.numpy_helper.to_array(tensor)
    return result


def explain(weft, path):
    report = json.loads(subprocess.run([weft, "explain", path, "--json"], check=True, capture_output=True, text=True).stdout)
    return {key: report[key] for key in ("attention", "norms", "rotary", "qkv", "softmax_left")}


def check(weft, folder, scratch):
    problems = []
    counts = explain(weft, folder / "model.onnx")
    if counts["softmax_left"] or counts["attention"]["cores"] != counts["attention"]["fused"]:
        problems.append(f"attention {counts['attention']}, {counts['softmax_left']} Softmax left")
    for key in ("norms", "rotary", "qkv"):
        if counts[key]["sites"] != counts[key]["fused"]:
            problems.append(f"{key} {counts[key]}")
    optimized = scratch / "optimized.onnx"
    subprocess.run([weft, "optimize", folder / "model.onnx", "-o", optimized], check=True, capture_output=True)
    again = explain(weft, optimized)
    if again != counts:
        problems.append(f"the optimized file explains as {again} instead of {counts}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(optimized), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for data in sorted(folder.glob("test_data_set_*")):
        inputs, expected = read_set(data, "input"), read_set(data, "output")
        results = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})
        for output, actual in zip(session.get_outputs(), results):
            wanted = expected[output.name]
            if actual.shape != wanted.shape:
                problems.append(f"{data.name}: {output.name} is {actual.shape} instead of {wanted.shape}")
            elif wanted.size:
                worst = max(worst, float(np.abs(actual - wanted).max() / np.abs(wanted).max()))
    if not worst <= 1e-4:
        problems.append(f"ONNX Runtime differs by {worst:.2e}")
    return counts, worst, problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weft", required=True)
    parser.add_argument("--fixtures", type=pathlib.Path, default=pathlib.Path(__file__).parent / "fixtures")
    arguments = parser.parse_args()
    failed = 0
    folders = sorted(p.parent for p in arguments.fixtures.glob("*/model.onnx"))
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                counts, worst, problems = check(arguments.weft, folder, pathlib.Path(scratch))
                print(f"{folder.name}: attention {counts['attention']['fused']}/{counts['attention']['cores']}, norms {counts['norms']['fused']}/"
                      f"{counts['norms']['sites']}, qkv {counts['qkv']['fused']}/{counts['qkv']['sites']}, ONNX Runtime {worst:.1e}")
            except Exception as error:  # noqa: BLE001
                problems = [str(error).splitlines()[0][:300] if str(error) else type(error).__name__]
        for problem in problems:
            print(f"  FAILED {folder.name}: {problem}")
        failed += bool(problems)
    print(f"{len(folders) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
