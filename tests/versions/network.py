"""Cases of products, convolutions, pools and recurrent layers."""
import numpy as np

from arrays import f, i, plain, random, scalar


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


def conv(v):
    yield plain(f(1, 2, 7), f(3, 2, 3), f(3), kernel_shape=[3], pads=[1, 1])
    yield plain(f(1, 4, 5, 5), f(4, 1, 3, 3), group=4, strides=[2, 2], auto_pad="SAME_LOWER")
    yield plain(f(1, 1, 4, 4, 4), f(1, 1, 2, 2, 2), dilations=[2, 2, 2])


def conv_transpose(v):
    yield plain(f(1, 2, 4), f(2, 3, 3), f(3), strides=[2], output_padding=[1], pads=[1, 1])


def einsum(v):
    yield plain(f(2, 3, 4), f(2, 4, 5), equation="bij,bjk->bik")
    yield plain(f(2, 3, 4), equation="...ij->...ji")
    yield plain(f(3, 3), equation="ii")


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
