#!/usr/bin/env python3
"""Operators at the versions that no release of ONNX's node tests covers, with what ONNX Runtime computes, as test folders.

    python make_versions.py OUT

One model for each operator set from 7 to 13: every operator of text, vision and speech models that changed in it (in 7: every one
there was), in the form of that version, with axes that are negative where they may be, extents of 1 and 0, and inputs left out. Later
sets: control flow, whose versions have no test of their own. Output names say which operator they come from.
"""
import argparse
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime
from onnx import defs, helper, numpy_helper

import control
import elementwise
import movement
import network
from arrays import f, i, plain

FAMILIES = {
    elementwise.unary: "Abs Ceil Celu Cos Elu Erf Exp Floor HardSigmoid HardSwish Identity IsNaN LeakyRelu Neg NonZero Relu "
                       "Round Selu Shape Sigmoid Sign Sin Size Softplus Softsign Tanh ThresholdedRelu",
    elementwise.positive: "Log Reciprocal Sqrt", elementwise.binary: "Add Sub Mul Div", elementwise.power: "Pow",
    elementwise.logical: "And Or Xor", elementwise.compared: "Greater Less GreaterOrEqual LessOrEqual", elementwise.equal: "Equal",
    elementwise.variadic: "Max Min Mean Sum",
    elementwise.reduction: "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare",
    elementwise.arg: "ArgMax ArgMin", network.average_pool: "AveragePool", network.max_pool: "MaxPool",
    network.batch_normalization: "BatchNormalization", elementwise.cast: "Cast", elementwise.clip: "Clip", movement.concat: "Concat",
    network.conv: "Conv", network.conv_transpose: "ConvTranspose", movement.constant: "Constant",
    movement.constant_of_shape: "ConstantOfShape", elementwise.cumsum: "CumSum", movement.depth_to_space: "DepthToSpace",
    elementwise.dequantize: "DequantizeLinear", elementwise.quantize: "QuantizeLinear", elementwise.dropout: "Dropout",
    network.einsum: "Einsum", movement.expand: "Expand", movement.flatten: "Flatten", movement.gather: "Gather",
    movement.gather_nd: "GatherND", network.gemm: "Gemm", network.lstm: "LSTM", network.gru: "GRU", network.rnn: "RNN",
    network.matmul: "MatMul", network.matmul_integer: "MatMulInteger", movement.one_hot: "OneHot", movement.pad: "Pad",
    movement.range_of: "Range", movement.reshape: "Reshape", movement.resize: "Resize", movement.upsample: "Upsample",
    movement.scatter: "Scatter ScatterElements", movement.scatter_nd: "ScatterND", movement.slice_of: "Slice",
    elementwise.softmax: "Softmax LogSoftmax", movement.split: "Split", movement.squeeze: "Squeeze", movement.unsqueeze: "Unsqueeze",
    movement.tile: "Tile", movement.top_k: "TopK", movement.transpose: "Transpose", elementwise.where: "Where", control.if_of: "If",
    control.loop: "Loop", control.scan: "Scan", network.qlinear_matmul: "QLinearMatMul", network.qlinear_conv: "QLinearConv",
    network.conv_integer: "ConvInteger", elementwise.mod: "Mod", movement.compress: "Compress", movement.eye_like: "EyeLike",
    movement.unique: "Unique", movement.reverse_sequence: "ReverseSequence", movement.suppression: "NonMaxSuppression",
    movement.roi_align: "RoiAlign",
    lambda v: elementwise.reduction(v, 13): "ReduceSum",
    lambda v: iter([plain(np.array([True, False]))]): "Not",
    lambda v: iter([plain(f(1, 2, 4, 6), blocksize=2)]): "SpaceToDepth",
    lambda v: iter([plain(f(2, 3, 4), f(3), f(3))]): "InstanceNormalization",
    lambda v: iter([plain(f(2, 3), axis=1, p=1), plain(f(2, 3))]): "LpNormalization",
    lambda v: iter([plain(f(1, 2, 4, 3))]): "GlobalAveragePool GlobalMaxPool",
    lambda v: iter([plain(f(1, 2, 3, 4)), plain(f(2, 3, 4), axes=[-1])] if v >= 9 else []): "MeanVarianceNormalization",
    lambda v: iter([plain(f(2, 3), f(3))]): "PRelu",
    lambda v: iter([plain(np.array([np.inf, -np.inf, 1, np.nan], dtype=np.float32), detect_negative=0)]): "IsInf",
    lambda v: iter([plain(f(4, 3), outputs=3), plain(-np.abs(f(1, 2)), outputs=3)]): "DynamicQuantizeLinear",
    lambda v: iter([plain(f(2, 3), i(0, 2, -1).reshape(1, 3), axis=1)]): "GatherElements",
    lambda v: iter([plain(i(1, 2, 4, dtype=np.uint8), i(3, 1, 0, dtype=np.uint8), direction="LEFT")]): "BitShift",
}
# Of later sets: operators without tests of their own.
LATER = {16: "If Loop Identity", 19: "If Loop Scan", 21: "If Loop Scan", 23: "If Loop Scan", 24: "If Loop Scan", 25: "If Loop Scan"}


def emits(op, opset):
    """Whether this operator's version came with this set, or is the oldest of interest."""
    try:
        schema = defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return False
    if schema.deprecated:
        return False
    if opset in LATER:
        return op in LATER[opset].split()
    return schema.since_version == opset or opset == 7


class Collector:
    """One model of many nodes; equal inputs are shared."""

    def __init__(self, opset):
        self.opset, self.nodes, self.feeds, self.results, self.alone = opset, [], {}, [], []

    def add(self, op, k, inputs, attributes, outputs):
        def feed(array):
            for name, other in self.feeds.items():
                if other.dtype == array.dtype and other.shape == array.shape and other.tobytes() == array.tobytes():
                    return name
            self.feeds[f"i{len(self.feeds)}"] = array
            return f"i{len(self.feeds) - 1}"
        names = ["" if x is None else feed(x) for x in inputs]
        results = [f"{op}_{k}_{j}" if outputs > 1 else f"{op}_{k}" for j in range(outputs)]
        node = helper.make_node(op, names, results, **attributes)
        self.nodes.append(node)
        self.results += results

    def model(self):
        if any(n.op_type in ("If", "Loop") for n in self.nodes):  # what their bodies capture
            self.feeds["outer"], self.feeds["outer_sum"] = f(2, 3), f(2)
        given = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in self.feeds.items()]
        g = helper.make_graph(self.nodes, f"opset{self.opset}", given, [helper.make_empty_tensor_value_info(n) for n in self.results])
        return helper.make_model(g, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def save_tensors(path, tensors):
    """As a model whose outputs are constants."""
    constants = [numpy_helper.from_array(np.asarray(x), n) for n, x in tensors.items()]
    outputs = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in constants]
    onnx.save(helper.make_model(helper.make_graph([], "tensors", [], outputs, constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def runs(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    for opset in (*range(7, 14), *LATER):
        whole = Collector(opset)
        for make, ops in FAMILIES.items():
            for op in ops.split():
                if not emits(op, opset):
                    continue
                for k, (inputs, attributes, outputs) in enumerate(make(opset)):
                    alone = Collector(opset)
                    alone.add(op, k, inputs, attributes, outputs)
                    try:
                        runs(alone.model(), alone.feeds)
                    except Exception as error:  # noqa: BLE001
                        print(f"opset {opset}, {op} {k}: ONNX Runtime: {str(error).splitlines()[0][:150]}")
                        continue
                    whole.add(op, k, inputs, attributes, outputs)
        model = whole.model()
        results = runs(model, whole.feeds)
        folder = out / f"opset{opset:02}" / "test_data_set_0"
        folder.mkdir(parents=True)
        onnx.save(model, folder.parent / "model.onnx")
        save_tensors(folder / "inputs.onnx", whole.feeds)
        save_tensors(folder / "outputs.onnx", dict(zip(whole.results, results)))
        print(f"opset {opset}: {len(whole.nodes)} nodes of {len({n.op_type for n in whole.nodes})} operators")


if __name__ == "__main__":
    main()
