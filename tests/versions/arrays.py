"""Inputs of the cases: arrays and what a case is."""
import numpy as np
from onnx import TensorProto, helper

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


# A case is (inputs, attributes, outputs): inputs are arrays, None where left out; outputs a count.
def plain(*inputs, outputs=1, **attributes):
    return inputs, attributes, outputs
