#!/usr/bin/env python3
"""What ONNX Runtime's optimizers make of the corpus: attention operators on load, and by its Transformer tool.

    python onnxruntime_fusion.py CORPUS... --output onnxruntime.json      (measure.py --ort onnxruntime.json)

The tool wants to be told a family of models; each export gets the best of those tried. Needs onnx, onnxruntime, sympy and torch.
"""
import argparse
import json
import logging
import pathlib
import tempfile

import onnx
import onnxruntime
from onnxruntime.transformers import optimizer

FAMILIES = ("bert", "gpt2", "bart", "t5", "vit", "clip")


def attention_operators(model):
    return sum("Attention" in node.op_type for node in model.graph.node)


def on_load(path):
    with tempfile.TemporaryDirectory() as temporary:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = f"{temporary}/model.onnx"
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return attention_operators(onnx.load(options.optimized_model_filepath))


def by_tool(path):
    """Most attention operators that any family gives; None where the tool fails with every one."""
    best = None
    for family in FAMILIES:
        try:
            optimized = optimizer.optimize_model(str(path), model_type=family, num_heads=0, hidden_size=0, opt_level=0)
        except Exception:  # whatever the tool raises on a graph that it did not expect
            continue
        best = max(best or 0, attention_operators(optimized.model))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path, nargs="+")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--tool-every", type=int, default=1, help="of so many files one goes through the tool, which takes long")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    results = {}
    for number, path in enumerate(sorted(model for corpus in options.corpus for model in corpus.glob("*/model.onnx"))):
        try:
            loaded = on_load(path)
        except Exception as error:  # it refuses the file
            loaded = None
            print(f"{path.parent.name}: {str(error)[:120]}", flush=True)
        tool = by_tool(path) if number % options.tool_every == 0 else "not run"
        results[path.parent.name] = {"load": loaded, "tool": tool}
        print(path.parent.name, results[path.parent.name], flush=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
