"""Folders as onnxruntime-genai's builder writes them."""
import json

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from tiny_models import BATCH_STEP, D, Decoder, END, Encoder, H, LAYERS, PROMPTS, START, V, W, caches, export, flat, greedy, ids, pairs, settle


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
