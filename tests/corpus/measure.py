#!/usr/bin/env python3
"""Runs weft over what make_corpus.py and optimum_layouts.py wrote, and writes docs/fusion.md.

    python measure.py CORPUS... [--weft build/release/tools/weft] [--report docs/fusion.md] [--ort onnxruntime.json]

--ort: what onnxruntime_fusion.py wrote.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

INTRODUCTION = """# Fusion over a corpus of exports

Written by `tests/corpus/measure.py` over what `tests/corpus/make_corpus.py` exports (`optimum_layouts.py` with Optimum): tiny models with
random weights of many architectures of Hugging Face, and attention as people write it by hand (`hand-*`, `tests/corpus/handwritten.py`).

- *exports*: the exporter, the opset, and which attention the model was told to use (e: eager, s: sdpa); "4.x" before them: by transformers
  4.56, all others by 5.24 (Optimum's by 4.57). Exports of one architecture with the same numbers share a row.
- *attention*, *norms*, *rotary*, *QKV*: sites fused / present of each file. Softmax is *left* where no Attention took it.
- *mask tensors*: Attention operators that still read a mask as a tensor, and of these in brackets those whose mask has no axis of
  queries. All others have theirs as attributes (`is_causal`, `query_position`, windows, chunks), `key_padding` and `alibi_slopes`: what a
  mask computes is told by running its sub-graph on small sizes (`passes/mask_samples.h`), so no spelling of it matters. Causality and
  padding are taken out of sums and of `Where` over a bias whose size is known, too. An integer `attention_mask` from which a mask is made
  by arithmetic, `(1 - m) * fill`, is taken to hold ones and zeros; of any other source every number has to be right.
- *largest difference*: of any output to PyTorch's, relative to that output's largest magnitude, over three shapes (the traced shape three
  times where tracing fixed it), with all passes; without passes every file is held to 1e-4 too.
- *ONNX Runtime on load*, *by its tool*: attention operators in what its session makes of the file, and in what
  `onnxruntime.transformers` makes of it when told a family of models that suits the file's inputs, the heads and the width
  (`tests/corpus/onnxruntime_fusion.py`). Exports of opset 23 and 24 have the operator from the start. "-": not run, which takes long;
  "fails": it raises an error for the file.

What stays a tensor is one: biases of relative positions (T5, MPNet, Swin and its masks of -100 for windows, LayoutLM, SAM, the null key
and the window of hand-written attention), scores that depend on queries and relative positions (DeBERTa, XLNet, Conformer, WavLM, Funnel),
Bloom's slopes times a running count of the attention mask, DeBERTa's masks of queries, GPT-Neo's second fill, masks per block (LongT5, the
local layers of Pegasus-X). PyTorch's own layers exported by TorchScript read padding whose length was fixed while the scores' was not.
`weft explain` says so for each.

No attention core is left. MRA and YOSO have none: no softmax over keys alone. Projections by convolutions of several groups (SqueezeBERT)
are no one Linear, and the lengths that SigLIP divides its embeddings by, without a least value, stay as they are. Not here because no file
of theirs gives what PyTorch gives, in ONNX Runtime either: TorchScript exports of Longformer, LED, CANINE, Cohere, Switch Transformers and
of experts chosen by data; ViT-MAE draws random numbers.
Projections inside the branches of Optimum's merged decoders are no sites: their weights arrive as inputs of the branch. `weft generate`
takes such files apart into two plans whose projections are (docs/generation.md).

How much of this holds for graphs that nobody exported yet is what `tests/passes/mutants_test.cc` measures: exports rewritten at random
(operands swapped, sums regrouped, Reshapes and Transposes split in two, casts and views inserted, products transposed, flattened or
spelled as Einsum, means as sums, Split as Slices and back, other node orders and names) have to fuse as before and give PyTorch's
numbers. `WEFT_MUTANTS=1000 weft_passes_test --gtest_filter='Mutants*'` makes a thousand; CI a small sample.
Last measured: 1,000 mutants of the fixtures, 14,881 of 14,888 sites fused as before; 400 mutants of 196 exports of this corpus
(`WEFT_MUTANTS_CORPUS`), 4,729 of 4,745; none with other numbers.
Import, passes and `weft explain` of a decoder with past: 0.11 s of processor time for 12 layers, 0.55 s for 48.

"""
HEADS = ["architecture", "exports", "attention", "norms", "rotary", "QKV", "Softmax left", "mask tensors", "largest difference"]
SITES = (("attention", "cores"), ("norms", "sites"), ("rotary", "sites"), ("qkv", "sites"))
EXPORTERS = {"torchscript": "TorchScript", "dynamo": "dynamo", "optimum": "Optimum"}


def run(*command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def largest_difference(weft, folder, passes):
    """A number, or why the folder fails."""
    with tempfile.NamedTemporaryFile() as report:
        judged = run(weft, "test", folder, "--of-largest", "1e-4", "--passes", passes, "--json", report.name)
        try:
            case = json.load(report)[0]
        except (json.JSONDecodeError, IndexError):
            return (judged.stdout + judged.stderr).strip()[:300]
    return case["largest_difference"] if case["result"] == "passed" else case["reason"][:300]


def masks_left(weft, folder):
    """Attention operators that still read a mask tensor after all passes, and those whose mask is one of keys alone."""
    text = run(weft, "dump", folder / "model.onnx", "--passes", "all").stdout
    shapes = dict(re.findall(r"(%\S+): \w+\[([^\]]*)\]", text))
    inputs = [line.split(", ") for line in re.findall(r"= Attention\(([^)]*)\)", text)]
    masks = [names[3] for names in inputs if len(names) > 3 and names[3] != "_"]
    of_keys = sum(shapes.get(mask, "").split(", ")[-2:-1] == ["1"] for mask in masks)
    return f"{len(masks)} ({of_keys})" if of_keys else str(len(masks))


def measure(weft, folder):
    explained = run(weft, "explain", folder / "model.onnx", "--json")
    if explained.returncode:
        return {"error": explained.stderr.strip()[:300]}
    info = json.loads(explained.stdout)
    found = {name: [info[name]["fused"], info[name][sites]] for name, sites in SITES}
    found["softmax"] = info["softmax_left"]
    found["masks"] = masks_left(weft, folder)
    found["none"], found["all"] = (largest_difference(weft, folder, passes) for passes in ("none", "all"))
    return found


def is_equal(found):
    return isinstance(found.get("none"), float) and isinstance(found.get("all"), float)


def is_complete(found):
    return is_equal(found) and all(found[name][0] == found[name][1] for name, _ in SITES)


def totals(results, ort=None):
    read = [found for found in results.values() if "error" not in found]
    sums = ", ".join(f"{'QKV' if name == 'qkv' else name} {sum(f[name][0] for f in read)} of {sum(f[name][1] for f in read)}" for name, _ in SITES)
    equal = [found for found in read if is_equal(found)]
    worst = {passes: max((found[passes] for found in equal), default=0) for passes in ("none", "all")}
    others = ""
    for which, text in (("load", "ONNX Runtime has"), ("tool", "its tool")) if ort else ():
        told = {name: ort[name][which] for name in results if ort.get(name, {}).get(which, "not run") != "not run" and "error" not in results[name]}
        cores = sum(results[name]["attention"][1] for name in told)
        others += f" {text} {sum(count or 0 for count in told.values())} of the {cores} attention cores of {len(told)} files{' on load,' if which == 'load' else '.'}"
    return (f"{len(results)} exports of {len({parts(name)[0] for name in results})} architectures: {sums} sites fused; {len(equal)} within "
            f"1e-4 of PyTorch, the largest difference {worst['all']:.0e} with all passes, {worst['none']:.0e} without.{others}\n\n")


def parts(name):
    """architecture, (transformers 4?, exporter), opset and attention of a folder's name"""
    match = re.fullmatch(r"(.+?)(-transformers4)?-(torchscript|dynamo|optimum)-(\d+)-(eager|sdpa)", name)
    architecture, old, exporter, opset, attention = match.groups()
    return architecture, ("4.x " if old else "") + EXPORTERS[exporter], f"{opset}{attention[0]}"


def spread(values):
    """One text for several files: their value, or from the least to the most."""
    kinds = set(values)
    if len(kinds) == 1:
        value = kinds.pop()
        return "fails" if value is None else "-" if value == "not run" else str(value)
    numbers = sorted(value for value in kinds if isinstance(value, int))
    return "fails" if not numbers else str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def table(results, ort):
    """A row for each architecture, more where exports of it end differently."""
    groups = {}
    for name, found in sorted(results.items(), key=lambda item: parts(item[0])):
        key = (parts(name)[0], json.dumps({k: v for k, v in found.items() if k not in ("none", "all")}), is_equal(found))
        groups.setdefault(key, []).append(name)
    lines = ["| " + " | ".join(HEADS + (["ONNX Runtime on load", "by its tool"] if ort else [])) + " |\n"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1) + "\n")
    for (architecture, _, equal), names in groups.items():
        by_exporter = {}
        for name in names:
            by_exporter.setdefault(parts(name)[1], []).append(parts(name)[2])
        exports = "; ".join(f"{exporter} {', '.join(kinds)}" for exporter, kinds in by_exporter.items())
        found = results[names[0]]
        if "error" in found:
            row = [architecture, exports, found["error"].replace("\n", " ")[:120]] + [""] * 6
        else:
            row = [architecture, exports] + [f"{found[name][0]}/{found[name][1]}" for name, _ in SITES] + [str(found["softmax"]), found["masks"]]
            worst = max((results[name]["all"] for name in names), key=lambda x: (isinstance(x, str), x))
            row.append(f"{worst:.0e}" if equal else str(worst).replace("\n", " ")[:120])
        if ort:
            row += [spread([ort.get(name, {}).get(which, "not run") for name in names]) for which in ("load", "tool")]
        lines.append("| " + " | ".join(row) + " |\n")
    return "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path, nargs="+")
    parser.add_argument("--weft", default="build/release/tools/weft")
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--ort", type=pathlib.Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    ort = json.loads(options.ort.read_text()) if options.ort else {}
    results = {}
    for folder in sorted((f for corpus in options.corpus for f in corpus.iterdir()), key=lambda f: f.name):
        if not (folder / "model.onnx").exists() or not re.search(options.only, folder.name):
            continue
        found = results[folder.name] = measure(options.weft, folder)
        print("" if is_complete(found) else "LEFT ", folder.name, json.dumps(found), flush=True)
    if options.report:
        options.report.write_text(INTRODUCTION + totals(results, ort) + table(results, ort))
    bad = sum(not is_complete(found) for found in results.values())
    print(totals(results) + f"{bad} with something left")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
