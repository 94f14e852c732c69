#!/usr/bin/env python3
"""Single-operator models of com.microsoft with what ONNX Runtime computes, as ONNX test folders.

    python make_contrib.py OUT [--weft PATH --report docs/contrib.md]

With --weft it runs them through weft and writes the table of largest differences, relative to each output's magnitude.
"""
import argparse
import collections
import pathlib
import shutil
import subprocess
import tempfile

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

MS = "com.microsoft"
random = np.random.default_rng(3)
CASES = []
COMPUTED = {}  # outputs of cases that ONNX Runtime has no CPU kernel for
SAME_AS = {}  # or inputs of another form for which ONNX Runtime has one, which must give the same


def f(*shape, scale=1.0):
    return (random.standard_normal(shape) * scale).astype(np.float32)


def case(name, op, inputs, outputs=1, attributes=None, constants=(), domain=MS):
    """inputs: arrays, or None where absent; constants: positions that are initializers; outputs: how many, or a list of flags."""
    flags = [True] * outputs if isinstance(outputs, int) else outputs
    CASES.append((name, op, inputs, flags, attributes or {}, constants, domain))


def model_of(op, inputs, flags, attributes, constants, domain):
    names = ["" if x is None else f"i{i}" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"o{i}" if flag else "" for i, flag in enumerate(flags)], domain=domain, **attributes)
    given = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
             for i, (n, x) in enumerate(zip(names, inputs)) if n and i not in constants]
    initial = [numpy_helper.from_array(x, n) for i, (n, x) in enumerate(zip(names, inputs)) if n and i in constants]
    results = [helper.make_empty_tensor_value_info(f"o{i}") for i, flag in enumerate(flags) if flag]
    graph = helper.make_graph([node], "g", given, results, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)], ir_version=8)


def make_cases():
    B, S, H, D = 2, 5, 4, 8
    W = H * D
    x, skip, gamma, beta, bias = f(B, S, W), f(B, S, W), f(W), f(W), f(W)
    case("gelu", "Gelu", [x])
    case("bias_gelu", "BiasGelu", [x, bias])
    case("fast_gelu", "FastGelu", [x])
    case("fast_gelu_bias", "FastGelu", [x, bias])
    case("quick_gelu", "QuickGelu", [x])
    case("quick_gelu_silu", "QuickGelu", [x], attributes={"alpha": 1.0})
    case("simplified_layer_norm", "SimplifiedLayerNormalization", [x, gamma], attributes={"epsilon": 1e-6}, domain="")
    for mode in ("", "_bias"):
        extra = [bias] if mode else []
        case(f"skip_layer_norm{mode}", "SkipLayerNormalization", [x, skip, gamma, beta, *extra], [True, False, False, True])
        case(f"skip_rms_norm{mode}", "SkipSimplifiedLayerNormalization", [x, skip, gamma, *extra], [True, False, False, True],
             {"epsilon": 1e-6})
    case("skip_layer_norm_broadcast", "SkipLayerNormalization", [x, f(1, S, W), gamma], [True])
    ids = random.integers(0, 20, (B, S)).astype(np.int32)
    segments = random.integers(0, 2, (B, S)).astype(np.int32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=np.int32)
    case("embed_layer_norm", "EmbedLayerNormalization", [ids, segments, f(20, W), f(16, W), f(2, W), gamma, beta, mask], [True, True])
    case("embed_layer_norm_no_segments", "EmbedLayerNormalization", [ids, None, f(20, W), f(16, W), None, gamma, beta], [True, True])
    a, w = f(2, 3, 4, 5), f(2, 3, 5, 6)
    case("fused_matmul", "FusedMatMul", [a, w], attributes={"alpha": 0.5})
    case("fused_matmul_trans_b", "FusedMatMul", [a, f(2, 3, 6, 5)], attributes={"transB": 1})
    case("fused_matmul_trans_a", "FusedMatMul", [f(2, 3, 5, 4), w], attributes={"transA": 1})
    case("fused_matmul_batch", "FusedMatMul", [f(4, 2, 3, 5), f(5, 2, 3, 6)], attributes={"transBatchA": 1, "transBatchB": 1})
    scores, add = f(2, 4, 5, 6), f(2, 1, 1, 6)
    case("bias_softmax", "BiasSoftmax", [scores, add], attributes={"axis": 3, "is_inner_broadcast": 0})
    raised = np.exp(scores + add)
    COMPUTED["bias_softmax"] = [raised / raised.sum(-1, keepdims=True)]
    rotary_and_attention(B, S, H, D)
    quantized()
    experts()
    position_biases()
    quantized_caches(B, H)


def quantized_caches(B, H):
    """Keys and values of 8 or 4 bits. ONNX Runtime takes one new token a row, or several of one row."""
    own = np.random.default_rng(41)
    K, D, P = 2, 16, 6  # rotary embeddings ask for heads of a multiple of 16
    for batch, S in ((B, 1), (1, 3)):
        for kind in ("PER_TENSOR", "PER_CHANNEL"):
            for bits in (8, 4):
                q, k, v = (own.standard_normal((batch, S, n * D)).astype(np.float32) for n in (H, K, K))
                dtype, low, high, width = (np.int8, -128, 128, D) if bits == 8 else (np.uint8, 0, 256, D // 2)
                past = [own.integers(low, high, (batch, K, P, width)).astype(dtype) for _ in range(2)]
                scales = [(own.random((1,) if kind == "PER_TENSOR" else (1, K, 1, D)) * 0.03 + 0.01).astype(np.float32) for _ in range(2)]
                lengths = np.array([5, 3][:batch], np.int32)
                for held in past:  # what lies behind a row's past does not matter
                    for row, length in enumerate(lengths):
                        held[row, :, length + 1 - S:] = 0
                angles = own.standard_normal((16, D // 2))
                tables = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]
                case(f"gqa_cache_{kind.lower()}_{bits}_bits_{S}", "GroupQueryAttention",
                     [q, k, v, *past, lengths, np.array(6, np.int32), *tables, None, None, None, *scales], 3,
                     {"num_heads": H, "kv_num_heads": K, "do_rotary": 1, "k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": bits})


def rotary_and_attention(B, S, H, D):
    W = H * D
    x = f(B, S, W)
    cos, sin = np.cos(f(16, D // 2)), np.sin(f(16, D // 2))
    positions = np.stack([np.arange(S), np.arange(3, S + 3)]).astype(np.int64)
    for interleaved in (0, 1):
        case(f"rotary_{interleaved}", "RotaryEmbedding", [x, positions, cos, sin], attributes={"interleaved": interleaved})
    case("rotary_offset", "RotaryEmbedding", [x, np.array([4], dtype=np.int64), cos, sin])
    case("rotary_4d", "RotaryEmbedding", [f(B, H, S, D), positions, cos, sin])
    case("rotary_partial", "RotaryEmbedding", [x, positions, cos[:, :2].copy(), sin[:, :2].copy()],
         attributes={"num_heads": H, "rotary_embedding_dim": 4})
    n = {"num_heads": H}
    q, k, v = f(B, S, W), f(B, 7, W), f(B, 7, W)
    case("mha", "MultiHeadAttention", [q, k, v], attributes=n)
    case("mha_scale", "MultiHeadAttention", [q, k, v], attributes={**n, "scale": 0.2})
    case("mha_bias", "MultiHeadAttention", [q, k, v, f(3 * W)], attributes=n)
    qkv, kv = f(B, S, H, 3, D), f(B, 7, H, 2, D)
    case("mha_packed_qkv", "MultiHeadAttention", [qkv], attributes=n)
    SAME_AS["mha_packed_qkv"] = [np.ascontiguousarray(qkv[:, :, :, i]).reshape(B, S, W) for i in range(3)]
    case("mha_packed_kv", "MultiHeadAttention", [q, kv], attributes=n)
    SAME_AS["mha_packed_kv"] = [q, *[np.ascontiguousarray(kv[:, :, :, i]).reshape(B, 7, W) for i in range(2)]]
    case("mha_mask_lengths", "MultiHeadAttention", [q, k, v, None, np.array([7, 4], dtype=np.int32)], attributes=n)
    padding = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]], dtype=np.int32)
    case("mha_mask_2d", "MultiHeadAttention", [q, k, v, None, padding], attributes=n)
    case("mha_attention_bias", "MultiHeadAttention", [q, k, v, None, None, f(1, H, S, 7)], attributes=n)
    case("mha_past", "MultiHeadAttention", [q, f(B, S, W), f(B, S, W), None, None, None, f(B, H, 3, D), f(B, H, 3, D)], 3, n)
    case("mha_causal", "MultiHeadAttention", [q, f(B, S, W), f(B, S, W)], attributes={**n, "unidirectional": 1})
    case("mha_cross_4d", "MultiHeadAttention", [q, f(B, H, 7, D), f(B, H, 7, D)], attributes=n)
    weight, bias = f(W, 3 * W, scale=0.2), f(3 * W)
    short = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=np.int32)
    case("attention", "Attention", [x, weight, bias], attributes=n)
    case("attention_mask_2d", "Attention", [x, weight, bias, short], attributes=n)
    case("attention_mask_lengths", "Attention", [x, weight, bias, np.array([5, 3], dtype=np.int32)], attributes=n)
    case("attention_mask_ends_starts", "Attention", [x, weight, bias, np.array([5, 4, 0, 1], dtype=np.int32)], attributes=n)
    case("attention_mask_3d", "Attention", [x, weight, bias, np.tril(np.ones((B, S, S), dtype=np.int32))], attributes=n)
    case("attention_causal", "Attention", [x, weight, bias], attributes={**n, "unidirectional": 1})
    case("attention_past", "Attention", [x, weight, bias, None, f(2, B, H, 3, D)], 2, {**n, "unidirectional": 1})
    case("attention_bias_input", "Attention", [x, weight, bias, None, None, f(1, H, S, S)], attributes=n)
    case("attention_sizes", "Attention", [x, f(W, 80, scale=0.2), f(80), None], attributes={**n, "qkv_hidden_sizes": [32, 32, 16]})
    group_query(B, H, 16)


def experts():
    T, W, I, E = 5, 16, 32, 4
    x, router = f(T, W), f(T, E)
    for kind in ("relu", "gelu", "silu", "identity"):
        case(f"moe_{kind}", "MoE", [x, router, f(E, I, W, scale=0.2), f(E, I), f(E, W, I, scale=0.2), f(E, W)], 1, {"k": 2, "activation_type": kind})
    case("moe_normalized", "MoE", [f(1, T, W), router, f(E, I, W, scale=0.2), None, f(E, W, I, scale=0.2)], 1,
         {"k": 2, "activation_type": "silu", "normalize_routing_weights": 1})
    case("moe_swiglu", "MoE", [x, router, f(E, 2 * I, W, scale=0.2), f(E, 2 * I), f(E, W, I, scale=0.2), f(E, W)], 1,
         {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 7.0,
          "normalize_routing_weights": 1})
    for bits, block in ((4, 0), (8, 0), (4, 16)):
        def weights(n, k):
            codes = random.integers(0, 1 << bits, (E, n, k))
            scales = (np.abs(f(E, n, k // block) if block else f(E, n)) * 0.02 + 0.01).astype(np.float32)
            return pack(codes, bits), scales
        (w1, s1), (w2, s2) = weights(2 * I, W), weights(W, I)
        extra = {"block_size": block} if block else {}
        case(f"qmoe_{bits}bits_{block}", "QMoE", [x, router, w1, s1, f(E, 2 * I), w2, s2, f(E, W)], 1,
             {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 7.0,
              "normalize_routing_weights": 1, "expert_weight_bits": bits, "weights_prepacked": 0, **extra}, constants=(2, 3, 5, 6))


def buckets_of_t5(S, T, buckets, furthest, both_ways):
    """Of Hugging Face's T5Attention._relative_position_bucket."""
    ahead = np.arange(T)[None] - np.arange(S)[:, None]
    result = np.zeros_like(ahead)
    if both_ways:
        buckets //= 2
        result += (ahead > 0) * buckets
        distance = np.abs(ahead)
    else:
        distance = -np.minimum(ahead, 0)
    exact = buckets // 2
    with np.errstate(divide="ignore"):
        far = exact + (np.log(distance.astype(np.float32) / exact) / np.log(furthest / exact) * (buckets - exact)).astype(np.int64)
    return result + np.where(distance < exact, distance, np.minimum(far, buckets - 1))


def position_biases():
    """ONNX Runtime has these on GPUs only: NumPy says what comes out."""
    for both_ways in (0, 1):
        table = f(32, 3)
        bias = table[buckets_of_t5(40, 40, 32, 128, both_ways)].transpose(2, 0, 1)[None]
        case(f"relative_position_bias_{both_ways}", "RelativePositionBias",
             [np.ascontiguousarray(table.T).reshape(32, 3), np.array([40], dtype=np.int64), np.array([40], dtype=np.int64)], 1,
             {"max_distance": 128, "is_bidirectional": both_ways})
        COMPUTED[CASES[-1][0]] = [bias]
    B, S, N, H = 2, 3, 2, 4
    query, bias, relative, weight, shift, constant = f(B, S, N * H), f(N * H), f(1, N, S, S), f(H, 8), f(8), f(1, N, 1, 1)
    heads = (query + bias).reshape(B, S, N, H).transpose(0, 2, 1, 3)
    gates = 1 / (1 + np.exp(-(heads @ weight + shift).reshape(B, N, S, 2, 4).sum(-1)))
    case("gated_relative_position_bias", "GatedRelativePositionBias", [query, bias, relative, weight, shift, constant], 1, {"num_heads": N})
    COMPUTED[CASES[-1][0]] = [((gates[..., :1] * (gates[..., 1:] * constant - 1) + 2) * relative).astype(np.float32)]


def group_query(B, H, D):
    K = 2
    n = {"num_heads": H, "kv_num_heads": K}

    def gqa(name, S, P, valid, packed=False, buffer=None, extra=None, rotary=False, past=True):
        total = np.array(P + S, dtype=np.int32)
        lengths = np.array([t - 1 for t in valid], dtype=np.int32)
        inputs = [f(B, S, (H + 2 * K) * D), None, None] if packed else [f(B, S, H * D), f(B, S, K * D), f(B, S, K * D)]
        length = buffer or P
        caches = [f(B, K, length, D), f(B, K, length, D)] if past else [None, None]
        for cache in caches if past else []:  # what lies behind the valid positions comes out as anything
            for row, count in enumerate(valid):
                cache[row, :, count - S:] = 0
        inputs += caches
        inputs += [lengths, total]
        if rotary:
            inputs += [np.cos(f(16, D // 2)), np.sin(f(16, D // 2))]
        case(name, "GroupQueryAttention", inputs, 3, {**n, **({"do_rotary": 1} if rotary else {}), **(extra or {})})
    gqa("gqa_prompt", 5, 0, [5, 5], past=False)
    gqa("gqa_decode", 1, 6, [7, 7])
    gqa("gqa_packed_rotary", 5, 0, [5, 5], packed=True, rotary=True, past=False)
    gqa("gqa_decode_rotary", 1, 6, [7, 7], rotary=True)
    gqa("gqa_decode_rotary_interleaved", 1, 6, [7, 7], rotary=True, extra={"rotary_interleaved": 1})
    gqa("gqa_window", 1, 6, [7, 7], extra={"local_window_size": 3})
    gqa("gqa_softcap", 1, 6, [7, 7], extra={"softcap": 5.0})
    gqa("gqa_smooth", 1, 6, [7, 7], extra={"smooth_softmax": 1})
    gqa("gqa_scale", 5, 0, [5, 5], extra={"scale": 0.3}, past=False)
    gqa("gqa_rows_of_two_lengths", 1, 6, [7, 4])
    gqa("gqa_buffer", 1, 6, [7, 5], buffer=12)
    gqa("gqa_both_ways", 5, 0, [5, 5], extra={"causal": 0}, past=False)
    for S, P in ((5, 0), (1, 6)):
        total = P + S
        inputs = [f(B, S, H * D), f(B, S, K * D), f(B, S, K * D), *([f(B, K, P, D), f(B, K, P, D)] if P else [None, None]),
                  np.array([total - 1] * B, dtype=np.int32), np.array(total, dtype=np.int32)]
        tables = [np.cos(f(16, D // 2)), np.sin(f(16, D // 2))]
        case(f"gqa_sink_{S}", "GroupQueryAttention", [*inputs, None, None, None, None, f(H)], 3, n)
        case(f"gqa_bias_{S}", "GroupQueryAttention", [*inputs, None, None, None, f(B, H, S, total)], 3, n)
        weights = [f(D), f(D)]
        case(f"gqa_norm_{S}", "GroupQueryAttention", [*inputs, *tables, None, None, None, None, None, *weights], 3, {**n, "do_rotary": 1})

        def normalized(x, weight):
            heads = x.reshape(B, S, -1, D)
            return (heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6) * weight).reshape(x.shape)
        SAME_AS[f"gqa_norm_{S}"] = [normalized(inputs[0], weights[0]), normalized(inputs[1], weights[1]), *inputs[2:], *tables]
    # [B, 1]: as real exports give it
    case("gqa_lengths_of_rank_2", "GroupQueryAttention", [f(B, 1, H * D), f(B, 1, K * D), f(B, 1, K * D), f(B, K, 6, D), f(B, K, 6, D),
                                                          np.array([[6], [6]], dtype=np.int32), np.array([7], dtype=np.int32)], 3, n)


def pack(codes, bits):
    """[..., n] -> [..., n * bits / 8], low bits first"""
    per = 8 // bits
    codes = codes.reshape(*codes.shape[:-1], -1, per).astype(np.uint16)
    return sum(codes[..., i] << (i * bits) for i in range(per)).astype(np.uint8)


def quantized():
    K, N, block = 40, 6, 16
    blocks = (K + block - 1) // block
    for bits in (2, 4, 8):
        for kind in ("none", "u8", "float"):
            codes = random.integers(0, 1 << bits, (N, blocks, block))
            scales = (np.abs(f(N, blocks)) + 0.1).astype(np.float32)
            zero = None
            if kind == "u8":
                points = random.integers(0, 1 << bits, (N, blocks))
                zero = pack(np.pad(points, ((0, 0), (0, -blocks % (8 // bits)))), bits)
            if kind == "float":
                zero = np.abs(f(N, blocks)) * 4
            inputs = [f(3, K), pack(codes, bits), scales] + ([zero] if zero is not None else [])
            case(f"matmul_{bits}bits_zero_{kind}", "MatMulNBits", inputs, 1, {"K": K, "N": N, "bits": bits, "block_size": block},
                 constants=tuple(range(1, len(inputs))))
            if bits == 8 and kind == "float":
                weight = ((codes - zero[..., None]) * scales[..., None]).reshape(N, -1)[:, :K]
                COMPUTED[f"matmul_{bits}bits_zero_{kind}"] = [(inputs[0] @ weight.T).astype(np.float32)]
    case("matmul_4bits_bias", "MatMulNBits", [f(2, 3, K), pack(random.integers(0, 16, (N, blocks, block)), 4), np.abs(f(N, blocks)), None, None, f(N)],
         1, {"K": K, "N": N, "bits": 4, "block_size": block}, constants=(1, 2, 5))
    x, w = f(4, 10), random.integers(-128, 128, (10, 6)).astype(np.int8)
    case("dynamic_quantize_matmul", "DynamicQuantizeMatMul", [x, w, np.array(0.02, dtype=np.float32)], constants=(1, 2))
    case("dynamic_quantize_matmul_columns", "DynamicQuantizeMatMul",
         [x, w, np.abs(f(6)) * 0.1, random.integers(-5, 5, 6).astype(np.int8), f(6)], constants=(1, 2, 3, 4))
    a = random.integers(0, 256, (4, 10)).astype(np.uint8)
    case("matmul_integer_to_float", "MatMulIntegerToFloat", [a, w, np.array(0.1, dtype=np.float32), np.array(0.02, dtype=np.float32),
                                                             np.array(120, dtype=np.uint8), np.array(3, dtype=np.int8), f(6)])
    s = lambda v: np.array(v, dtype=np.float32)
    u = lambda v: np.array(v, dtype=np.uint8)
    b = random.integers(0, 256, (4, 10)).astype(np.uint8)
    case("qlinear_add", "QLinearAdd", [a, s(0.125), u(120), b, s(0.0625), u(100), s(0.25), u(110)])
    case("qlinear_mul", "QLinearMul", [a, s(0.11), u(120), b, s(0.05), u(100), s(0.3), u(110)])
    case("qlinear_sigmoid", "QLinearSigmoid", [a, s(0.05), u(120), s(1 / 256), u(0)], constants=(1, 2, 3, 4))
    case("qlinear_leaky_relu", "QLinearLeakyRelu", [a, s(0.05), u(120), s(0.05), u(110)], attributes={"alpha": 0.1}, constants=(1, 2, 3, 4))
    case("qlinear_concat", "QLinearConcat", [s(0.1), u(100), a, s(0.05), u(120), b, s(0.1), u(3)], attributes={"axis": 1}, constants=(0, 1, 3, 4, 6, 7))
    case("qlinear_softmax", "QLinearSoftmax", [a, s(0.05), u(120), s(1 / 256), u(0)], attributes={"axis": -1, "opset": 13}, constants=(1, 2, 3, 4))
    case("qlinear_softmax_12", "QLinearSoftmax", [a.reshape(2, 2, 10), s(0.05), u(120), s(1 / 256), u(0)], attributes={"axis": 1, "opset": 12}, constants=(1, 2, 3, 4))
    case("qlinear_where", "QLinearWhere", [a > 99, a, s(0.05), u(120), b, s(0.1), u(3), s(0.1), u(100)], constants=(2, 3, 5, 6, 7, 8))
    image = random.integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)
    case("qlinear_global_average_pool", "QLinearGlobalAveragePool", [image, s(0.05), u(120), s(0.02), u(110)], constants=(1, 2, 3, 4))
    case("qlinear_average_pool", "QLinearAveragePool", [image, s(0.05), u(120), s(0.02), u(110)], attributes={"kernel_shape": [3, 3], "strides": [2, 2]}, constants=(1, 2, 3, 4))
    case("qgemm", "QGemm", [a, s(0.1), u(120), w, s(0.02), np.array(0, dtype=np.int8), random.integers(-900, 900, 6).astype(np.int32), s(0.5), u(128)], constants=(1, 2, 3, 4, 5, 6, 7, 8))
    case("qgemm_real", "QGemm", [a.T.copy(), s(0.1), u(120), w.T.copy(), np.abs(f(6)) * 0.02, np.zeros(6, dtype=np.int8), random.integers(-900, 900, 6).astype(np.int32)],
         attributes={"transA": 1, "transB": 1, "alpha": 0.5}, constants=(1, 2, 3, 4, 5, 6))
    for dtype in (np.uint16, np.int16):
        wide = random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (3, 4)).astype(dtype)
        case(f"dequantize_{dtype.__name__}", "DequantizeLinear", [wide, s(0.01), np.array(7, dtype=dtype)], constants=(1, 2))
        case(f"quantize_{dtype.__name__}", "QuantizeLinear", [f(3, 4), s(0.001), np.array(7, dtype=dtype)], constants=(1, 2))
    hidden, heads = 16, 4
    case("qattention", "QAttention", [random.integers(0, 256, (2, 3, 10)).astype(np.uint8), random.integers(-128, 128, (10, 3 * hidden)).astype(np.int8),
                                      f(3 * hidden), s(0.02), s(0.01), np.ones((2, 3), dtype=np.int32), u(128), np.array(0, dtype=np.int8)],
         attributes={"num_heads": heads}, constants=(1, 2, 3, 4, 6, 7))
    table = random.integers(0, 16, (12, 32))
    mixed = {"block_size": 16, "bits": 4, "gather_axis": 0, "quantize_axis": 1}
    zero_points = pack(random.integers(0, 16, (12, 2)), 4)
    case("gather_block_quantized_zero", "GatherBlockQuantized", [pack(table, 4), random.integers(0, 12, (2, 3)).astype(np.int64), np.abs(f(12, 2)), zero_points],
         attributes=mixed, constants=(0, 2, 3))
    case("gather_block_quantized_8", "GatherBlockQuantized", [random.integers(0, 256, (12, 32)).astype(np.uint8), random.integers(0, 12, 4).astype(np.int32), np.abs(f(12, 2))],
         attributes={**mixed, "bits": 8}, constants=(0, 2))
    for dtype in ("int4", "uint4"):
        typed = random.integers(-8 if dtype == "int4" else 0, 8 if dtype == "int4" else 16, (12, 32)).astype(getattr(ml_dtypes, dtype))
        case(f"gather_block_quantized_{dtype}", "GatherBlockQuantized", [typed, random.integers(-12, 12, (2, 3)).astype(np.int64), np.abs(f(12, 2))],
             attributes={"block_size": 16, "gather_axis": 0, "quantize_axis": 1}, constants=(0, 2))
        case(f"gather_block_quantized_{dtype}_columns", "GatherBlockQuantized", [typed, random.integers(0, 32, 3).astype(np.int64), np.abs(f(1, 32))],
             attributes={"block_size": 16, "gather_axis": 1, "quantize_axis": 0}, constants=(0, 2))
    case("gather_block_quantized_u8", "GatherBlockQuantized", [pack(table, 4), random.integers(0, 12, (2, 3)).astype(np.int64), np.abs(f(12, 2))],
         attributes={"block_size": 16, "bits": 4, "gather_axis": 0, "quantize_axis": 1}, constants=(0, 2))


def write(out):
    made = []
    for name, op, inputs, flags, attributes, constants, domain in CASES:
        model = model_of(op, inputs, flags, attributes, constants, domain)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        feeds = {f"i{i}": x for i, x in enumerate(inputs) if x is not None and i not in constants}
        try:
            if name in COMPUTED:
                results = COMPUTED[name]
            else:
                given = SAME_AS.get(name, inputs)
                known = model_of(op, given, flags, attributes, constants, domain) if name in SAME_AS else model
                session = onnxruntime.InferenceSession(known.SerializeToString(), options, providers=["CPUExecutionProvider"])
                results = session.run(None, {f"i{i}": x for i, x in enumerate(given) if x is not None and i not in constants})
        except Exception as error:  # noqa: BLE001
            print(f"{name}: ONNX Runtime: {str(error).splitlines()[0][:200]}")
            continue
        folder = out / name / "test_data_set_0"
        shutil.rmtree(out / name, ignore_errors=True)
        folder.mkdir(parents=True)
        onnx.save(model, out / name / "model.onnx")
        for i, x in enumerate(feeds.values()):
            (folder / f"input_{i}.pb").write_bytes(numpy_helper.from_array(x).SerializeToString())
        for i, x in enumerate(results):
            (folder / f"output_{i}.pb").write_bytes(numpy_helper.from_array(np.ascontiguousarray(x)).SerializeToString())
        made.append((name, op, feeds, dict(zip([o.name for o in model.graph.output], results))))
    return made


def measure(weft, out, made, report):
    worst, count = collections.defaultdict(float), collections.Counter()
    for name, op, feeds, expected in made:
        with tempfile.TemporaryDirectory() as scratch:
            np.savez(f"{scratch}/i.npz", **feeds)
            run = subprocess.run([weft, "run", str(out / name / "model.onnx"), "--inputs", f"{scratch}/i.npz", "--output", f"{scratch}/o.npz"],
                                 capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"{name}: {run.stderr.strip()}")
                worst[op] = float("inf")
                continue
            actual = dict(np.load(f"{scratch}/o.npz"))
        for key, x in expected.items():
            if actual[key].shape != x.shape:
                print(f"{name} {key}: {actual[key].shape} instead of {x.shape}")
                worst[op] = float("inf")
                continue
            gap = np.abs(actual[key].astype(np.float64) - x.astype(np.float64)).max(initial=0) / max(np.abs(x.astype(np.float64)).max(initial=0), 1e-30)
            if gap > 1e-4:
                print(f"{name} {key}: {gap:.2g}")
            worst[op] = max(worst[op], gap)
        count[op] += 1
    lines = ["# Operators of com.microsoft\n\n", "Largest difference to ONNX Runtime, relative to each output's magnitude; written by ",
             "`tests/contrib/make_contrib.py`.\n\n", "| operator | cases | largest difference |\n|---|---|---|\n"]
    lines += [f"| {op} | {count[op]} | {worst[op]:.1e} |\n" for op in sorted(worst)]
    report.write_text("".join(lines))
    print("".join(lines[3:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--weft")
    parser.add_argument("--report", type=pathlib.Path)
    arguments = parser.parse_args()
    make_cases()
    made = write(arguments.out)
    if arguments.weft:
        measure(arguments.weft, arguments.out, made, arguments.report)


if __name__ == "__main__":
    main()
