"""Attention as people write it by hand: no library's models, the spellings of tutorials, papers and reference code."""
import math

import torch
from torch import nn
from torch.nn import functional as F

from kinds import H, K, TEXT, TEXT_SHAPES, V, W, exports

D = W // H
SEQUENCE = {0: "batch", 1: "sequence"}
LONG = 64


def heads(x, count=H):
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def merged(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


class Packed(nn.Module):
    """One Linear for q, k and v, a triangle kept as a buffer, masked_fill with -inf."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(W, 3 * W), nn.Linear(W, W)
        self.register_buffer("triangle", torch.tril(torch.ones(LONG, LONG)).view(1, 1, LONG, LONG))

    def forward(self, x):
        length = x.shape[1]
        q, k, v = (heads(part) for part in self.qkv(x).split(W, dim=2))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.triangle[:, :, :length, :length] == 0, float("-inf"))
        return self.out(merged(F.softmax(scores, dim=-1) @ v))


class Filled(nn.Module):
    """Linears of a list, scores / sqrt(d), masked_fill(mask == 0, -1e9), as the Annotated Transformer has them."""

    def __init__(self, causal=False):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(W, W) for _ in range(4))
        self.causal = causal

    def forward(self, x, mask):
        mask = mask.unsqueeze(-2)
        if self.causal:
            mask = mask.bool() & (torch.triu(torch.ones(1, x.shape[1], x.shape[1]), diagonal=1) == 0)
        q, k, v = (heads(linear(x)) for linear in self.linears[:3])
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(D)
        scores = scores.masked_fill(mask.unsqueeze(1) == 0, -1e9)
        return self.linears[3](merged(torch.matmul(scores.softmax(dim=-1), v)))


class Permuted(nn.Module):
    """q, k and v packed as [3, B, H, N, D], q scaled before the product (timm)."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(W, 3 * W, bias=False), nn.Linear(W, W)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * D**-0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, c))


class Einsum(nn.Module):
    """chunk, and products as einsum over heads."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(W, 3 * W, bias=False), nn.Linear(W, W)

    def forward(self, x):
        q, k, v = (heads(part) for part in self.qkv(x).chunk(3, dim=-1))
        weights = (torch.einsum("bhid,bhjd->bhij", q, k) * D**-0.5).softmax(-1)
        return self.out(merged(torch.einsum("bhij,bhjd->bhid", weights, v)))


class EinsumLengthFirst(nn.Module):
    """Heads stay behind the length: einsum over [B, S, H, D]."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(W, W) for _ in range(4))

    def forward(self, x, mask):
        q, k, v = (layer(x).view(x.shape[0], -1, H, D) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / D**0.5
        scores = scores + (1.0 - mask[:, None, None, :].to(scores.dtype)) * -1e9
        return self.out(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2))


class GroupedEinsum(nn.Module):
    """Query heads of one key head as an axis of their own."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(W, W), nn.Linear(W, K * D), nn.Linear(W, K * D), nn.Linear(W, W)

    def forward(self, x):
        b, s, _ = x.shape
        q = self.q(x).view(b, s, K, H // K, D)
        k, v = self.k(x).view(b, s, K, D), self.v(x).view(b, s, K, D)
        scores = torch.einsum("bskgd,btkd->bkgst", q, k) * D**-0.5
        scores = scores + torch.full((s, s), float("-inf")).triu(1)
        return self.out(torch.einsum("bkgst,btkd->bskgd", scores.softmax(-1), v).reshape(b, s, -1))


class RotaryPairs(nn.Module):
    """Rotation of neighbours with tables, key heads by repeat_interleave, a triangle of -inf (Llama's reference)."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(W, n * D, bias=False) for n in (H, K, K, H))
        angles = torch.outer(torch.arange(LONG).float(), 10000.0 ** -(torch.arange(0, D, 2).float() / D))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x):
        first, second = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
        cos, sin = (t[: x.shape[1]].view(1, x.shape[1], 1, -1) for t in (self.cos, self.sin))
        return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(3).type_as(x)

    def forward(self, x):
        b, s, _ = x.shape
        q, k, v = (layer(x).view(b, s, -1, D) for layer in (self.q, self.k, self.v))
        q, k = self.rotate(q), self.rotate(k)
        k, v = (t.repeat_interleave(H // K, dim=2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(D) + torch.triu(torch.full((s, s), float("-inf")), diagonal=1)
        return self.out(merged(torch.matmul(F.softmax(scores.float(), dim=-1).type_as(q), v)))


class PositionsInKeys(nn.Module):
    """q and k of x + positions, v of x (DETR)."""

    def __init__(self):
        super().__init__()
        self.attention, self.positions = nn.MultiheadAttention(W, H, batch_first=True), nn.Embedding(LONG, W)

    def forward(self, x, mask):
        placed = x + self.positions(torch.arange(x.shape[1]))
        return self.attention(placed, placed, x, key_padding_mask=mask == 0)[0]


class RelativeShift(nn.Module):
    """Content and position scores, the latter shifted; min before softmax and 0 after it (Transformer-XL, ESPnet)."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out, self.p = (nn.Linear(W, W) for _ in range(5))
        self.u, self.w = nn.Parameter(torch.randn(H, D)), nn.Parameter(torch.randn(H, D))
        self.register_buffer("table", torch.randn(1, 2 * LONG - 1, W))

    def forward(self, x, mask):
        s = x.shape[1]
        q = self.q(x).view(x.shape[0], -1, H, D)
        k, v = heads(self.k(x)), heads(self.v(x))
        p = heads(self.p(self.table[:, LONG - s: LONG + s - 1]))
        content = torch.matmul((q + self.u).transpose(1, 2), k.transpose(-2, -1))
        place = torch.matmul((q + self.w).transpose(1, 2), p.transpose(-2, -1))
        padded = torch.cat([torch.zeros((*place.shape[:3], 1)), place], dim=-1)
        place = padded.view(*padded.shape[:2], padded.shape[3], padded.shape[2])[:, :, 1:].view_as(place)[..., :s]
        scores = (content + place) / math.sqrt(D)
        dropped = mask[:, None, None, :] == 0
        weights = torch.softmax(scores.masked_fill(dropped, torch.finfo(scores.dtype).min), -1).masked_fill(dropped, 0.0)
        return self.out(merged(torch.matmul(weights, v)))


class Slopes(nn.Module):
    """ALiBi as its authors write it: slopes times distances, causal."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(W, 3 * W), nn.Linear(W, W)
        self.register_buffer("slopes", 2.0 ** -(8.0 * torch.arange(1, H + 1) / H).view(H, 1, 1))

    def forward(self, x):
        s = x.shape[1]
        q, k, v = (heads(part) for part in self.qkv(x).chunk(3, -1))
        distance = torch.arange(s)[None, :] - torch.arange(s)[:, None]
        scores = q @ k.transpose(-1, -2) / math.sqrt(D) + self.slopes * distance
        scores = scores.masked_fill(distance > 0, float("-inf"))
        return self.out(merged(scores.softmax(-1) @ v))


class Window(nn.Module):
    """A causal window by comparing positions, and padding, all in one boolean mask of PyTorch's own attention."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(W, 3 * W), nn.Linear(W, W)

    def forward(self, x, mask):
        s = x.shape[1]
        q, k, v = (heads(part) for part in self.qkv(x).chunk(3, -1))
        i, j = torch.arange(s)[:, None], torch.arange(s)[None, :]
        allowed = (j <= i) & (i - j < 4) & mask[:, None, None, :].bool()
        return self.out(merged(F.scaled_dot_product_attention(q, k, v, attn_mask=allowed | (i == j))))


class Cosine(nn.Module):
    """Directions of q and k, a learned factor, a bias read from a table by relative place (Swin V2, ViT-22B and others)."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(W, 3 * W), nn.Linear(W, W)
        self.factor, self.table = nn.Parameter(torch.full((H, 1, 1), 2.0)), nn.Parameter(torch.randn(2 * LONG - 1, H))

    def forward(self, x):
        s = x.shape[1]
        q, k, v = (heads(part) for part in self.qkv(x).chunk(3, -1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.factor.clamp(max=4.6).exp()
        place = torch.arange(s)[None, :] - torch.arange(s)[:, None] + LONG - 1
        return self.out(merged((scores + self.table[place].permute(2, 0, 1)).softmax(-1) @ v))


class FlatHeads(nn.Module):
    """bmm over [B * H, S, D] in time-first order, masks on four axes (fairseq)."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(W, W) for _ in range(4))

    def forward(self, x, mask):
        x = x.transpose(0, 1)
        s, b, _ = x.shape
        q, k, v = (layer(x).contiguous().view(s, b * H, D).transpose(0, 1) for layer in (self.q, self.k, self.v))
        scores = torch.bmm(q * D**-0.5, k.transpose(1, 2)).view(b, H, s, s)
        scores = scores.masked_fill((mask == 0).unsqueeze(1).unsqueeze(2), float("-inf")).view(b * H, s, s)
        mixed = torch.bmm(F.softmax(scores, dim=-1), v).transpose(0, 1).contiguous().view(s, b, W)
        return self.out(mixed).transpose(0, 1)


class NullKey(nn.Module):
    """A learned key and value that may always be attended, in front of the others."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(W, W), nn.Linear(W, 2 * W), nn.Linear(W, W)
        self.null = nn.Parameter(torch.randn(2, 1, H, 1, D))

    def forward(self, x, mask):
        q = heads(self.q(x))
        k, v = (heads(part) for part in self.kv(x).chunk(2, -1))
        k, v = (torch.cat((n.expand(x.shape[0], -1, -1, -1), t), dim=2) for n, t in zip(self.null, (k, v)))
        scores = q @ k.transpose(-1, -2) * D**-0.5
        kept = F.pad(mask.bool(), (1, 0), value=True)[:, None, None, :]
        return self.out(merged(scores.masked_fill(~kept, -torch.finfo(scores.dtype).max).softmax(-1) @ v))


class StableSoftmax(nn.Module):
    """softmax written out, its largest score taken off."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(W, W, bias=False) for _ in range(4))

    def forward(self, x):
        q, k, v = (heads(layer(x)) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(D)
        powers = torch.exp(scores - scores.amax(-1, keepdim=True))
        return self.out(merged(powers / powers.sum(-1, keepdim=True) @ v))


class Cross(nn.Module):
    """Queries of x, keys and values of another sequence with its padding."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(W, W, bias=False), nn.Linear(24, 2 * W, bias=False), nn.Linear(W, W)

    def forward(self, x, memory, mask):
        q = heads(self.q(x))
        k, v = (heads(part) for part in self.kv(memory).chunk(2, -1))
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask == 0, float("-inf"))[:, None, None]
        return self.out(merged((q @ k.mT * D**-0.5 + bias).softmax(-1) @ v))


class RootMeanSquares(nn.Module):
    """PyTorch's own operators for all: RMSNorm of hidden states, queries and keys, causal attention of grouped heads."""

    def __init__(self):
        super().__init__()
        self.norm, self.q_norm, self.k_norm = nn.RMSNorm(W, eps=1e-6), nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
        self.q, self.k, self.v, self.out = nn.Linear(W, W), nn.Linear(W, K * D), nn.Linear(W, K * D), nn.Linear(W, W)

    def forward(self, x):
        hidden = self.norm(x)
        q, k, v = self.q_norm(heads(self.q(hidden))), self.k_norm(heads(self.k(hidden), K)), heads(self.v(hidden), K)
        return x + self.out(merged(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)))


class StandardOperators(nn.Module):
    """ONNX's own operators called from PyTorch: RotaryEmbedding and Attention with a mask, heads in the last axis."""

    def __init__(self, interleaved=False, is_causal=True, masked=False):
        super().__init__()
        self.options, self.is_causal, self.masked = dict(interleaved=interleaved, num_heads=H), is_causal, masked
        self.q, self.k, self.v, self.out = nn.Linear(W, W), nn.Linear(W, W), nn.Linear(W, W), nn.Linear(W, W)
        angles = torch.arange(LONG)[:, None] * 100.0 ** -(torch.arange(D // 2) / (D // 2))
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, x, mask):
        positions = torch.arange(x.shape[1]).unsqueeze(0).expand(x.shape[0], -1)
        turn = lambda t: torch.onnx.ops.rotary_embedding(t, self.cosines, self.sines, positions, **self.options)
        bias = (mask == 0)[:, None, None].to(x.dtype) * -1e4 if self.masked else None
        y = torch.onnx.ops.attention(turn(self.q(x)), turn(self.k(x)), self.v(x), bias, q_num_heads=H, kv_num_heads=H, is_causal=self.is_causal)
        return self.out(y[0])


def one(module, masked):
    names = ["x", "mask"] if masked else ["x"]
    make = lambda attention: module()
    inputs = lambda b, s: (torch.randn(b, s, W), exports.padded_mask(b, s))[: len(names)]
    return make, names, ["y"], {name: SEQUENCE for name in names}, inputs, TEXT_SHAPES


def handwritten():
    cross = (lambda attention: Cross(), ["x", "memory", "mask"], ["y"],
             {"x": TEXT, "memory": {0: "batch", 1: "source"}, "mask": {0: "batch", 1: "source"}},
             lambda b, s, t: (torch.randn(b, s, W), torch.randn(b, t, 24), exports.padded_mask(b, t)), [(2, 5, 7), (1, 3, 4), (3, 9, 2)])
    return {
        "hand-packed": one(Packed, False), "hand-filled": one(Filled, True), "hand-filled-causal": one(lambda: Filled(True), True),
        "hand-permuted": one(Permuted, False), "hand-einsum": one(Einsum, False), "hand-einsum-length-first": one(EinsumLengthFirst, True),
        "hand-grouped-einsum": one(GroupedEinsum, False), "hand-rotary-pairs": one(RotaryPairs, False),
        "hand-positions-in-keys": one(PositionsInKeys, True), "hand-relative-shift": one(RelativeShift, True), "hand-slopes": one(Slopes, False),
        "hand-window": one(Window, True), "hand-cosine": one(Cosine, False), "hand-flat-heads": one(FlatHeads, True),
        "hand-null-key": one(NullKey, True), "hand-stable-softmax": one(StableSoftmax, False), "hand-cross": cross,
        "hand-root-mean-squares": one(RootMeanSquares, False), "hand-standard": one(StandardOperators, True),
        "hand-standard-interleaved": one(lambda: StandardOperators(interleaved=True, is_causal=False, masked=True), True),
    }
