#!/usr/bin/env python3
"""What `weft optimize` writes for each export and target, judged by others: the ONNX checker, ONNX Runtime, and weft itself.

    python optimize.py FOLDERS... [--weft build/release/tools/weft] [--report docs/optimize.md] [--targets weft,standard,microsoft]

FOLDERS hold folders in ONNX's test format (make_corpus.py writes them; tests/exports/fixtures are some). Needs onnx and onnxruntime.
"""
import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
from onnx import numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "exports"))
from structure import difference, structure  # pylint: disable=wrong-import-position

FUSED = {
    "standard": ("Attention", "RotaryEmbedding", "RMSNormalization", "LayerNormalization", "Gelu", "Swish"),
    "microsoft": ("MultiHeadAttention", "Attention", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
                  "RotaryEmbedding", "BiasGelu", "FastGelu", "QuickGelu"),
    "weft": ("Attention", "Rotary", "Linear"),
}


def run(*command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def read(path):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def largest_difference(model, folder):
    """Of ONNX Runtime on the file to what PyTorch computed, relative to each output's largest magnitude."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    worst = 0.0
    for data in sorted(folder.glob("test_data_set_*")):
        order = lambda p: int(p.stem.split("_")[-1])
        feeds = {names[order(p)]: read(p) for p in data.glob("input_*.pb")}
        expected = {outputs[order(p)]: read(p) for p in data.glob("output_*.pb")}
        for actual, wanted in zip(session.run(list(expected), feeds), expected.values()):
            if actual.shape != wanted.shape:
                return f"shape {actual.shape} for {wanted.shape}"
            if wanted.size == 0:
                continue
            scale = max(float(numpy.abs(wanted[numpy.isfinite(wanted)]).max(initial=0)), 1e-30)
            apart = numpy.abs(actual.astype("f8") - wanted.astype("f8"))
            apart[(actual == wanted) | (numpy.isnan(actual) & numpy.isnan(wanted))] = 0
            worst = max(worst, float(apart.max(initial=0)) / scale)
    return worst


def interface(model):
    def text(info):
        dims = info.type.tensor_type.shape.dim
        return info.name, info.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in dims]
    return [text(i) for i in (*model.graph.input, *model.graph.output)]


def judge(weft, folder, target, before):
    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "model.onnx"
        made = run(weft, "optimize", folder / "model.onnx", "-o", out, "--target", target)
        if made.returncode:
            return {}, None, ["optimize: " + made.stderr.strip()[:200]]
        try:
            onnx.checker.check_model(str(out), full_check=True)
        except Exception as error:  # pylint: disable=broad-except
            problems.append("checker: " + str(error).strip().splitlines()[0][:200])
        model = onnx.load(str(out))
        nodes = list(model.graph.node) + [n for f in model.functions for n in f.node]
        used = collections.Counter(n.op_type.split("__")[0] for n in nodes)
        original = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        names = lambda m: [name for name, *_ in interface(m)]
        if names(original) != names(model):
            problems.append("names of inputs or outputs differ")
        try:
            largest = largest_difference(out, folder)
            if isinstance(largest, str) or largest > 1e-4:
                problems.append(f"difference {largest}")
        except Exception as error:  # pylint: disable=broad-except
            largest = None
            problems.append("ONNX Runtime: " + str(error).strip()[:300])
        if changed := difference(before, structure(weft, out)):
            problems.append("another graph after import")
            print(f"{folder.name}, {target}: {changed}", flush=True)
    return {op: used[op] for op in FUSED[target] if used[op]}, largest, problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--weft", default="build/release/tools/weft")
    parser.add_argument("--targets", default="weft,standard,microsoft")
    parser.add_argument("--only", default="")
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    targets = arguments.targets.split(",")
    inside = [g for f in arguments.folders for g in (f, *f.iterdir())]  # rglob alone does not follow links
    cases = sorted({m.parent for g in inside if g.is_dir() for m in g.rglob("model.onnx") if arguments.only in str(m)}, key=lambda f: f.name)
    rows, totals = [], collections.Counter()
    for folder in cases:
        try:
            before = structure(arguments.weft, folder / "model.onnx")
        except subprocess.CalledProcessError as error:
            print(f"{folder.name}: weft does not read it: {error.stderr}", flush=True)
            continue
        cells = [folder.name]
        for target in targets:
            used, largest, problems = judge(arguments.weft, folder, target, before)
            for kind in ("optimize", "checker", "ONNX Runtime", "difference", "another graph", "names"):
                totals[target, kind] += any(p.startswith(kind) for p in problems)
            totals[target, "cases"] += 1
            shown = ", ".join(f"{op} {count}" for op, count in used.items())
            number = "" if not isinstance(largest, float) else f"{largest:.0e}"
            cells.append(f"{number} {shown}" + "".join(f"; **{p}**" for p in problems))
        rows.append(cells)
        if arguments.verbose:
            print(" | ".join(cells), flush=True)
    summary = ["| target | files | checker | runs in ONNX Runtime | within 1e-4 | same graph again |", "|---|---|---|---|---|---|"]
    for target in targets:
        n = totals[target, "cases"]
        refused = totals[target, "optimize"]
        summary.append(f"| {target} | {n} | {n - refused - totals[target, 'checker']} | "
                       f"{n - refused - totals[target, 'ONNX Runtime']} | "
                       f"{n - refused - totals[target, 'ONNX Runtime'] - totals[target, 'difference']} | "
                       f"{n - refused - totals[target, 'another graph']} |")
    print("\n".join(summary))
    if arguments.report:
        head = ["# Optimized files in other hands", "",
                "Written by `tests/corpus/optimize.py`: for each export and target of `weft optimize`, ONNX Runtime's largest difference "
                "to PyTorch (relative to each output's largest magnitude) and how often the target's operators are used. \"Another graph "
                "after import\": what weft makes of the file it wrote, of equal numbers, differs from what it made of the export.", ""]
        table = ["", "| export | " + " | ".join(targets) + " |", "|---" * (len(targets) + 1) + "|"]
        table += ["| " + " | ".join(cells) + " |" for cells in rows]
        arguments.report.write_text("\n".join(head + summary + table) + "\n")
    sys.exit(any(count for (_, kind), count in totals.items() if kind != "cases"))


if __name__ == "__main__":
    main()
