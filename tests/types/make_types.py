#!/usr/bin/env python3
"""Every operator in every element type its schema allows, with what ONNX's reference computes, as test folders.

    python make_types.py OUT [--weft PATH]

One model for each element type. Floats of 16 and 8 bits: the reference runs on the same values as f32 and the result is rounded once.
With --weft it says which operators weft does not have in which type.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, defs, helper
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "versions"))
from make_versions import FAMILIES, f, i, plain, save_tensors, scalar  # noqa: E402

OPSET = 25
WIDE = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float": np.float32, "double": np.float64, "int8": np.int8, "int16": np.int16,
        "int32": np.int32, "int64": np.int64, "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64, "bool": np.bool_,
        "string": np.object_, "float8e4m3fn": ml_dtypes.float8_e4m3fn, "float8e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "float8e5m2": ml_dtypes.float8_e5m2,
        "float8e5m2fnuz": ml_dtypes.float8_e5m2fnuz, "float8e8m0": ml_dtypes.float8_e8m0fnu, "float4e2m1": ml_dtypes.float4_e2m1fn,
        "int4": ml_dtypes.int4, "uint4": ml_dtypes.uint4, "int2": ml_dtypes.int2, "uint2": ml_dtypes.uint2}
LOW = ("float16", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0", "float4e2m1")
MOVES = ("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze",
         "Tile", "Transpose", "Unsqueeze", "Where", "Compress", "DepthToSpace", "SpaceToDepth", "ScatterElements", "ScatterND", "Trilu", "ConstantOfShape",
         "ReverseSequence", "Unique", "OneHot", "Equal")
# The reference's own words differ, or it draws on what the type does not have.
LEFT_OUT = ("Constant", "Dropout", "If", "Loop", "Scan", "Cast", "LSTM", "GRU", "RNN", "Upsample", "Scatter", "NonMaxSuppression", "RoiAlign", "EyeLike",
            "OneHot", "QuantizeLinear", "DequantizeLinear", "Resize", "LpNormalization", "MaxPool")


def more(v):
    return {
        "Trilu": [plain(f(3, 4)), plain(f(2, 3, 3), scalar(1), upper=0)],
        "Gelu": [plain(f(2, 3)), plain(f(2, 3), approximate="tanh")],
        "Swish": [plain(f(2, 3))], "Mish": [plain(f(2, 3))],
        "LayerNormalization": [plain(f(2, 5), f(5), f(5))],
        "RMSNormalization": [plain(f(2, 5), f(5))],
        "BitwiseAnd": [plain(i(12, 7), i(10, 3))], "BitwiseOr": [plain(i(12, 7), i(10, 3))], "BitwiseXor": [plain(i(12, 7), i(10, 3))],
        "BitwiseNot": [plain(i(12, 7))],
        "TensorScatter": [plain(f(2, 4, 3), f(2, 2, 3), i(1, 0))],
    }


def families():
    for make, ops in FAMILIES.items():
        for op in ops.split():
            if op not in LEFT_OUT:
                yield op, list(make(OPSET))
    yield from more(OPSET).items()


def allowed(schema, parameter):
    names = [t for c in schema.type_constraints if c.type_param_str == parameter.type_str for t in c.allowed_type_strs]
    return [t[len("tensor("):-1] for t in names if t.startswith("tensor(")]


def converted(array, kind, op):
    if kind == "bool":
        return array > 0
    if kind == "string":
        return np.array([f"{x:.1f}" for x in array.ravel()], dtype=object).reshape(array.shape)
    if kind.startswith("uint"):
        array = np.abs(array)
    if kind.startswith(("int", "uint")):
        narrow = kind.endswith(("int4", "int2"))
        array = np.round(array * (1 if narrow or array.dtype.kind in "iu" else 3))
        return np.clip(array, -2 if kind == "int2" else None, {"int2": 1, "uint2": 3}.get(kind)).astype(WIDE[kind])
    return (np.abs(array) + 0.25 if kind == "float8e8m0" else array).astype(WIDE[kind])


def single(op, inputs, attributes, outputs, opset):
    names = ["" if x is None else f"i{k}" for k, x in enumerate(inputs)]
    given = [helper.make_tensor_value_info(n, onnx_type(x), x.shape) for n, x in zip(names, inputs) if n]
    node = helper.make_node(op, names, [f"o{k}" for k in range(outputs)], **attributes)
    graph = helper.make_graph([node], "g", given, [helper.make_empty_tensor_value_info(f"o{k}") for k in range(outputs)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def onnx_type(array):
    return TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)


def reference(op, schema, inputs, attributes, outputs, kind):
    """Outputs of the reference; low floats computed as f32 and rounded."""
    low = kind in LOW and op not in MOVES
    fed = [x.astype(np.float32) if low and x is not None and x.dtype == WIDE[kind] else x for x in inputs]
    model = single(op, fed, attributes, outputs, OPSET)
    results = ReferenceEvaluator(model).run(None, {f"i{k}": x for k, x in enumerate(fed) if x is not None})
    if low:
        same = [o.type_str == schema.inputs[0].type_str for o in schema.outputs] or [True]
        results = [r.astype(WIDE[kind]) if r.dtype == np.float32 and same[min(k, len(same) - 1)] else r for k, r in enumerate(results)]
    results = [np.asarray(r) for r in results]
    if any(r.dtype == object and not all(isinstance(x, str) for x in r.ravel()) for r in results):
        raise TypeError("strings that are none")
    return results


class Collector:
    def __init__(self):
        self.nodes, self.feeds, self.results = [], [], []

    def add(self, op, inputs, attributes, results):
        names = []
        for x in inputs:
            names.append("" if x is None else f"i{len(self.feeds)}")
            if x is not None:
                self.feeds.append(x)
        outputs = []
        for r in results:
            outputs.append(f"{op}_{len(self.results)}")
            self.results.append((outputs[-1], r))
        self.nodes.append(helper.make_node(op, names, outputs, **attributes))

    def save(self, folder):
        data = folder / "test_data_set_0"
        data.mkdir(parents=True)
        given = [helper.make_tensor_value_info(f"i{k}", onnx_type(x), x.shape) for k, x in enumerate(self.feeds)]
        graph = helper.make_graph(self.nodes, "g", given, [helper.make_empty_tensor_value_info(n) for n, _ in self.results])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=11), folder / "model.onnx")
        save_tensors(data / "inputs.onnx", {f"i{k}": x for k, x in enumerate(self.feeds)})
        save_tensors(data / "outputs.onnx", dict(self.results))


def left_out(op, kind, inputs, attributes):
    """What the reference has otherwise than the specification, or the specification leaves open."""
    integers = kind.startswith(("int", "uint"))
    empty = any(x is not None and x.size == 0 for x in inputs)
    return ((op == "Gather" and empty) or (op == "Mod" and not integers and "fmod" not in attributes) or (op == "NonZero" and kind == "string") or
            (op == "Gemm" and (integers or kind in LOW) and ("alpha" in attributes or "transA" in attributes)) or
            (op == "ReduceSumSquare" and integers) or (op == "RMSNormalization" and kind != "float"))


def cases(kind):
    """(op, inputs, attributes, results) of all operators that take this type."""
    for op, variants in families():
        schema = defs.get_schema(op, OPSET, "")
        if not schema.inputs or kind not in allowed(schema, schema.inputs[0]):
            continue
        for inputs, attributes, outputs in variants:
            if left_out(op, kind, inputs, attributes):
                continue
            first = schema.inputs[0].type_str
            typed = []
            for k, x in enumerate(inputs):
                formal = schema.inputs[min(k, len(schema.inputs) - 1)]
                typed.append(converted(x, kind, op) if x is not None and formal.type_str == first and x.dtype.kind != "b" else x)
            try:
                results = reference(op, schema, typed, attributes, outputs, kind)
            except Exception as error:  # noqa: BLE001
                print(f"{kind} {op}: the reference: {type(error).__name__} {str(error).splitlines()[0][:90] if str(error) else ''}")
                break
            yield op, typed, attributes, results


def passed_by(weft, all_cases):
    """The cases that pass, and (operator, reason) of the others."""
    with tempfile.TemporaryDirectory() as scratch:
        for n, case in enumerate(all_cases):
            one = Collector()
            one.add(*case)
            one.save(pathlib.Path(scratch) / f"{n:05}")
        report = pathlib.Path(scratch) / "report.json"
        subprocess.run([weft, "test", scratch, "--json", str(report)], stdout=subprocess.DEVNULL, check=False)
        results = json.loads(report.read_text())
    good, failures = [], []
    for entry in results:
        case = all_cases[int(pathlib.Path(entry["case"]).name)]
        if entry["result"] == "passed":
            good.append(case)
        else:
            failures.append((case[0], entry["reason"].replace("\n", " | ")[:300]))
    return good, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--weft")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    for kind in WIDE:
        if kind == "float":
            continue
        with np.errstate(all="ignore"):
            all_cases = list(cases(kind))
        good, failures = passed_by(arguments.weft, all_cases) if arguments.weft else (all_cases, [])
        whole = Collector()
        for case in good:
            whole.add(*case)
        whole.save(arguments.out / kind)
        print(f"{kind}: {len(whole.nodes)} nodes of {len({n.op_type for n in whole.nodes})} operators")
        for op, text in failures:
            print(f"    {op}: {text}")


if __name__ == "__main__":
    main()
