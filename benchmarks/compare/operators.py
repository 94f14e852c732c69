#!/usr/bin/env python3
"""Single operators beside ONNX Runtime: models of one node, both sides in turns.

    operators.py --weft PATH [--case REGEX] [--rounds 3] [--threads 2] [--isa avx512,avx2]

Needs numpy, onnx and onnxruntime. Prints for every case both times and the ratio, ONNX Runtime's time by weft's: above 1, weft is faster;
minima and medians of the rounds, each the median of what fits in 0.4 s. Outputs stay where they are on both sides (weft recycles them,
ONNX Runtime is bound to its own).
"""

import argparse
import json
import re
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

F32, F16, I64, I32, U8, I8, BOOL = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL)
BUDGET = 0.4  # seconds of one measurement


class Case:
    """given: one array a constant, (dtype, shape) an input, None absent."""

    def __init__(self, name, op, given, outputs=1, domain="", opset=20, out=None, **attributes):
        self.name = name
        names, inputs, constants = [], [], []
        for i, value in enumerate(given):
            names.append("" if value is None else f"x{i}")
            if isinstance(value, (np.ndarray, np.generic)):
                constants.append(numpy_helper.from_array(np.asarray(value), f"x{i}"))
            elif value is not None:
                inputs.append(helper.make_tensor_value_info(f"x{i}", *value))
        results = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(op, names, results, domain=domain, **attributes)
        types = [onnx.ValueInfoProto(name=name) if out is None else helper.make_tensor_value_info(name, out, None) for name in results]
        graph = helper.make_graph([node], "one", inputs, types, constants)
        self.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)])
        self.model.ir_version = 9
        if out is None:
            self.model = onnx.shape_inference.infer_shapes(self.model)


def ints(*values):
    return np.array(values, np.int64)


def floats(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def movement():
    x = (F32, [8, 512, 768])
    yield Case("Transpose 021", "Transpose", [x], perm=[0, 2, 1])
    yield Case("Transpose 0213 heads", "Transpose", [(F32, [8, 512, 12, 64])], perm=[0, 2, 1, 3])
    yield Case("Transpose 0231 image", "Transpose", [(F32, [4, 64, 112, 112])], perm=[0, 2, 3, 1])
    yield Case("Transpose 0312 image", "Transpose", [(F32, [4, 112, 112, 64])], perm=[0, 3, 1, 2])
    yield Case("Transpose u8", "Transpose", [(U8, [4, 224, 224, 3])], perm=[0, 3, 1, 2])
    yield Case("Transpose small", "Transpose", [(F32, [1, 12, 16, 64])], perm=[0, 2, 1, 3])
    yield Case("Pad 2d", "Pad", [(F32, [4, 64, 56, 56]), ints(0, 0, 1, 1, 0, 0, 1, 1)])
    yield Case("Pad reflect", "Pad", [(F32, [1, 80, 3000]), ints(0, 0, 200, 0, 0, 200)], mode="reflect")
    yield Case("Pad windows", "Pad", [(F32, [1, 56, 56, 96]), ints(0, 0, 0, 0, 0, 0, 4, 0)])
    yield Case("Expand rows", "Expand", [(F32, [8, 1, 768]), ints(8, 512, 768)])
    yield Case("Expand mask", "Expand", [(BOOL, [8, 1, 1, 512]), ints(8, 1, 512, 512)])
    yield Case("Expand columns", "Expand", [(F32, [8, 512, 1]), ints(8, 512, 768)])
    yield Case("Split last", "Split", [(F32, [8, 512, 2304])], outputs=3, axis=2, num_outputs=3)
    yield Case("Split channels", "Split", [(F32, [4, 64, 56, 56])], outputs=2, axis=1, num_outputs=2)
    yield Case("Slice last", "Slice", [(F32, [8, 12, 512, 64]), ints(32), ints(64), ints(3)])
    yield Case("Slice step 2", "Slice", [(F32, [4, 64, 56, 56]), ints(0, 0), ints(56, 56), ints(2, 3), ints(2, 2)])
    yield Case("Concat last", "Concat", [(F32, [8, 12, 512, 32])] * 2, axis=3)
    yield Case("Concat channels", "Concat", [(F32, [4, 64, 56, 56])] * 2, axis=1)
    yield Case("Concat past", "Concat", [(F32, [1, 12, 511, 64]), (F32, [1, 12, 1, 64])], axis=2)
    yield Case("Tile", "Tile", [(F32, [1, 512, 768]), ints(8, 1, 1)])
    yield Case("Tile last", "Tile", [(F32, [8, 512, 96]), ints(1, 1, 8)])
    yield Case("Gather rows", "Gather", [floats(30000, 384), (I64, [8, 512])])
    yield Case("Gather last", "Gather", [(F32, [8, 512, 768]), np.arange(0, 768, 3)], axis=2)
    yield Case("GatherElements", "GatherElements", [floats(512, 1024), (I64, [512, 512])], axis=1)
    yield Case("GatherND", "GatherND", [floats(8, 512, 384), np.random.default_rng(2).integers(0, 8, (8, 512, 2))])
    yield Case("DepthToSpace", "DepthToSpace", [(F32, [4, 64, 56, 56])], blocksize=2, mode="CRD")


def elementwise():
    x, row, one = (F32, [8, 512, 768]), floats(768), np.float32(0.3).reshape(())
    yield Case("Add", "Add", [x, x])
    yield Case("Max", "Max", [x, x])
    yield Case("Min row", "Min", [x, row])
    yield Case("Clip", "Clip", [x, np.float32(0), np.float32(6)])
    yield Case("Pow 2", "Pow", [x, np.float32(2)])
    yield Case("Pow 0.5", "Pow", [x, np.float32(0.5)])
    yield Case("Greater", "Greater", [x, one])
    yield Case("Equal i64", "Equal", [(I64, [8, 1, 512, 512]), ints(0)])
    yield Case("LessOrEqual i64", "LessOrEqual", [(I64, [512, 1]), (I64, [8, 1, 512, 512])])
    yield Case("And", "And", [(BOOL, [8, 1, 512, 512]), (BOOL, [8, 1, 1, 512])])
    yield Case("Not", "Not", [(BOOL, [8, 1, 512, 512])])
    yield Case("Add i64", "Add", [(I64, [8, 512, 256]), ints(1)])
    yield Case("Mul i64", "Mul", [(I64, [8, 512, 256]), (I64, [8, 512, 256])])
    yield Case("Where", "Where", [(BOOL, [8, 12, 512, 64]), (F32, [8, 12, 512, 64]), np.float32(-1e9)])
    yield Case("Where mask", "Where", [(BOOL, [8, 1, 512, 512]), np.float32(0), np.float32(-1e9)])
    for op in ("HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Softplus", "Mish", "Log", "Sin", "Cos", "Round", "Sign", "Softsign", "Selu",
               "Relu", "Sigmoid", "Gelu"):
        yield Case(op, op, [x], opset=20 if op != "Mish" else 18)
    yield Case("PRelu", "PRelu", [(F32, [4, 64, 56, 56]), floats(64, 1, 1)])
    yield Case("Cast i64 f32", "Cast", [(I64, [8, 512, 256])], to=F32)
    yield Case("Cast bool f32", "Cast", [(BOOL, [8, 1, 512, 512])], to=F32)
    yield Case("Cast f32 i64", "Cast", [(F32, [8, 512, 256])], to=I64)
    yield Case("Cast i64 bool", "Cast", [(I64, [8, 512, 256])], to=BOOL)
    yield Case("Cast i32 f32", "Cast", [(I32, [8, 512, 768])], to=F32)


def reductions():
    x = (F32, [8, 512, 768])
    for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare", "ReduceProd", "ReduceLogSumExp"):
        yield Case(f"{op} last", op, [x, ints(-1)])
    yield Case("ReduceMean middle", "ReduceMean", [x, ints(1)])
    yield Case("ReduceMean spatial", "ReduceMean", [(F32, [4, 64, 56, 56]), ints(2, 3)])
    yield Case("ReduceSum channels", "ReduceSum", [(F32, [4, 64, 56, 56]), ints(1)])
    yield Case("ReduceMax all", "ReduceMax", [x])
    yield Case("ReduceSum i64", "ReduceSum", [(I64, [8, 512, 256]), ints(-1)])
    yield Case("ArgMax last", "ArgMax", [(F32, [8, 32000])], axis=-1)
    yield Case("ArgMax channels", "ArgMax", [(F32, [4, 21, 112, 112])], axis=1)
    yield Case("CumSum", "CumSum", [x, np.int64(1)])
    yield Case("CumSum last", "CumSum", [(I64, [8, 512]), np.int64(1)])
    yield Case("TopK 50", "TopK", [(F32, [8, 32000]), ints(50)], outputs=2)
    yield Case("Softmax", "Softmax", [x])
    yield Case("Softmax channels", "Softmax", [(F32, [4, 21, 112, 112])], axis=1)
    yield Case("LogSoftmax", "LogSoftmax", [(F32, [8, 32000])])
    yield Case("InstanceNormalization", "InstanceNormalization", [(F32, [4, 64, 56, 56]), floats(64), floats(64)])
    yield Case("GroupNormalization", "GroupNormalization", [(F32, [4, 64, 56, 56]), floats(64), floats(64)], num_groups=32, opset=21)
    yield Case("BatchNormalization", "BatchNormalization", [(F32, [4, 64, 56, 56]), floats(64), floats(64), floats(64), np.abs(floats(64)) + 1])
    yield Case("LayerNormalization", "LayerNormalization", [x, floats(768), floats(768)])
    yield Case("LpNormalization", "LpNormalization", [(F32, [512, 768])])


def products():
    for name, a, b in (("scores", [8, 12, 128, 64], [8, 12, 64, 128]), ("scores 512", [1, 12, 512, 64], [1, 12, 64, 512]),
                       ("one row", [12, 1, 64], [12, 64, 1024]), ("8 rows", [8, 768], [768, 3072]), ("128 rows", [128, 768], [768, 768]),
                       ("1024", [1024, 1024], [1024, 1024])):
        yield Case(f"MatMul {name}", "MatMul", [(F32, a), (F32, b)])


def images():
    x, none = (F32, [2, 32, 56, 56]), None
    twice = np.array([1, 1, 2, 2], np.float32)
    yield Case("Resize nearest x2", "Resize", [x, none, twice], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    yield Case("Resize nearest odd", "Resize", [x, none, none, ints(2, 32, 75, 91)], mode="nearest")
    yield Case("Resize linear x2", "Resize", [x, none, twice], mode="linear")
    yield Case("Resize linear aligned", "Resize", [x, none, none, ints(2, 32, 75, 91)], mode="linear", coordinate_transformation_mode="align_corners")
    yield Case("Resize linear last", "Resize", [(F32, [2, 56, 56, 32]), none, np.array([1, 2, 2, 1], np.float32)], mode="linear")
    yield Case("Resize linear down", "Resize", [(F32, [1, 3, 640, 480]), none, none, ints(1, 3, 224, 224)], mode="linear")
    yield Case("Resize cubic", "Resize", [x, none, twice], mode="cubic", cubic_coeff_a=-0.75)
    yield Case("Resize cubic antialias", "Resize", [(F32, [1, 3, 640, 480]), none, none, ints(1, 3, 224, 224)], mode="cubic", antialias=1)
    yield Case("Resize u8", "Resize", [(U8, [1, 3, 640, 480]), none, none, ints(1, 3, 224, 224)], mode="linear")
    yield Case("GridSample", "GridSample", [x, (F32, [2, 56, 56, 2])], mode="linear")
    for k in (3, 5, 7):
        p = k // 2
        yield Case(f"Conv depthwise {k}x{k}", "Conv", [(F32, [1, 96, 56, 56]), floats(96, 1, k, k), floats(96)], group=96, pads=[p] * 4)
    yield Case("Conv depthwise 3x3 stride 2", "Conv", [(F32, [1, 96, 56, 56]), floats(96, 1, 3, 3)], group=96, pads=[1] * 4, strides=[2, 2])
    yield Case("Conv depthwise 1d 31", "Conv", [(F32, [1, 256, 500]), floats(256, 1, 31)], group=256, pads=[15, 15])
    yield Case("Conv depthwise 1d causal 4", "Conv", [(F32, [1, 1536, 128]), floats(1536, 1, 4), floats(1536)], group=1536, pads=[3, 0])
    yield Case("ConvTranspose 4x4 stride 2", "ConvTranspose", [(F32, [1, 128, 28, 28]), floats(128, 64, 4, 4)], strides=[2, 2], pads=[1] * 4)
    yield Case("ConvTranspose 2x2 stride 2", "ConvTranspose", [(F32, [1, 128, 28, 28]), floats(128, 64, 2, 2)], strides=[2, 2])
    yield Case("ConvTranspose 1d 16 stride 8", "ConvTranspose", [(F32, [1, 256, 100]), floats(256, 128, 16)], strides=[8], pads=[4, 4])
    yield Case("MaxPool", "MaxPool", [(F32, [4, 64, 56, 56])], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


def quantized():
    random = np.random.default_rng(3)

    def weights(*shape):
        return random.integers(-127, 127, shape).astype(np.int8)

    for m in (1, 8, 128):
        yield Case(f"MatMulInteger M={m}", "MatMulInteger", [(U8, [m, 768]), weights(768, 3072), np.uint8(120), np.int8(0)])
    for m in (1, 128):
        yield Case(f"MatMulInteger u8 M={m}", "MatMulInteger", [(U8, [m, 768]), weights(768, 3072).view(np.uint8), np.uint8(120), np.uint8(128)])
    for level in (0, 4):
        for m in (1, 128):
            yield Case(f"MatMulNBits level {level} M={m}", "MatMulNBits",
                       [(F32, [m, 2048]), random.integers(0, 256, (2048, 64, 16)).astype(np.uint8), np.abs(floats(2048 * 64)) * 0.01],
                       domain="com.microsoft", out=F32, K=2048, N=2048, bits=4, block_size=32, accuracy_level=level)
    yield Case("DynamicQuantizeMatMul", "DynamicQuantizeMatMul", [(F32, [1, 768]), weights(768, 3072), np.float32(0.01), np.int8(0)],
               domain="com.microsoft", out=F32)
    scale, zero = np.float32(0.02), np.uint8(128)
    yield Case("QLinearConv 3x3", "QLinearConv", [(U8, [1, 64, 56, 56]), scale, zero, weights(64, 64, 3, 3), scale, np.int8(0), scale, zero],
               pads=[1] * 4)
    yield Case("QLinearConv depthwise 3x3", "QLinearConv",
               [(U8, [1, 96, 56, 56]), scale, zero, weights(96, 1, 3, 3), scale, np.int8(0), scale, zero], pads=[1] * 4, group=96)
    yield Case("QuantizeLinear", "QuantizeLinear", [(F32, [8, 512, 768]), scale, zero])
    yield Case("DequantizeLinear", "DequantizeLinear", [(U8, [8, 512, 768]), scale, zero])
    yield Case("DynamicQuantizeLinear", "DynamicQuantizeLinear", [(F32, [8, 512, 768])], outputs=3)
    for op, gates in (("LSTM", 4), ("GRU", 3)):
        for batch, time_ in ((1, 100), (8, 100), (1, 1)):
            yield Case(f"{op} 256 batch {batch} time {time_}", op,
                       [(F32, [time_, batch, 256]), floats(1, gates * 256, 256) * 0.1, floats(1, gates * 256, 256) * 0.1], hidden_size=256)
    yield Case("LSTM 128 bidirectional", "LSTM", [(F32, [200, 1, 128]), floats(2, 512, 128) * 0.1, floats(2, 512, 128) * 0.1],
               hidden_size=128, direction="bidirectional")


class Weft:
    def __init__(self, path, isa, options):
        command = [options.weft, "bench", path, "--threads", str(options.threads), "--isa", isa, "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def measure(self):
        self.process.stdin.write("0\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["run"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Peer:
    def __init__(self, path, options):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads, settings.log_severity_level = options.threads, 1, 3
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        random = np.random.default_rng(7)
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
                 "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(bool)": bool}
        for value in self.session.get_inputs():
            dtype = types[value.type]
            data = random.uniform(-1, 1, value.shape) if np.issubdtype(dtype, np.floating) else random.integers(0, 2, value.shape)
            self.binding.bind_cpu_input(value.name, np.ascontiguousarray(data.astype(dtype)))
        for value in self.session.get_outputs():
            self.binding.bind_output(value.name)
        self.session.run_with_iobinding(self.binding)

    def measure(self):
        times, end = [], time.perf_counter() + BUDGET
        while len(times) < 2 or time.perf_counter() < end:
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            times.append((time.perf_counter() - start) * 1e3)
        return statistics.median(times)

    def end(self):
        del self.session


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weft", required=True)
    parser.add_argument("--case", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", default="avx512,avx2")
    options = parser.parse_args()
    levels = options.isa.split(",")
    for group in (movement, elementwise, reductions, products, images, quantized):
        for case in group():
            if not re.search(options.case, f"{group.__name__}: {case.name}"):
                continue
            with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
                file.write(case.model.SerializeToString())
                file.flush()
                sides = {"ort": None}
                try:
                    sides["ort"] = Peer(file.name, options)
                    sides.update((isa, Weft(file.name, isa, options)) for isa in levels)
                    samples = {label: [] for label in sides}
                    for _ in range(options.rounds):
                        for label, side in sides.items():
                            samples[label].append(side.measure())
                except Exception as error:  # a case that one side refuses
                    print(f"{case.name}: {str(error).splitlines()[0]}", flush=True)
                    continue
                peer = samples["ort"]
                columns = [f"{case.name:32} ort {min(peer):9.4f}"]
                for isa in levels:
                    own = samples[isa]
                    columns.append(f"{isa} {min(own):9.4f} x{min(peer) / min(own):5.2f} ({statistics.median(peer) / statistics.median(own):5.2f})")
                print("  ".join(columns), flush=True)
                for side in sides.values():
                    side.end()


if __name__ == "__main__":
    main()
