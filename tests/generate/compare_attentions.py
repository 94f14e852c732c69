#!/usr/bin/env python3
"""Attention weights of `weft generate --attentions` are those that PyTorch had, rows sum to 1, and no position sees a later one; where the file
holds attention as one operator, the error says so.

    python compare_attentions.py --weft PATH FOLDER
"""
import argparse
import array
import ast
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import zipfile

TOLERANCE = 2e-5  # recorded to six digits


def read_npz(path):
    """{name: (shape, numbers)} of f32 arrays."""
    arrays = {}
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            data = file.read(name)
            length = int.from_bytes(data[8:10], "little")
            header = ast.literal_eval(data[10:10 + length].decode())
            assert header["descr"] == "<f4" and not header["fortran_order"], header
            numbers = array.array("f")
            numbers.frombytes(data[10 + length:])
            arrays[name.removesuffix(".npy")] = (tuple(header["shape"]), numbers)
    return arrays


def check(name, shape, numbers, expected, causal):
    heads, queries, keys = len(expected), len(expected[0]), len(expected[0][0])
    if shape != (heads, queries, keys):
        yield f"{name}: shape {shape}, expected {(heads, queries, keys)}"
        return
    for h in range(heads):
        for s in range(queries):
            row = numbers[(h * queries + s) * keys:][:keys]
            worst = max(abs(a - b) for a, b in zip(row, expected[h][s]))
            if not worst <= TOLERANCE:
                yield f"{name}[{h}, {s}] differs by {worst}: {list(row)}, expected {expected[h][s]}"
            if not math.isclose(sum(row), 1, abs_tol=1e-5):
                yield f"{name}[{h}, {s}] sums to {sum(row)}"
            if causal and any(row[s + 1:]):
                yield f"{name}[{h}, {s}] sees later positions: {list(row)}"


def compare(weft, folder, scratch):
    lines = [json.loads(line) for line in (folder / "attentions.jsonl").read_text().splitlines()]
    prompts, result = scratch / "prompts.jsonl", scratch / "attentions.npz"
    prompts.write_text("".join(json.dumps({"input_ids": line["input_ids"]}) + "\n" for line in lines))
    run = subprocess.run([weft, "generate", str(folder), "--json", "--ids-file", str(prompts), "--max-new-tokens", "5", "--attentions",
                          str(result)], capture_output=True, text=True, check=False)
    if run.returncode:
        yield run.stderr
        return
    arrays = read_npz(result)
    for number, (line, output) in enumerate(zip(lines, run.stdout.splitlines(), strict=True)):
        if json.loads(output)["sequences"] != [line["sequence"]]:
            yield f"prompt {number}: {output}, expected {line['sequence']}"
        for kind in line.keys() - {"input_ids", "sequence"}:
            for layer, expected in enumerate(line[kind]):
                name = f"{number}.0.{kind}.{layer}"
                if name not in arrays:
                    yield f"no {name} among {sorted(arrays)}"
                    continue
                shape, numbers = arrays.pop(name)
                yield from check(name, shape, numbers, expected, kind in ("attentions", "decoder_attentions"))
    if arrays:
        yield f"unexpected: {sorted(arrays)}"


def refuses_one_operator(weft, folder, scratch):
    """The same model after fusion holds attention as one operator."""
    fused, result = scratch / "fused.onnx", scratch / "none.npz"
    (scratch / "fused.jsonl").write_text('{"input_ids": [5, 6]}\n')
    subprocess.run([weft, "optimize", str(folder / "model.onnx"), "-o", str(fused)], check=True, capture_output=True)
    run = subprocess.run([weft, "generate", str(fused), "--ids-file", str(scratch / "fused.jsonl"), "--max-new-tokens", "2", "--attentions",
                          str(result)], capture_output=True, text=True, check=False)
    if run.returncode == 0 or "without a Softmax that weighs values" not in run.stderr or result.exists():
        yield f"a fused model: exit {run.returncode}, {run.stderr}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weft", required=True)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        failures = list(compare(arguments.weft, arguments.folder, pathlib.Path(scratch)))
        if (arguments.folder / "model.onnx").exists():
            failures += refuses_one_operator(arguments.weft, arguments.folder, pathlib.Path(scratch))
    for failure in failures[:10]:
        print(failure)
    print(f"{arguments.folder.name}: {len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
