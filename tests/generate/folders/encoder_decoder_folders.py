"""Folders of an encoder and its decoders."""
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from tiny_models import BATCH_STEP, Decoder, Encoder, LAYERS, PROMPTS, START, W, caches, export, flat, greedy, ids, pairs, settle


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
