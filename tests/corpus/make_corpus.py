#!/usr/bin/env python3
"""Exports many architectures with tiny seeded weights, both exporters, and records what PyTorch computes.

    python make_corpus.py OUT [--only bert,vit] [--kinds torchscript-14-eager,dynamo-18-sdpa]

Opsets 11 to 17 of TorchScript and 18 to 24 of dynamo; with transformers 4 the folders say so, with Optimum see optimum_layouts.py. Each
OUT/<architecture>-<exporter>-<opset>-<attention> is a folder in ONNX's test format. Not committed: it is some 100 MB;
measure.py beside this runs weft and ONNX Runtime over it and writes docs/fusion.md.
"""
import argparse
import pathlib
import shutil
import sys
import warnings

import onnx
import onnxruntime
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from architectures import architectures  # pylint: disable=wrong-import-position
from kinds import Wrapped, exports  # pylint: disable=wrong-import-position

warnings.filterwarnings("ignore")

VERSION = "" if transformers.__version__.startswith("5") else "-transformers4"
KINDS = ["torchscript-14-eager", "torchscript-17-sdpa", "dynamo-18-eager", "dynamo-20-sdpa"]


class NoSession:
    """In place of ONNX Runtime where it refuses a file (bfloat16 without kernels, files it takes for invalid)."""

    def __init__(self, path, why):
        self.path, self.why = path, why
        print(f"{path.parent.name}: ONNX Runtime: {str(why).strip().splitlines()[0][:150]}", flush=True)

    def get_inputs(self):
        return list(onnx.load(self.path, load_external_data=False).graph.input)

    def run(self, *_):
        raise self.why


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as why:  # noqa: BLE001
        return NoSession(path, why)


def export_one(label, entry, kind, out):
    make, input_names, output_names, axes, make_inputs, shapes = entry
    exporter, opset, attention = kind.split("-")
    torch.manual_seed(0)
    try:
        module = make(attention).eval()
    except ValueError:  # the model has eager attention alone
        kind = kind.replace("sdpa", "eager")
        module = make("eager").eval()
    folder = out / f"{label}{VERSION}-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    with torch.no_grad():
        inputs = make_inputs(*shapes[0])
        if exporter == "dynamo" and isinstance(module, Wrapped):
            dynamic = (tuple({a: torch.export.Dim.DYNAMIC for a in axes.get(n, {})} for n in input_names),)
            torch.onnx.export(module, inputs, str(path), input_names=input_names, output_names=output_names, dynamic_shapes=dynamic,
                              opset_version=int(opset), dynamo=True, external_data=False, verbose=False)
        else:
            exports.export(module, inputs, input_names, output_names, axes, exporter, int(opset), str(path))
    session = session_of(path)
    feeds = {name: x.numpy() for name, x in zip(input_names, inputs)}
    if not isinstance(session, NoSession) and not exports.agrees(session, feeds, module, inputs, 1e-4):
        raise ValueError("the file does not run, or gives other numbers than PyTorch for what was traced")
    exports.write_sets(module, (input_names, output_names), make_inputs, shapes, folder, session)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    for label, entry in architectures().items():
        if arguments.only and label not in arguments.only.split(","):
            continue
        for kind in arguments.kinds.split(","):
            try:
                export_one(label, entry, kind, arguments.out)
                print(f"{label}-{kind}", flush=True)
            except Exception as error:  # noqa: BLE001 (what an exporter cannot do is recorded, not fatal)
                shutil.rmtree(arguments.out / f"{label}{VERSION}-{kind}", ignore_errors=True)
                print(f"{label}-{kind}: not exported: {type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
