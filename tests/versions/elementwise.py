"""Cases of operators on each element, of reductions and of what is quantized one by one."""
import numpy as np
from onnx import TensorProto

from arrays import f, i, plain, random, scalar


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


def cumsum(v):
    yield plain(f(2, 3), scalar(-1))
    yield plain(f(2, 3), scalar(0, np.int32), exclusive=1, reverse=1)


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


def mod(v):
    yield plain(i(7, -7, 7, -7), i(3, 3, -3, -3))
    yield plain(i(7, -7, 7, -7), i(3, 3, -3, -3), fmod=1)
    yield plain(f(4), f(4), fmod=1)


def where(v):
    yield plain(np.array([[True], [False]]), f(2, 3), f(3))
    yield plain(np.array(True), i(1, 2), i(3))
    yield plain(np.zeros((0, 1), dtype=bool), f(3), f(1))


def softmax(v):
    yield plain(f(2, 3, 4))
    yield plain(f(2, 3, 4), axis=0)
    yield plain(f(2, 3, 4), axis=2)
    if v >= 11:
        yield plain(f(2, 3, 4), axis=-2)
    yield plain(f(2, 0, 4), axis=1 if v < 13 else 2)
