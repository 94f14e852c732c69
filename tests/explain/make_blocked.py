#!/usr/bin/env python3
"""Exports a model that may not fuse everywhere, with source lines: python make_blocked.py writes blocked.onnx beside this file.

The first attention is plain, but the file gives its projected keys as an output. The second bends its scores (relu). One of the norms
takes its epsilon from the run.
"""
import pathlib

import torch
from torch import nn

HEADS, WIDTH = 2, 8


class Attention(nn.Module):
    def __init__(self, bent):
        super().__init__()
        self.bent = bent
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        keys = self.k(x)
        q, k, v = (p.unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q(x), keys, self.v(x)))
        scores = q @ k.transpose(-1, -2) / 2.0
        if self.bent:
            scores = torch.relu(scores)
        weights = torch.softmax(scores, -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2)), keys


class Norm(nn.Module):
    """RMSNorm; its epsilon may be a parameter of the run."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x, epsilon):
        return x * torch.reciprocal(torch.sqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)) * self.scale


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Attention(False), Attention(True)
        self.norms = nn.ModuleList([Norm(), Norm()])

    def forward(self, x, epsilon):
        attended, keys = self.first(x)
        x = self.norms[0](x + attended, 1e-5)
        return self.norms[1](x + self.second(x)[0], epsilon), keys


torch.manual_seed(0)
example = (torch.randn(2, 3, WIDTH), torch.tensor([1e-5]))
shapes = ({0: "batch", 1: "sequence"}, None)
torch.onnx.export(Model().eval(), example, str(pathlib.Path(__file__).parent / "blocked.onnx"), dynamo=True, opset_version=20,
                  dynamic_shapes=shapes, input_names=["x", "epsilon"], output_names=["y", "keys"], external_data=False)
