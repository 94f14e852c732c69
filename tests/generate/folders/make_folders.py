#!/usr/bin/env python3
"""One folder for each kind of generative model, of one tiny seeded decoder, with the tokens that PyTorch's greedy loop without caches
gives; and folders of which nobody can tell what they are.

    python make_folders.py [--out FOLDER]
"""
import argparse
import pathlib
import shutil

import torch

from broken_folders import broken
from encoder_decoder_folders import encoder_decoder
from genai_folders import genai, genai_encoder_decoder, genai_names
from tiny_models import BATCH_STEP, D, Decoder, H, LAYERS, Layer, NAMES, PROMPTS, caches, export, flat, greedy, ids, pairs, settle


def decoder_only(out):
    model = Decoder()
    expected = [greedy(lambda x: model(x)[0], p) for p in PROMPTS]
    ones = torch.ones(2, 3, dtype=torch.long)
    positions = torch.arange(3)[None].expand(2, 3)
    export(out / "no-past/model.onnx", lambda x: model(x)[0], [model], (ids(),), ["input_ids"], ["logits"], {"input_ids": BATCH_STEP})
    export(out / "no-past-mask-positions/model.onnx", lambda x, m, p: model(x, p, m)[0], [model], (ids(), ones, positions),
           ["input_ids", "attention_mask", "position_ids"], ["logits"], {n: BATCH_STEP for n in ("input_ids", "attention_mask", "position_ids")})
    export(out / "last-logits/model.onnx", lambda x: model(x)[0][:, -1], [model], (ids(),), ["input_ids"], ["logits"], {"input_ids": BATCH_STEP})

    wide = torch.ones(2, 7, dtype=torch.long)
    past_names, present_names = [f"past_key_values.{n}" for n in NAMES], [f"present.{n}" for n in NAMES]
    cache_axes = {n: {0: "batch", 2: "past"} for n in past_names}
    mask_axes = {"attention_mask": {0: "batch", 1: "past + step"}}

    def with_past(m):
        def run(x, mask, positions, *past):
            logits, presents = m(x, positions, mask, pairs(past))
            return (logits, *flat(presents))
        return run
    export(out / "past/model.onnx", with_past(model), [model], (ids(), wide, positions + 4, *caches()),
           ["input_ids", "attention_mask", "position_ids", *past_names], ["logits", *present_names],
           {"input_ids": BATCH_STEP, "position_ids": BATCH_STEP, **mask_axes, **cache_axes})

    def counted(x, mask, *past):
        return with_past(model)(x, mask, (mask.cumsum(1) - 1).clamp(min=0)[:, -x.shape[1]:], *past)
    export(out / "past-without-positions/model.onnx", counted, [model], (ids(), wide, *caches()), ["input_ids", "attention_mask", *past_names],
           ["logits", *present_names], {"input_ids": BATCH_STEP, **mask_axes, **cache_axes})

    def bare(x, *past):
        logits, presents = model(x, None, None, pairs(past))
        return (logits, *flat(presents))
    odd = [f"{k}{i}" for i in range(LAYERS) for k in "kv"]
    export(out / "names-of-its-own/decoder-of-mine.onnx", bare, [model], (ids(), *caches()), ["tokens", *odd], ["scores", *[f"new_{n}" for n in odd]],
           {"tokens": BATCH_STEP, **{n: {0: "batch", 2: "past"} for n in odd}})

    def stacked(x, mask, *past):
        logits, presents = model(x, None, mask, [(p[0], p[1]) for p in past])
        return (logits, *[torch.stack(pair) for pair in presents])
    export(out / "past-stacked/model.onnx", stacked, [model], (ids(), wide, *[torch.randn(2, 2, H, 4, D) for _ in range(LAYERS)]),
           ["input_ids", "attention_mask", *[f"past_{i}" for i in range(LAYERS)]], ["logits", *[f"present_{i}" for i in range(LAYERS)]],
           {"input_ids": BATCH_STEP, **mask_axes, **{f"past_{i}": {1: "batch", 3: "past"} for i in range(LAYERS)}})
    for kind in ("no-past", "no-past-mask-positions", "last-logits", "past", "past-without-positions", "names-of-its-own", "past-stacked"):
        settle(out / kind, expected)

    half = Decoder().half()
    export(out / "half/model.onnx", with_past(half), [half], (ids(), wide, positions + 4, *caches(dtype=torch.float16)),
           ["input_ids", "attention_mask", "position_ids", *past_names], ["logits", *present_names],
           {"input_ids": BATCH_STEP, "position_ids": BATCH_STEP, **mask_axes, **cache_axes})
    settle(out / "half", [greedy(lambda x: half(x)[0], p) for p in PROMPTS])

    query = Decoder(kv_heads=1, seed=4)

    def joint(x, mask, positions, *past):
        given = [(p[:, None, :, :D], p[:, None, :, D:]) for p in past]
        logits, presents = query(x, positions, mask, given)
        return (logits, *[torch.cat(pair, -1)[:, 0] for pair in presents])
    joint_names = [f"past_key_values.{i}" for i in range(LAYERS)]
    export(out / "past-multi-query/model.onnx", joint, [query], (ids(), wide, positions + 4, *[torch.randn(2, 4, 2 * D) for _ in range(LAYERS)]),
           ["input_ids", "attention_mask", "position_ids", *joint_names], ["logits", *[f"present.{i}" for i in range(LAYERS)]],
           {"input_ids": BATCH_STEP, "position_ids": BATCH_STEP, **mask_axes, **{n: {0: "batch", 1: "past"} for n in joint_names}})
    settle(out / "past-multi-query", [greedy(lambda x: query(x)[0], p) for p in PROMPTS])


def rearranged(out):
    """Caches that are not [B, heads, P, size]: another order of axes, heads among the rows."""
    model = Decoder()
    expected = [greedy(lambda x: model(x)[0], p) for p in PROMPTS]
    pasts, presents = [f"past_key_values.{n}" for n in NAMES], [f"present.{n}" for n in NAMES]
    turned = lambda order: ((lambda x: x.permute(*order)), (lambda x, rows: x.permute(*[order.index(i) for i in range(4)])))
    layouts = {  # file's layout of [B, heads, P, size] and back, axes of batch and time, for keys and for values
        "past-time-first": 2 * [(*turned((0, 2, 1, 3)), 0, 1)],
        "past-time-outermost": 2 * [(*turned((2, 0, 1, 3)), 1, 0)],
        "past-heads-in-rows": [(lambda x: x.reshape(-1, x.shape[2], D).transpose(1, 2), lambda x, rows: x.reshape(rows, H, D, -1).transpose(2, 3), 0, 2),
                               (lambda x: x.reshape(-1, x.shape[2], D), lambda x, rows: x.reshape(rows, H, -1, D), 0, 1)]}

    class Laid(Layer):
        layout = None

        def forward(self, x, past, bias_of, states, states_bias):
            q, new = self.split(self.q(x), H), (self.split(self.k(x), H), self.split(self.v(x), H))
            present = tuple(torch.cat([p, lay(n)], time) for p, n, (lay, _, _, time) in zip(past, new, self.layout))
            k, v = (back(p, x.shape[0]) for p, (_, back, _, _) in zip(present, self.layout))
            x = x + self.out(self.attend(q, k, v, bias_of(k, q)))
            return x + self.down(torch.relu(self.up(x))), present

    for kind, layout in layouts.items():
        Laid.layout = layout
        for layer in model.layers:
            layer.__class__ = Laid

        def run(x, mask, *past):
            positions = torch.arange(x.shape[1])[None] + past[0].shape[layout[0][3]]
            logits, presents_of = model(x, positions, mask, pairs(past))
            return (logits, *flat(presents_of))
        given = [layout[i % 2][0](c) for i, c in enumerate(caches())]
        rows = "rows" if kind == "past-heads-in-rows" else "batch"
        axes = {n: {layout[i % 2][2]: rows, layout[i % 2][3]: "past"} for i, n in enumerate(pasts)}
        export(out / kind / "model.onnx", run, [model], (ids(), torch.ones(2, 7, dtype=torch.long), *given), ["input_ids", "attention_mask", *pasts],
               ["logits", *presents], {"input_ids": BATCH_STEP, "attention_mask": {0: "batch", 1: "past + step"}, **axes})
        settle(out / kind, expected)


def buffers(out):
    """Caches of a fixed length, written at cache_position: by index_put (ScatterND) and by scatter (ScatterElements)."""
    length = 32
    model = Decoder()
    expected = [greedy(lambda x: model(x)[0], p) for p in PROMPTS]
    pasts, presents = [f"past_key_values.{n}" for n in NAMES], [f"present.{n}" for n in NAMES]

    def by_index(cache, new, places):
        cache = cache.clone()
        cache[:, :, places] = new
        return cache

    class Buffered(Layer):
        write = places = None

        def forward(self, x, past, bias_of, states, states_bias):
            q = self.split(self.q(x), H)
            k, v = (Buffered.write(p, self.split(n(x), H), Buffered.places) for p, n in zip(past, (self.k, self.v)))
            sees = torch.arange(length)[None] <= Buffered.places[:, None]
            bias = torch.where(sees[None, None], 0.0, torch.finfo(torch.float32).min)
            x = x + self.out(self.attend(q, k, v, bias))
            return x + self.down(torch.relu(self.up(x))), (k, v)

    for kind, write in (("past-buffer", by_index), ("past-buffer-elements", lambda c, n, at: c.scatter(2, at[None, None, :, None].expand_as(n), n))):
        for layer in model.layers:
            layer.__class__ = Buffered
        Buffered.write = staticmethod(write)

        def run(x, places, *past):
            Buffered.places = places
            logits, presents_of = model(x, places[None], None, pairs(past))
            return (logits, *flat(presents_of))
        export(out / kind / "model.onnx", run, [model], (ids(), torch.arange(3), *caches(past=length)), ["input_ids", "cache_position", *pasts], ["logits", *presents],
               {"input_ids": BATCH_STEP, "cache_position": {0: "step"}, **{n: {0: "batch"} for n in pasts}})
        settle(out / kind, expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    out = parser.parse_args().out
    for name in ("kinds", "broken"):
        shutil.rmtree(out / name, ignore_errors=True)
    decoder_only(out / "kinds")
    rearranged(out / "kinds")
    buffers(out / "kinds")
    genai(out / "kinds")
    genai_names(out / "kinds")
    genai_encoder_decoder(out / "kinds")
    encoder_decoder(out / "kinds")
    broken(out / "broken")


if __name__ == "__main__":
    main()
