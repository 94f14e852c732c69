#!/usr/bin/env python3
"""Runs weft, and ONNX Runtime's optimizer beside it, over what make_corpus.py wrote; writes docs/fusion.md.

    python measure.py CORPUS... [--weft build/release/tools/weft] [--report docs/fusion.md] [--ort onnxruntime.json]

--ort: what onnxruntime_fusion.py wrote.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys


INTRODUCTION = """# Fusion over a corpus of exports

Written by `tests/corpus/measure.py` over what `tests/corpus/make_corpus.py` exports: tiny models with random weights of many
architectures of Hugging Face, and attention as people write it by hand (`hand-*`, `tests/corpus/handwritten.py`), both exporters, eager
and sdpa attention. "ok": three shapes within 1e-4 of PyTorch, relative to each output's largest magnitude (the traced shape three times
where tracing fixed it).

- *attention*, *norms*, *QKV*: sites fused / present. Softmax is *left* where no Attention took it.
- *mask tensors*: Attention operators that still read a mask as a tensor, and of these in brackets those whose mask has no axis of
  queries. All others have theirs as attributes (`is_causal`, `query_position`, windows, chunks), `key_padding` and `alibi_slopes`: what a
  mask computes is told by running its sub-graph on small sizes (`passes/mask_samples.h`), so no spelling of it matters. Causality and
  padding are taken out of sums and of `Where` over a bias whose size is known, too. An integer `attention_mask` from which a mask is made
  by arithmetic, `(1 - m) * fill`, is taken to hold ones and zeros; of any other source every number has to be right.
- *ONNX Runtime on load*, *by its Transformer tool*: attention operators in what its session makes of the file, and in what
  `onnxruntime.transformers` makes of it with the best of six families of models (`tests/corpus/onnxruntime_fusion.py`; the tool, which
  takes long, on every fifth file).

What stays a tensor is one: biases of relative positions (T5, MPNet, BEiT, Swin, LayoutLM, Swin's masks of -100 for windows), scores that
depend on queries and relative positions (DeBERTa, Transformer-XL, XLNet, Conformer, WavLM), Bloom's slopes times a running count of the
attention mask, DeBERTa's masks of queries, GPT-Neo's second fill. `weft explain` says so for each.

What stays unfused: attention of blocks and of a few positions (LongT5, LED, Longformer, the local layers of Pegasus-X), attention without
a softmax over keys alone (MRA, YOSO), pairs of attentions that read each other's scores (LiLT), and scores that -10000 takes the place of
while another mask is added, where rows without a key come out otherwise (OpenAI's GPT with padding). Projections by convolutions of
several groups (SqueezeBERT) are no one Linear.

How much of this holds for graphs that nobody exported yet is what `tests/passes/mutants_test.cc` measures: exports rewritten at random
(operands swapped, sums regrouped, Reshapes and Transposes split in two, casts and views inserted, products transposed, flattened or
spelled as Einsum, means as sums, Split as Slices and back, other node orders and names) have to fuse as before and give PyTorch's
numbers. `WEFT_MUTANTS=1000 weft_passes_test --gtest_filter='Mutants*'` makes a thousand; CI a small sample.
Last measured: 1,000 mutants of the fixtures, 14,878 of 14,888 sites fused as before; 400 mutants of 196 exports of this corpus
(`WEFT_MUTANTS_CORPUS`), 4,729 of 4,745; none with other numbers.
Import and passes of a decoder with past: 0.06 s of processor time for 12 layers, 0.27 s for 48.

"""


def totals(rows):
    """The table in one line."""
    measured = [row for row in rows if row[1] != "-"]
    sums = []
    for name, column in (("attention", 1), ("norms", 2), ("QKV", 3)):
        pairs = [[int(x) for x in row[column].split("/")] for row in measured]
        sums.append(f"{name} {sum(p[0] for p in pairs)} of {sum(p[1] for p in pairs)}")
    equal = sum(row[6] == row[7] == "ok" for row in measured)
    return f"{len(rows)} exports: {', '.join(sums)} sites fused; {equal} equal to PyTorch.\n\n"


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def weft_row(weft, folder):
    """(explained as JSON or None, largest differences with passes none and all or an error text)"""
    explained = run(weft, "explain", str(folder / "model.onnx"), "--json")
    info = json.loads(explained.stdout) if explained.returncode == 0 else None
    results = []
    for passes in ("none", "all"):
        judged = run(weft, "test", str(folder), "--of-largest", "1e-4", "--passes", passes)
        results.append("ok" if judged.returncode == 0 and "1 passed" in judged.stdout else
                       (judged.stdout + judged.stderr).strip()[:400])
    return info, results, explained.stderr.strip()


def masks_left(weft, folder):
    """Attention operators that still read a mask tensor after all passes, and those whose mask is one of keys alone."""
    text = run(weft, "dump", str(folder / "model.onnx"), "--passes", "all").stdout
    shapes = dict(re.findall(r"(%\S+): \w+\[([^\]]*)\]", text))
    inputs = [line.split(", ") for line in re.findall(r"= Attention\(([^)]*)\)", text)]
    masks = [names[3] for names in inputs if len(names) > 3 and names[3] != "_"]
    of_keys = sum(shapes.get(mask, "").split(", ")[-2:-1] == ["1"] for mask in masks)
    return f"{len(masks)} ({of_keys})" if of_keys else len(masks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path, nargs="+")
    parser.add_argument("--weft", default="build/release/tools/weft")
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--ort", type=pathlib.Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    ort = json.loads(options.ort.read_text()) if options.ort else {}
    rows, bad = [], 0
    for folder in sorted((f for corpus in options.corpus for f in corpus.iterdir()), key=lambda f: f.name):
        if not (folder / "model.onnx").exists() or not re.search(options.only, folder.name):
            continue
        info, results, error = weft_row(options.weft, folder)
        if info is None:
            bad += 1
            print(f"{folder.name}: {error[:300]}", flush=True)
            rows.append([folder.name] + ["-"] * 7)
            continue
        softmax = info.get("softmax_left", info["attention"]["cores"] - info["attention"]["fused"])
        norms, qkv = info["norms"], info["qkv"]
        row = [folder.name, f"{info['attention']['fused']}/{info['attention']['cores']}", f"{norms['fused']}/{norms['sites']}",
               f"{qkv['fused']}/{qkv['sites']}", softmax, masks_left(options.weft, folder), *results]
        if ort:
            row += ["fails" if x is None else x for x in (ort[folder.name]["load"], ort[folder.name]["tool"])]
        rows.append(row)
        complete = results == ["ok", "ok"] and info["attention"]["fused"] == info["attention"]["cores"]
        bad += not complete
        print(" ".join(str(x) for x in row), flush=True)
    if options.report:
        heads = ["export", "attention fused", "norms", "QKV", "Softmax left", "mask tensors", "passes none", "passes all"] + (
            ["ONNX Runtime on load", "by its Transformer tool"] if ort else [])
        text = [INTRODUCTION, totals(rows), "| " + " | ".join(heads) + " |\n", "|" + "---|" * len(heads) + "\n"]
        text += ["| " + " | ".join(str(x).replace("\n", " ")[:120] for x in row) + " |\n" for row in rows]
        options.report.write_text("".join(text))
    print(f"{len(rows)} exports, {bad} with something left")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
