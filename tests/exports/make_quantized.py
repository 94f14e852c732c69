#!/usr/bin/env python3
"""Quantizes fixtures dynamically with ONNX Runtime and records what it computes, unoptimized, as ONNX test folders.

    python make_quantized.py [--fixtures fixtures] [--out quantized]
"""

import argparse
import pathlib

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

CASES = {
    "bert-i8-columns": ("bert-eager-torchscript-14", QuantType.QInt8, True),
    "gpt2-u8": ("gpt2-sdpa-dynamo-18", QuantType.QUInt8, False),
    "llama-i8": ("llama-eager-torchscript-14", QuantType.QInt8, False),
}

parser = argparse.ArgumentParser()
parser.add_argument("--fixtures", type=pathlib.Path, default=pathlib.Path(__file__).parent / "fixtures")
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "quantized")
arguments = parser.parse_args()
for name, (fixture, weight_type, per_channel) in CASES.items():
    folder = arguments.out / name
    folder.mkdir(parents=True, exist_ok=True)
    quantize_dynamic(arguments.fixtures / fixture / "model.onnx", folder / "model.onnx", weight_type=weight_type, per_channel=per_channel)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    for data in sorted((arguments.fixtures / fixture).glob("test_data_set_*")):
        to = folder / data.name
        to.mkdir(exist_ok=True)
        feed = {}
        for path in sorted(data.glob("input_*.pb")):
            tensor = onnx.load_tensor(path)
            feed[tensor.name] = onnx.numpy_helper.to_array(tensor)
            (to / path.name).write_bytes(path.read_bytes())
        for i, (output, value) in enumerate(zip(names, session.run(None, feed))):
            tensor = onnx.numpy_helper.from_array(np.asarray(value), output)
            (to / f"output_{i}.pb").write_bytes(tensor.SerializeToString())
