#!/usr/bin/env python3
"""One folder for each kind of generative model, of one tiny seeded decoder, with the tokens that PyTorch's greedy loop without caches
gives; and folders of which nobody can tell what they are.

    python make_folders.py [--out FOLDER]
"""
import argparse
import json
import pathlib
import shutil
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

warnings.filterwarnings("ignore")
V, W, H, D, LAYERS, START, END, STEPS = 48, 16, 2, 8, 2, 1, 2, 8
PROMPTS = [[5, 9, 11], [7], [3, 30, 31, 8, 12]]


class Layer(torch.nn.Module):
    def __init__(self, kv_heads, cross):
        super().__init__()
        self.kv_heads = kv_heads
        self.q, self.k, self.v = (torch.nn.Linear(W, n * D) for n in (H, kv_heads, kv_heads))
        self.out, self.up, self.down = torch.nn.Linear(H * D, W), torch.nn.Linear(W, 2 * W), torch.nn.Linear(2 * W, W)
        self.cross = torch.nn.ModuleList(torch.nn.Linear(W, W) for _ in range(4)) if cross else None

    def split(self, x, heads):
        return x.reshape(x.shape[0], -1, heads, D).transpose(1, 2)

    def attend(self, q, k, v, bias):
        scores = q @ k.transpose(2, 3) / D**0.5 + bias
        y = torch.softmax(scores.float(), -1).to(v.dtype) @ v
        return y.transpose(1, 2).reshape(y.shape[0], -1, H * D)

    def forward(self, x, past, bias_of, states, states_bias):
        q, k, v = self.split(self.q(x), H), self.split(self.k(x), self.kv_heads), self.split(self.v(x), self.kv_heads)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        x = x + self.out(self.attend(q, k, v, bias_of(k, q)))
        if states is not None:
            cq, ck, cv, out = self.cross
            x = x + out(self.attend(self.split(cq(x), H), self.split(ck(states), H), self.split(cv(states), H), states_bias))
        return x + self.down(torch.relu(self.up(x))), (k, v)


class Decoder(torch.nn.Module):
    def __init__(self, kv_heads=H, cross=False, seed=3):
        super().__init__()
        torch.manual_seed(seed)
        self.tokens, self.positions = torch.nn.Embedding(V, W), torch.nn.Embedding(64, W)
        self.layers = torch.nn.ModuleList(Layer(kv_heads, cross) for _ in range(LAYERS))
        self.head = torch.nn.Linear(W, V, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.6)
        self.eval()

    def forward(self, ids, positions=None, mask=None, pasts=None, states=None, states_mask=None):
        length = pasts[0][0].shape[2] if pasts is not None else 0
        if positions is None:
            positions = torch.arange(ids.shape[1])[None] + length
        x = self.tokens(ids) + self.positions(positions)

        def bias_of(k, q):
            key, query = torch.arange(k.shape[2])[None], torch.arange(q.shape[2])[:, None] + (k.shape[2] - q.shape[2])
            allowed = (key <= query)[None, None]
            if mask is not None:
                allowed = allowed & (mask[:, None, None, :] != 0)
            return torch.where(allowed, 0.0, -30000.0).to(x.dtype)
        states_bias = 0.0 if states_mask is None else torch.where(states_mask[:, None, None, :] != 0, 0.0, -30000.0).to(x.dtype)
        presents = []
        for i, layer in enumerate(self.layers):
            x, present = layer(x, pasts[i] if pasts is not None else None, bias_of, states, states_bias)
            presents.append(present)
        return self.head(x), presents


class Encoder(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        torch.manual_seed(9)
        self.first = torch.nn.Linear(5, W) if features else torch.nn.Embedding(V, W)
        self.second = torch.nn.Linear(W, W)
        self.eval()

    def forward(self, x, mask=None):
        y = self.first(x)
        return y + torch.tanh(self.second(y))


def greedy(step, prompt, steps=STEPS):
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(step(torch.tensor([ids]))[0, -1].float().argmax()))
        if ids[-1] == END:
            break
    return ids


class Wrapped(torch.nn.Module):
    def __init__(self, run, *modules):
        super().__init__()
        self.run, self.kept = run, torch.nn.ModuleList(modules)

    def forward(self, *inputs):
        return self.run(*inputs)


def export(path, run, modules, inputs, names, outputs, axes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(Wrapped(run, *modules), inputs, str(path), input_names=names, output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
        node.ClearField("doc_string")
    onnx.save(model, path)


def settle(folder, expected, prompts=None, config=None):
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    (folder / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts or [{"input_ids": p} for p in PROMPTS]))
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": STEPS, "eos_token_id": END, "pad_token_id": 0, **(config or {})}) + "\n")


def ids(n=3, batch=2):
    return torch.randint(3, V, (batch, n))


def caches(heads=H, batch=2, past=4, dtype=torch.float32):
    return [torch.randn(batch, heads, past, D, dtype=dtype) for _ in range(2 * LAYERS)]


def pairs(flat):
    return [(flat[2 * i], flat[2 * i + 1]) for i in range(LAYERS)]


def flat(presents):
    return [x for pair in presents for x in pair]


NAMES = [f"{i}.{k}" for i in range(LAYERS) for k in ("key", "value")]
BATCH_STEP = {0: "batch", 1: "step"}


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


def genai(out):
    """GroupQueryAttention with a packed projection, as onnxruntime-genai's builder writes it."""
    torch.manual_seed(6)
    E, qkv, o, head = (torch.randn(*s) * 0.6 for s in ((V, W), (W, 3 * W), (W, W), (W, V)))
    n = lambda op, i, o, **a: helper.make_node(op, i, o, **a)
    weights = [numpy_helper.from_array(x.numpy(), name) for x, name in ((E, "E"), (qkv, "qkv"), (o, "o"), (head, "head"))]
    weights += [numpy_helper.from_array(np.array(x), name) for x, name in (([1], "axis1"), (1, "one"), (1, "index1"))]
    nodes = [n("Gather", ["E", "input_ids"], ["x"]), n("MatMul", ["x", "qkv"], ["packed"]),
             n("ReduceSum", ["attention_mask", "axis1"], ["sum"], keepdims=0), n("Sub", ["sum", "one"], ["last"]), n("Cast", ["last"], ["seqlens"], to=6),
             n("Shape", ["attention_mask"], ["shape"]), n("Gather", ["shape", "index1"], ["total64"]), n("Cast", ["total64"], ["total"], to=6),
             n("GroupQueryAttention", ["packed", "", "", "past_key_values.0.key", "past_key_values.0.value", "seqlens", "total"],
               ["attended", "present.0.key", "present.0.value"], domain="com.microsoft", num_heads=H, kv_num_heads=H),
             n("MatMul", ["attended", "o"], ["projected"]), n("Add", ["x", "projected"], ["y"]), n("MatMul", ["y", "head"], ["logits"])]
    info = helper.make_tensor_value_info
    cache = lambda name, length: info(name, TensorProto.FLOAT, ["batch", H, length, D])
    graph = helper.make_graph(nodes, "genai", [info("input_ids", TensorProto.INT64, ["batch", "step"]), info("attention_mask", TensorProto.INT64, ["batch", "total"]),
                                               cache("past_key_values.0.key", "past"), cache("past_key_values.0.value", "past")],
                              [info("logits", TensorProto.FLOAT, ["batch", "step", V]), cache("present.0.key", "total"), cache("present.0.value", "total")], weights)
    folder = out / "genai"
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10), folder / "decoder.onnx")

    def step(x):
        h = E[x]
        q, k, v = (h @ qkv).reshape(*x.shape, 3, H, D).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3) / D**0.5).masked_fill(torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1), -1e30)
        y = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(*x.shape, W)
        return (h + y @ o) @ head
    settle(folder, [greedy(step, p) for p in PROMPTS])
    (folder / "genai_config.json").write_text(json.dumps({"model": {"type": "llama", "vocab_size": V, "eos_token_id": END, "pad_token_id": 0,
                                                                    "decoder": {"filename": "decoder.onnx"}}, "search": {"max_length": 64}}) + "\n")


def genai_config(folder, decoder, search=None, **model):
    """As onnxruntime-genai's builder writes it."""
    shape = {"head_size": D, "hidden_size": W, "num_attention_heads": H, "num_key_value_heads": H, "num_hidden_layers": LAYERS}
    text = {"model": {"type": "llama", "vocab_size": V, "eos_token_id": [END], "bos_token_id": START, "pad_token_id": 0, "context_length": 64,
                      "decoder": {"session_options": {"log_id": "genai", "provider_options": []}, **shape, **decoder}, **model},
            "search": {"diversity_penalty": 0.0, "do_sample": False, "early_stopping": True, "length_penalty": 1.0, "max_length": 0, "min_length": 0, "no_repeat_ngram_size": 0,
                       "num_beams": 1, "num_return_sequences": 1, "past_present_share_buffer": False, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
                       **(search or {})}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "genai_config.json").write_text(json.dumps(text, indent=1) + "\n")


# Names that nobody could tell apart.
GENAI_DECODER = {"filename": "weights/d.onnx",
                 "inputs": {"input_ids": "first", "attention_mask": "second", "position_ids": "third", "past_key_names": "k_%d", "past_value_names": "v_%d"},
                 "outputs": {"logits": "out", "present_key_names": "next_k_%d", "present_value_names": "next_v_%d"}}


def genai_names(out):
    """A decoder whose names only genai_config.json explains; its search options are the only ones."""
    model, folder = Decoder(), out / "genai-names"

    def run(x, mask, positions, *past):
        logits, presents = model(x, positions, mask, pairs(past))
        return (logits, *flat(presents))
    pasts, presents = [f"{k}_{i}" for i in range(LAYERS) for k in "kv"], [f"next_{k}_{i}" for i in range(LAYERS) for k in "kv"]
    export(folder / "weights/d.onnx", run, [model], (ids(), torch.ones(2, 7, dtype=torch.long), torch.arange(3)[None].expand(2, 3) + 4, *caches()),
           ["first", "second", "third", *pasts], ["out", *presents],
           {"first": BATCH_STEP, "third": BATCH_STEP, "second": {0: "batch", 1: "past + step"}, **{n: {0: "batch", 2: "past"} for n in pasts}})
    genai_config(folder, GENAI_DECODER, {"max_length": 11})
    (folder / "expected.json").write_text(json.dumps([greedy(lambda x: model(x)[0], p, 11 - len(p)) for p in PROMPTS]) + "\n")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"input_ids": p}) + "\n" for p in PROMPTS))


def genai_encoder_decoder(out):
    """As Whisper is exported for onnxruntime-genai: the encoder gives the keys and values that the decoder's cross-attention reads."""
    decoder, encoder, folder = Decoder(cross=True, seed=5), Encoder(features=True), out / "genai-encoder-decoder"

    def encode(x):
        states = encoder(x)
        return (states, *[layer.split(layer.cross[k](states), H) for k in (1, 2) for layer in decoder.layers])
    names = lambda kind: [f"{kind}_{k}_cross_{i}" for k in ("key", "value") for i in range(LAYERS)]
    source = {0: "batch", 2: "source"}
    export(folder / "encoder.onnx", encode, [encoder, decoder], (torch.randn(2, 6, 5),), ["audio_features"], ["hidden_states", *names("present")],
           {"audio_features": {0: "batch", 1: "source"}, **{n: source for n in names("present")}})

    def decode(x, *rest):
        own, cross = rest[:2 * LAYERS], rest[2 * LAYERS:]
        own = [own[i] for i in range(2 * LAYERS)]
        length = own[0].shape[2]
        h = decoder.tokens(x) + decoder.positions(torch.arange(x.shape[1])[None] + length)
        presents = []
        for i, layer in enumerate(decoder.layers):
            q, k, v = layer.split(layer.q(h), H), layer.split(layer.k(h), H), layer.split(layer.v(h), H)
            k, v = torch.cat([own[i], k], 2), torch.cat([own[LAYERS + i], v], 2)
            key, query = torch.arange(k.shape[2])[None], torch.arange(q.shape[2])[:, None] + (k.shape[2] - q.shape[2])
            h = h + layer.out(layer.attend(q, k, v, torch.where((key <= query)[None, None], 0.0, -30000.0)))
            cq, _, _, project = layer.cross
            h = h + project(layer.attend(layer.split(cq(h), H), cross[i], cross[LAYERS + i], 0.0))
            h = h + layer.down(torch.relu(layer.up(h)))
            presents.append((k, v))
        return (decoder.head(h), *[p[0] for p in presents], *[p[1] for p in presents])
    own = lambda kind: [f"{kind}_{k}_self_{i}" for k in ("key", "value") for i in range(LAYERS)]
    pasts, crosses = own("past"), names("past")
    export(folder / "decoder.onnx", decode, [decoder], (ids(1), *caches(), *[torch.randn(2, H, 6, D) for _ in range(2 * LAYERS)]), ["input_ids", *pasts, *crosses],
           ["logits", *own("present")], {"input_ids": BATCH_STEP, **{n: {0: "batch", 2: "past"} for n in pasts}, **{n: source for n in crosses}})
    inputs = {"input_ids": "input_ids", "past_key_names": "past_key_self_%d", "past_value_names": "past_value_self_%d",
              "cross_past_key_names": "past_key_cross_%d", "cross_past_value_names": "past_value_cross_%d"}
    outputs = {"logits": "logits", "present_key_names": "present_key_self_%d", "present_value_names": "present_value_self_%d"}
    cross_outputs = {"hidden_states": "hidden_states", "cross_present_key_names": "present_key_cross_%d", "cross_present_value_names": "present_value_cross_%d"}
    genai_config(folder, {"filename": "decoder.onnx", "inputs": inputs, "outputs": outputs}, decoder_start_token_id=START,
                 encoder={"filename": "encoder.onnx", "num_hidden_layers": LAYERS, "inputs": {"audio_features": "audio_features"}, "outputs": cross_outputs})
    random = np.random.default_rng(4)
    features = [random.standard_normal((1, n, 5)).astype(np.float32) for n in (4, 7, 7)]
    for i, x in enumerate(features):
        np.savez(folder / f"features_{i}.npz", audio_features=x)
    expected = [greedy(lambda x, f=f: decoder(x, states=encoder(torch.tensor(f)))[0], [START]) for f in features]
    settle(folder, expected, [{"inputs": f"features_{i}.npz"} for i in range(len(features))])


def encoder_decoder(out):
    decoder, encoder = Decoder(cross=True, seed=5), Encoder(features=False)
    sources = [{"input_ids": p} for p in PROMPTS]

    def expected_of(states_of, inputs):
        return [greedy(lambda x, i=i: decoder(x, states=states_of(i))[0], [START]) for i in inputs]
    expected = expected_of(lambda p: encoder(torch.tensor([p])), PROMPTS)
    start = {"decoder_start_token_id": START}
    states, ones = torch.randn(2, 5, W), torch.ones(2, 5, dtype=torch.long)
    state_axes = {"encoder_hidden_states": {0: "batch", 1: "source"}, "encoder_attention_mask": {0: "batch", 1: "source"}}

    def export_encoder(path, names):
        export(path, lambda x, m: encoder(x) + 0 * m[:, :, None], [encoder], (ids(5), ones), names, ["last_hidden_state"],
               {n: {0: "batch", 1: "source"} for n in names})
    first = lambda x, s, m: decoder(x, states=s, states_mask=m)[0]
    # Files of names of their own.
    export_encoder(out / "encoder-decoder-names-of-its-own/reads.onnx", ["ids", "source_mask"])
    export(out / "encoder-decoder-names-of-its-own/writes.onnx", first, [decoder], (ids(), states, ones), ["prefix", "memory", "encoder_mask"], ["scores"],
           {"prefix": BATCH_STEP, "memory": {0: "batch", 1: "source"}, "encoder_mask": {0: "batch", 1: "source"}})
    settle(out / "encoder-decoder-names-of-its-own", expected, sources, start)
    # One file.
    export(out / "one-file/model.onnx", lambda s, m, x: first(x, encoder(s), m), [decoder, encoder], (ids(5), ones, ids()),
           ["input_ids", "attention_mask", "decoder_input_ids"], ["logits"],
           {"input_ids": {0: "batch", 1: "source"}, "attention_mask": {0: "batch", 1: "source"}, "decoder_input_ids": BATCH_STEP})
    settle(out / "one-file", expected, sources, start)
    # Both decoders in one file.
    names = [f"{i}.decoder.{k}" for i in range(LAYERS) for k in ("key", "value")]
    scratch = out / "merged"

    def with_past(x, s, m, *past):
        logits, presents = decoder(x, states=s, states_mask=m, pasts=pairs(past))
        return (logits, *flat(presents))

    def without(x, s, m):
        logits, presents = decoder(x, states=s, states_mask=m)
        return (logits, *flat(presents))
    fixed = ["input_ids", "encoder_hidden_states", "encoder_attention_mask"]
    outputs = ["logits", *[f"present.{n}" for n in names]]
    pasts = [f"past_key_values.{n}" for n in names]
    axes = {"input_ids": BATCH_STEP, **state_axes}
    export(scratch / "a.onnx", with_past, [decoder], (ids(1), states, ones, *caches()), fixed + pasts, outputs,
           {**axes, **{n: {0: "batch", 2: "past"} for n in pasts}})
    export(scratch / "b.onnx", without, [decoder], (ids(3), states, ones), fixed, outputs, axes)
    merge(scratch / "a.onnx", scratch / "b.onnx", scratch / "decoder_model_merged.onnx")
    export_encoder(scratch / "encoder_model.onnx", ["input_ids", "attention_mask"])
    settle(scratch, expected, sources, start)
    # Features.
    speech = Encoder(features=True)
    folder = out / "features"
    export(folder / "encoder_model.onnx", lambda x: speech(x), [speech], (torch.randn(2, 6, 5),), ["input_features"], ["last_hidden_state"],
           {"input_features": {0: "batch", 1: "frames"}})
    export(folder / "decoder_model.onnx", lambda x, s: decoder(x, states=s)[0], [decoder], (ids(), states), ["input_ids", "encoder_hidden_states"], ["logits"],
           {"input_ids": BATCH_STEP, "encoder_hidden_states": {0: "batch", 1: "frames"}})
    random = np.random.default_rng(2)
    features = [random.standard_normal((1, n, 5)).astype(np.float32) for n in (4, 7)]
    for i, x in enumerate(features):
        np.savez(folder / f"features_{i}.npz", input_features=x)
    settle(folder, expected_of(lambda x: speech(torch.tensor(x)), features), [{"inputs": f"features_{i}.npz"} for i in range(2)], start)


def merge(with_past, without, path):
    """As Optimum does: one If, weights outside its branches."""
    models = [onnx.load(with_past), onnx.load(without)]
    graphs, weights = [], []
    inputs = {}
    for letter, model in zip("ab", models):
        g = model.graph
        inputs.update({i.name: i for i in g.input})
        outer = {i.name for i in g.input}
        rename = lambda n: n if not n or n in outer else f"{n}_{letter}"
        for w in g.initializer:
            w.name = rename(w.name)
        weights += g.initializer
        for node in g.node:
            for field in (node.input, node.output):
                for k, name in enumerate(field):
                    field[k] = rename(name)
        outputs = [helper.make_tensor_value_info(rename(o.name), o.type.tensor_type.elem_type, None) for o in g.output]
        graphs.append(helper.make_graph(list(g.node), f"branch_{letter}", [], outputs))
    names = [o.name for o in models[0].graph.output]
    node = helper.make_node("If", ["use_cache_branch"], names, then_branch=graphs[0], else_branch=graphs[1])
    flag = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    graph = helper.make_graph([node], "merged", [*inputs.values(), flag], list(models[0].graph.output), weights)
    onnx.save(helper.make_model(graph, opset_imports=models[0].opset_import, ir_version=9), path)
    with_past.unlink()
    without.unlink()


def broken(out):
    """Tiny graphs without a model in them: what is wrong is in their interface."""
    info, I64, F32 = helper.make_tensor_value_info, TensorProto.INT64, TensorProto.FLOAT

    def write(path, inputs, outputs):
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = [numpy_helper.from_array(np.zeros([d if isinstance(d, int) else 1 for d in shape], dtype=np.float32), f"w_{n}") for n, shape in outputs]
        nodes = [helper.make_node("Identity", [f"w_{n}"], [f"i_{n}"]) for n, _ in outputs] + [helper.make_node("Neg", [f"i_{n}"], [n]) for n, _ in outputs]
        graph = helper.make_graph(nodes, "g", [info(n, t, s) for n, t, s in inputs], [info(n, F32, s) for n, s in outputs], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    tokens = ("input_ids", I64, ["B", "S"])
    cache = lambda n: (n, F32, ["B", 2, "P", 8])
    logits = ("logits", [1, 1, 48])
    write(out / "two-inputs-may-be-tokens/model.onnx", [("a", I64, ["B", "S"]), ("b", I64, ["B", "S"])], [logits])
    write(out / "something-beside-tokens/model.onnx", [tokens, ("what", I64, ["B", "S"])], [logits])
    write(out / "no-tokens/model.onnx", [("x", F32, ["B", 3])], [logits])
    write(out / "no-logits/model.onnx", [tokens], [("y", [4])])
    write(out / "two-logits/model.onnx", [tokens], [("y", [1, 1, 48]), ("z", [1, 1, 48])])
    write(out / "cache-does-not-come-out/model.onnx", [tokens, cache("past_key_values.0.key")], [logits])
    write(out / "caches-of-another-number/model.onnx", [tokens, cache("k0"), cache("v0")], [logits, ("k", [1, 2, 1, 8])])
    write(out / "encoder-missing/decoder_model.onnx", [tokens, ("encoder_hidden_states", F32, ["B", "T", 16])], [logits])
    write(out / "encoder-missing-by-interface/dec.onnx", [tokens, ("memory", F32, ["B", "T", 16])], [logits])
    write(out / "two-decoders/left.onnx", [tokens], [logits])
    write(out / "two-decoders/right.onnx", [tokens], [logits])
    full = [("first", I64, ["B", "S"]), ("second", I64, ["B", "T"]), ("third", I64, ["B", "S"]), *[cache(f"{k}_{i}") for i in range(LAYERS) for k in "kv"]]
    results = [("out", [1, 1, 48]), *[(f"next_{k}_{i}", [1, 2, 5, 8]) for i in range(LAYERS) for k in "kv"]]
    write(out / "genai-other-names/weights/d.onnx", full, results)
    genai_config(out / "genai-other-names", {**GENAI_DECODER, "inputs": {**GENAI_DECODER["inputs"], "past_key_names": "key_%d"}})
    write(out / "genai-no-file/e.onnx", full, results)
    genai_config(out / "genai-no-file", GENAI_DECODER)
    for name, decoder, extra in (("genai-no-filename", {"filename": None}, {}), ("genai-no-layers", {**GENAI_DECODER, "num_hidden_layers": None}, {}),
                                 ("genai-vision", GENAI_DECODER, {"vision": {"filename": "v.onnx"}}), ("genai-pipeline", {"pipeline": []}, {}),
                                 ("genai-not-text", {**GENAI_DECODER, "inputs": {"input_ids": 3}}, {})):
        write(out / name / "weights/d.onnx", full, results)
        genai_config(out / name, decoder, **extra)
    shutil.copytree(out.parent / "kinds/genai-names/weights", out / "genai-other-heads/weights")
    genai_config(out / "genai-other-heads", {**GENAI_DECODER, "num_key_value_heads": 1})
    write(out / "genai-unknown-search/weights/d.onnx", full, results)
    genai_config(out / "genai-unknown-search", GENAI_DECODER, {"num_beam": 4})
    genai_config(out / "genai-outside", {**GENAI_DECODER, "filename": "weights/../../genai-no-file/e.onnx"})
    (out / "genai-no-json").mkdir()
    (out / "genai-no-json/genai_config.json").write_text("{")
    (out / "genai-no-model").mkdir()
    (out / "genai-no-model/genai_config.json").write_text("{}")
    write(out / "no-decoder/vision.onnx", [("pixels", F32, ["B", 3, 8, 8])], [("y", [1, 4, 16])])


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
