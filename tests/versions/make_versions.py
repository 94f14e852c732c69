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
from onnx import TensorProto, defs, helper, numpy_helper

random = np.random.default_rng(7)
F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def f(*shape):
    return random.standard_normal(shape).astype(np.float32)


def i(*values, dtype=np.int64):
    return np.array(values, dtype=dtype)


def scalar(value, dtype=np.int64):
    return np.array(value, dtype=dtype)


def graph(name, nodes, inputs, outputs):
    def info(names):
        return [helper.make_tensor_value_info(n, t, s) for n, t, s in names]
    return helper.make_graph(nodes, name, info(inputs), info(outputs))


# Each yields (inputs, attributes, outputs): inputs are arrays, None where left out; outputs a count.
def plain(*inputs, outputs=1, **attributes):
    return inputs, attributes, outputs


def unary(v):
    yield plain(f(2, 3))
    yield plain(f(0, 3))
    yield plain(f(1))


def positive(v):
    yield plain(np.abs(f(2, 3)) + 0.5)


def binary(v):
    yield plain(f(2, 3), f(3))
    yield plain(f(2, 1, 4), f(3, 1))
    yield plain(f(0, 3), f(1))
    yield plain(i(7, -7, 0), i(2, 2, 5))


def power(v):
    yield plain(np.abs(f(2, 3)), f(3))
    if v >= 12:
        yield plain(f(2, 3), i(2))
        yield plain(i(2, 3), np.array([2.0], dtype=np.float32))


def logical(v):
    yield plain(np.array([[True], [False]]), np.array([True, False, True]))


def compared(v):
    if v >= 9:
        yield plain(f(2, 3), f(3))
        yield plain(i(1, 2, 3), i(2))
    else:
        yield plain(f(2, 3), f(3))


def equal(v):
    yield plain(i(1, 2, 3), i(2))
    yield plain(np.array([[True], [False]]), np.array([True]))
    if v >= 11:
        yield plain(np.array([1.0, np.nan], dtype=np.float32), np.array([1.0, np.nan], dtype=np.float32))


def variadic(v):
    yield plain(f(2, 3))
    yield plain(f(2, 3), f(2, 3), f(2, 3))
    if v >= 8:
        yield plain(f(2, 1), f(3), f(1, 1, 1))


def reduction(v, since_input=18):
    negative = [-1] if v >= 11 else [2]
    for axes, keep in ((None, 1), (negative, 0), ([0, 2], 1)):
        if v < since_input:
            yield plain(np.abs(f(2, 3, 4)) + 0.1, keepdims=keep, **({"axes": axes} if axes else {}))
        else:
            yield plain(np.abs(f(2, 3, 4)) + 0.1, *([i(*axes)] if axes else []), keepdims=keep)
    if v >= since_input:
        yield plain(f(2, 3), i(), noop_with_empty_axes=1)


def arg(v):
    yield plain(f(2, 3, 4), axis=-2 if v >= 11 else 1, keepdims=0)
    yield plain(i(3, 1, 3, dtype=np.int32).reshape(1, 3), axis=1, **({"select_last_index": 1} if v >= 12 else {}))


def average_pool(v):
    yield plain(f(1, 2, 7), kernel_shape=[3], strides=[2], pads=[1, 1], count_include_pad=1)
    yield plain(f(2, 2, 5, 6), kernel_shape=[2, 3], auto_pad="SAME_UPPER")
    if v >= 10:
        yield plain(f(1, 2, 6), kernel_shape=[3], strides=[2], ceil_mode=1)


def max_pool(v):
    yield plain(f(1, 2, 7), kernel_shape=[3], strides=[2], pads=[1, 1])
    if v >= 8:
        yield plain(f(1, 2, 5, 6), kernel_shape=[2, 2], outputs=2)
    if v >= 10:
        yield plain(f(1, 2, 7), kernel_shape=[2], dilations=[2], ceil_mode=1)


def batch_normalization(v):
    yield plain(f(2, 3, 4), f(3), f(3), f(3), np.abs(f(3)), epsilon=1e-3)
    yield plain(f(2, 3), f(3), f(3), f(3), np.abs(f(3)))


def cast(v):
    for to in (TensorProto.INT32, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.UINT8):
        yield plain(np.abs(f(2, 3)) * 9, to=to)
    yield plain(f(2, 3), to=TensorProto.FLOAT16)


def clip(v):
    if v < 11:
        yield plain(f(2, 3), min=-0.5, max=0.25)
        yield plain(f(2, 3), max=0.25)
    else:
        yield plain(f(2, 3), scalar(-0.5, np.float32), scalar(0.25, np.float32))
        yield plain(f(2, 3), None, scalar(0.25, np.float32))
    if v >= 12:
        yield plain(i(5, 1, 9), scalar(6), scalar(4))


def concat(v):
    yield plain(f(2, 3), f(2, 1), axis=-1 if v >= 11 else 1)
    yield plain(f(0, 3), f(2, 3), axis=0)


def conv(v):
    yield plain(f(1, 2, 7), f(3, 2, 3), f(3), kernel_shape=[3], pads=[1, 1])
    yield plain(f(1, 4, 5, 5), f(4, 1, 3, 3), group=4, strides=[2, 2], auto_pad="SAME_LOWER")
    yield plain(f(1, 1, 4, 4, 4), f(1, 1, 2, 2, 2), dilations=[2, 2, 2])


def conv_transpose(v):
    yield plain(f(1, 2, 4), f(2, 3, 3), f(3), strides=[2], output_padding=[1], pads=[1, 1])


def constant(v):
    yield plain(value=numpy_helper.from_array(f(2, 3)))
    yield plain(value=numpy_helper.from_array(i(1, 2)))
    if v >= 12:
        yield plain(value_int=3)
        yield plain(value_floats=[1.5, 2.5])


def constant_of_shape(v):
    yield plain(i(2, 3))
    yield plain(i(2, 0), value=numpy_helper.from_array(i(7)))
    yield plain(i(), value=numpy_helper.from_array(i(7)))


def cumsum(v):
    yield plain(f(2, 3), scalar(-1))
    yield plain(f(2, 3), scalar(0, np.int32), exclusive=1, reverse=1)


def depth_to_space(v):
    yield plain(f(1, 8, 2, 3), blocksize=2)
    if v >= 11:
        yield plain(f(1, 8, 2, 3), blocksize=2, mode="CRD")


def dequantize(v):
    q = random.integers(0, 256, (2, 3)).astype(np.uint8)
    yield plain(q, scalar(0.1, np.float32), scalar(9, np.uint8))
    yield plain(q, scalar(0.1, np.float32))
    if v >= 13:
        yield plain(q, np.array([0.1, 0.2, 0.3], dtype=np.float32), i(1, 2, 3, dtype=np.uint8), axis=-1)


def quantize(v):
    yield plain(f(2, 3) * 9, scalar(0.1, np.float32), scalar(9, np.uint8))
    yield plain(f(2, 3) * 9, scalar(0.1, np.float32))
    if v >= 13:
        yield plain(f(2, 3), np.array([0.1, 0.2], dtype=np.float32), i(1, -2, dtype=np.int8), axis=0)


def dropout(v):
    if v < 12:
        yield plain(f(2, 3), ratio=0.3)
    else:
        yield plain(f(2, 3), scalar(0.3, np.float32))


def einsum(v):
    yield plain(f(2, 3, 4), f(2, 4, 5), equation="bij,bjk->bik")
    yield plain(f(2, 3, 4), equation="...ij->...ji")
    yield plain(f(3, 3), equation="ii")


def expand(v):
    yield plain(f(3, 1), i(2, 1, 4))
    yield plain(f(2, 3), i(1, 1))
    yield plain(f(1, 3), i(0, 3))


def flatten(v):
    for axis in (0, 2, 3) + ((-1,) if v >= 11 else ()):
        yield plain(f(2, 3, 4), axis=axis)


def gather(v):
    yield plain(f(3, 4), i(0, 2, 0).reshape(1, 3), axis=1)
    yield plain(f(3, 4), scalar(1, np.int32))
    if v >= 11:
        yield plain(f(3, 4), i(-1, 0), axis=-1)
    yield plain(f(3, 4), np.zeros((0,), dtype=np.int64))


def gather_nd(v):
    yield plain(f(2, 3, 4), i(0, 1, 1, -1).reshape(2, 2))
    if v >= 12:
        yield plain(f(2, 3, 4), i(1, 0).reshape(2, 1), batch_dims=1)


def gemm(v):
    yield plain(f(2, 3), f(3, 4), f(4), alpha=0.5, beta=2.0)
    yield plain(f(3, 2), f(4, 3), f(2, 1), transA=1, transB=1)
    if v >= 11:
        yield plain(f(2, 3), f(3, 4))
    yield plain(f(0, 3), f(3, 4), f(4))


def lstm(v):
    yield plain(f(4, 2, 3), f(1, 20, 3), f(1, 20, 5), f(1, 40), hidden_size=5, outputs=3)
    yield plain(f(4, 2, 3), f(2, 20, 3), f(2, 20, 5), None, i(4, 2, dtype=np.int32), hidden_size=5, direction="bidirectional", outputs=3)


def gru(v):
    yield plain(f(4, 2, 3), f(1, 15, 3), f(1, 15, 5), f(1, 30), None, f(1, 2, 5), hidden_size=5, linear_before_reset=1, outputs=2)
    yield plain(f(4, 2, 3), f(1, 15, 3), f(1, 15, 5), hidden_size=5, direction="reverse", outputs=2)


def rnn(v):
    yield plain(f(4, 2, 3), f(1, 5, 3), f(1, 5, 5), f(1, 10), hidden_size=5, activations=["Relu"], outputs=2)


def matmul(v):
    yield plain(f(2, 3), f(3, 4))
    yield plain(f(3), f(2, 3, 4))
    yield plain(f(2, 1, 2, 3), f(4, 3, 1))
    yield plain(f(2, 0), f(0, 3))


def matmul_integer(v):
    a, w = random.integers(0, 256, (3, 5)).astype(np.uint8), random.integers(-128, 128, (5, 2)).astype(np.int8)
    yield plain(a, w)
    yield plain(a, w, scalar(12, np.uint8), i(3, -4, dtype=np.int8))


def one_hot(v):
    yield plain(i(0, 2, 1), scalar(3), np.array([0.5, 1.5], dtype=np.float32))
    if v >= 11:
        yield plain(i(-1, 5).reshape(1, 2), i(4), i(1, 9), axis=0)


def pad(v):
    if v < 11:
        yield plain(f(2, 3), pads=[0, 1, 1, 2], value=1.5)
        yield plain(f(2, 3), pads=[1, 2, 0, 1], mode="reflect")
        yield plain(f(2, 3), pads=[0, -1, 0, 1])
    else:
        yield plain(f(2, 3), i(0, 1, 1, 2), scalar(1.5, np.float32))
        yield plain(f(2, 3), i(1, 2, 0, 1), mode="edge")


def range_of(v):
    yield plain(scalar(3), scalar(10), scalar(3))
    yield plain(scalar(3), scalar(-10), scalar(-4))
    yield plain(scalar(3), scalar(3), scalar(1))
    yield plain(scalar(0.5, np.float32), scalar(2, np.float32), scalar(0.25, np.float32))


def reshape(v):
    yield plain(f(2, 3, 4), i(0, -1))
    yield plain(f(1, 1), i())
    if v >= 14:
        yield plain(f(0, 3), i(3, 0), allowzero=1)


def resize(v):
    scales = np.array([1, 1, 2, 1.5], dtype=np.float32)
    if v < 11:
        yield plain(f(1, 1, 3, 4), scales, mode="nearest")
        yield plain(f(1, 1, 3, 4), scales, mode="linear")
    else:
        yield plain(f(1, 1, 3, 4), np.zeros(0, dtype=np.float32), scales, mode="linear")
        yield plain(f(1, 1, 3, 4), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32) if v < 13 else None, i(1, 1, 5, 7), mode="cubic",
                    coordinate_transformation_mode="align_corners")


def upsample(v):
    if v < 9:
        yield plain(f(1, 1, 2, 3), scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    else:
        yield plain(f(1, 1, 2, 3), np.array([1, 1, 2, 2], dtype=np.float32), mode="linear")


def scatter(v):
    yield plain(f(3, 4), i(0, 2).reshape(1, 2), f(1, 2), axis=1)
    if v >= 11:
        yield plain(f(3, 4), i(-1, 0).reshape(1, 2), f(1, 2), axis=-1)


def scatter_nd(v):
    yield plain(f(3, 4), i(2, 0).reshape(2, 1), f(2, 4))


def slice_of(v):
    if v < 10:
        yield plain(f(3, 4, 5), starts=[1, -2], ends=[2**31 - 1, -1], axes=[0, 2])
        yield plain(f(3, 4), starts=[0, 5], ends=[2, 9])
    else:
        yield plain(f(3, 4, 5), i(-1, 0), i(-(2**63), 2**63 - 1), i(0, -1) if v >= 11 else i(0, 2), i(-1, 2))
        yield plain(f(3, 4), i(1, 1, dtype=np.int32), i(9, 1, dtype=np.int32))


def softmax(v):
    yield plain(f(2, 3, 4))
    yield plain(f(2, 3, 4), axis=0)
    yield plain(f(2, 3, 4), axis=2)
    if v >= 11:
        yield plain(f(2, 3, 4), axis=-2)
    yield plain(f(2, 0, 4), axis=1 if v < 13 else 2)


def split(v):
    if v < 13:
        yield plain(f(2, 6), axis=1, split=[2, 4], outputs=2)
        yield plain(f(2, 6), axis=-1 if v >= 11 else 1, outputs=3)
    else:
        yield plain(f(2, 6), i(0, 6), axis=-1, outputs=2)
        yield plain(f(2, 6), axis=0, outputs=2)


def squeeze(v):
    axes = [0, -1] if v >= 11 else [0, 3]
    yield plain(f(1, 2, 3, 1), axes=axes) if v < 13 else plain(f(1, 2, 3, 1), i(*axes))
    yield plain(f(1, 2, 1))


def unsqueeze(v):
    axes = [-1, 0] if v >= 11 else [3, 0]
    yield plain(f(2, 3), axes=axes) if v < 13 else plain(f(2, 3), i(*axes))


def tile(v):
    yield plain(f(2, 3), i(2, 1))
    yield plain(f(2, 3), i(0, 2))
    yield plain(scalar(3.0, np.float32), i())


def top_k(v):
    if v < 10:
        yield plain(f(2, 5), k=3, outputs=2)
    else:
        yield plain(f(2, 5), i(3), axis=0 if v < 11 else -1, outputs=2) if v >= 11 else plain(f(2, 5), i(2), axis=0, outputs=2)
    if v >= 11:
        yield plain(i(3, 1, 3, 0), i(2), largest=0, outputs=2)


def transpose(v):
    yield plain(f(2, 3, 4))
    yield plain(f(2, 0, 4), perm=[2, 0, 1])
    yield plain(i(1, 2, 3).reshape(1, 3), perm=[1, 0])


def where(v):
    yield plain(np.array([[True], [False]]), f(2, 3), f(3))
    yield plain(np.array(True), i(1, 2), i(3))
    yield plain(np.zeros((0, 1), dtype=bool), f(3), f(1))


def if_of(v):
    op = "Shape" if v >= 11 else "Size"  # branches differed in rank from 11 on
    then = graph("then", [helper.make_node(op, ["outer"], ["t"])], [], [("t", I64, None)])
    other = graph("else", [helper.make_node("Constant", [], ["e"], value=numpy_helper.from_array(i(7) if v >= 11 else scalar(7)))], [], [("e", I64, None)])
    for condition in (np.array(True), np.array([False])):
        yield plain(condition, then_branch=then, else_branch=other)


def loop(v):
    nodes = [helper.make_node("Add", ["state", "outer_sum"], ["next"]), helper.make_node("Identity", ["next"], ["scan"]),
             helper.make_node("Identity", ["going"], ["still"])]
    body = graph("body", nodes, [("turn", I64, []), ("going", BOOL, []), ("state", F32, [2])],
                 [("still", BOOL, []), ("next", F32, [2]), ("scan", F32, [2])])
    yield plain(scalar(3), np.array(True), f(2), body=body, outputs=2)
    yield plain(scalar(0), np.array(True), f(2), body=body, outputs=2)
    yield plain(scalar(5), np.array(False), f(2), body=body, outputs=2)


def scan(v):
    nodes = [helper.make_node("Add", ["state", "row"], ["next"]), helper.make_node("Identity", ["next"], ["scanned"])]
    body = graph("body", nodes, [("state", F32, [2]), ("row", F32, [2])], [("next", F32, [2]), ("scanned", F32, [2])])
    if v < 9:
        yield plain(None, f(3, 2), f(3, 4, 2), body=body, num_scan_inputs=1, outputs=2)
        rows, states = np.arange(24, dtype=np.float32).reshape(3, 4, 2), np.ones((3, 2), np.float32)
        for directions in ([0], [1]):
            yield plain(i(4, 2, 1), states, rows, body=body, num_scan_inputs=1, directions=directions, outputs=2)
    else:
        yield plain(f(2), f(4, 2), body=body, num_scan_inputs=1, outputs=2)
        yield plain(f(2), f(4, 2), body=body, num_scan_inputs=1, scan_input_directions=[1], scan_output_directions=[1], outputs=2)


def qlinear_matmul(v):
    a, w = random.integers(0, 256, (2, 4)).astype(np.uint8), random.integers(0, 256, (4, 3)).astype(np.uint8)
    s, z = scalar(0.05, np.float32), scalar(120, np.uint8)
    yield plain(a, s, z, w, s, z, scalar(0.5, np.float32), z)


def qlinear_conv(v):
    a, w = random.integers(0, 256, (1, 2, 5, 5)).astype(np.uint8), random.integers(0, 256, (3, 2, 3, 3)).astype(np.uint8)
    s, z = scalar(0.05, np.float32), scalar(120, np.uint8)
    yield plain(a, s, z, w, s, z, scalar(0.5, np.float32), z, random.integers(-500, 500, 3).astype(np.int32), pads=[1, 1, 1, 1])


def conv_integer(v):
    a, w = random.integers(0, 256, (1, 2, 5)).astype(np.uint8), random.integers(0, 256, (3, 2, 3)).astype(np.uint8)
    yield plain(a, w, scalar(12, np.uint8))


def mod(v):
    yield plain(i(7, -7, 7, -7), i(3, 3, -3, -3))
    yield plain(i(7, -7, 7, -7), i(3, 3, -3, -3), fmod=1)
    yield plain(f(4), f(4), fmod=1)


def compress(v):
    yield plain(f(3, 2), np.array([True, False, True]), axis=-2 if v >= 11 else 0)
    yield plain(f(3, 2), np.array([True, False, True, True]))


def eye_like(v):
    yield plain(f(2, 3))
    yield plain(f(3, 3), k=-1, dtype=I64)


def unique(v):
    yield plain(i(3, 1, 3, 2), outputs=4)
    yield plain(np.array([[1, 2], [1, 2], [0, 1]], dtype=np.float32), axis=0, sorted=1, outputs=4)


def reverse_sequence(v):
    yield plain(f(4, 3), i(4, 2, 1), time_axis=0, batch_axis=1)


def suppression(v):
    boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 10, 1, 11]]], dtype=np.float32)
    yield plain(boxes, np.array([[[0.9, 0.75, 0.6]]], dtype=np.float32), scalar(3), scalar(0.5, np.float32), scalar(0.0, np.float32))


def roi_align(v):
    yield plain(f(1, 2, 6, 6), np.array([[0, 0, 4, 4]], dtype=np.float32), i(0), output_height=2, output_width=2, sampling_ratio=2)


FAMILIES = {
    unary: "Abs Ceil Celu Cos Elu Erf Exp Floor HardSigmoid HardSwish Identity IsNaN LeakyRelu Neg NonZero Relu Round Selu Shape Sigmoid Sign Sin "
           "Size Softplus Softsign Tanh ThresholdedRelu",
    positive: "Log Reciprocal Sqrt",
    binary: "Add Sub Mul Div", power: "Pow", logical: "And Or Xor", compared: "Greater Less GreaterOrEqual LessOrEqual", equal: "Equal",
    variadic: "Max Min Mean Sum",
    reduction: "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare",
    arg: "ArgMax ArgMin", average_pool: "AveragePool", max_pool: "MaxPool", batch_normalization: "BatchNormalization", cast: "Cast", clip: "Clip",
    concat: "Concat", conv: "Conv", conv_transpose: "ConvTranspose", constant: "Constant", constant_of_shape: "ConstantOfShape", cumsum: "CumSum",
    depth_to_space: "DepthToSpace", dequantize: "DequantizeLinear", quantize: "QuantizeLinear", dropout: "Dropout", einsum: "Einsum", expand: "Expand",
    flatten: "Flatten", gather: "Gather", gather_nd: "GatherND", gemm: "Gemm", lstm: "LSTM", gru: "GRU", rnn: "RNN", matmul: "MatMul",
    matmul_integer: "MatMulInteger", one_hot: "OneHot", pad: "Pad", range_of: "Range", reshape: "Reshape", resize: "Resize", upsample: "Upsample",
    scatter: "Scatter ScatterElements", scatter_nd: "ScatterND", slice_of: "Slice", softmax: "Softmax LogSoftmax", split: "Split", squeeze: "Squeeze",
    unsqueeze: "Unsqueeze", tile: "Tile", top_k: "TopK", transpose: "Transpose", where: "Where", if_of: "If", loop: "Loop", scan: "Scan",
    qlinear_matmul: "QLinearMatMul", qlinear_conv: "QLinearConv", conv_integer: "ConvInteger", mod: "Mod", compress: "Compress", eye_like: "EyeLike",
    unique: "Unique", reverse_sequence: "ReverseSequence", suppression: "NonMaxSuppression", roi_align: "RoiAlign",
    lambda v: reduction(v, 13): "ReduceSum",
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
