"""Cases of operators that move, choose or make elements."""
import numpy as np
from onnx import numpy_helper

from arrays import I64, f, i, plain, scalar


def concat(v):
    yield plain(f(2, 3), f(2, 1), axis=-1 if v >= 11 else 1)
    yield plain(f(0, 3), f(2, 3), axis=0)


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


def depth_to_space(v):
    yield plain(f(1, 8, 2, 3), blocksize=2)
    if v >= 11:
        yield plain(f(1, 8, 2, 3), blocksize=2, mode="CRD")


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
