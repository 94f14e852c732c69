#!/usr/bin/env python3
"""What ONNX Runtime's optimizers make of the corpus: attention operators on load, and by its Transformer tool.

    python onnxruntime_fusion.py CORPUS... --output onnxruntime.json      (measure.py --ort onnxruntime.json)

The tool wants to be told a family of models, heads and width. It is told those families that the file's inputs suggest, with the
heads and the width of this corpus and with none; the best counts. What OUTPUT knows is not measured again. Needs onnx,
onnxruntime, sympy and torch.
"""
import argparse
import json
import logging
import pathlib
import tempfile

import onnx
import onnxruntime
from onnxruntime.transformers import optimizer

HEADS, WIDTH = 4, 32  # of most models of the corpus


def families(path):
    inputs = {i.name for i in onnx.load(path, load_external_data=False).graph.input}
    if "pixel_values" in inputs:
        return ("clip", "bert") if "input_ids" in inputs else ("vit", "bert")
    if inputs & {"decoder_input_ids", "encoder_hidden_states", "encoder_attention_mask"}:
        return "bart", "t5"
    return ("gpt2", "bert") if any(name.startswith("past") for name in inputs) else ("bert", "gpt2")


def attention_operators(model):
    return sum("Attention" in node.op_type for node in model.graph.node)


def on_load(path):
    with tempfile.TemporaryDirectory() as temporary:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = f"{temporary}/model.onnx"
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return attention_operators(onnx.load(options.optimized_model_filepath))


def by_tool(path, most):
    """Most attention operators that any of `most` families gives (of one family, told heads and width alone); None where the tool fails with every one."""
    best = None
    for family in families(path)[:most]:
        for heads, width in ((HEADS, WIDTH), (0, 0))[:most]:
            try:
                optimized = optimizer.optimize_model(str(path), model_type=family, num_heads=heads, hidden_size=width, opt_level=0)
            except Exception:  # whatever the tool raises on a graph that it did not expect
                continue
            best = max(best or 0, attention_operators(optimized.model))
            if best:
                return best
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path, nargs="+")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--families", type=int, default=2, help="how many families the tool is told, one after the other")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for path in sorted(model for corpus in options.corpus for model in corpus.glob("*/model.onnx")):
        known = results.get(path.parent.name, {"tool": "not run"})
        if known["tool"] != "not run":
            continue
        try:
            loaded = known["load"] if "load" in known else on_load(path)
        except Exception as error:  # it refuses the file
            loaded = None
            print(f"{path.parent.name}: {str(error)[:120]}", flush=True)
        results[path.parent.name] = {"load": loaded, "tool": by_tool(path, options.families)}
        print(path.parent.name, results[path.parent.name], flush=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
