#!/usr/bin/env python3
"""Exports small seeded models with both PyTorch exporters and records what PyTorch computes, as ONNX test folders.

    python make_exports.py [--out fixtures] [--only bert,gpt2] [--opsets 14,17,18,20]

A fixture is fixtures/<model>-<exporter>-<opset>/{model.onnx, test_data_set_{0,1,2}}. The committed ones are the defaults.
"""

import argparse
import pathlib
import shutil
import tempfile
import warnings

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import transformers
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

warnings.filterwarnings("ignore")
torch.backends.mha.set_fastpath_enabled(False)  # its fused operators cannot be exported
LAYERS, HEADS, KEY_HEADS, WIDTH, SIZE, VOCABULARY = 2, 4, 2, 32, 8, 99


class Bert(nn.Module):
    def __init__(self, attention):
        super().__init__()
        config = transformers.BertConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                                         intermediate_size=64, max_position_embeddings=64, attn_implementation=attention)
        self.model = transformers.BertModel(config)

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=False)


class CausalDecoder(nn.Module):
    """A language model whose caches are inputs and outputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, *past):
        cache = DynamicCache([(past[2 * i], past[2 * i + 1]) for i in range(LAYERS)])
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        return (output.logits, *[x for layer in output.past_key_values.layers for x in (layer.keys, layer.values)])


class T5Encoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model.encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)[0]


class T5Decoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, encoder_attention_mask, encoder_hidden_states):
        output = self.model(decoder_input_ids=input_ids, attention_mask=encoder_attention_mask,
                            encoder_outputs=(encoder_hidden_states,), use_cache=True)
        caches = output.past_key_values
        layers = [x for layer in caches.self_attention_cache.layers for x in (layer.keys, layer.values)]
        layers += [x for layer in caches.cross_attention_cache.layers for x in (layer.keys, layer.values)]
        return (output.logits, *layers)


class T5DecoderWithPast(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, encoder_attention_mask, *past):
        own = DynamicCache([(past[2 * i], past[2 * i + 1]) for i in range(LAYERS)])
        cross = DynamicCache([(past[2 * LAYERS + 2 * i], past[2 * LAYERS + 2 * i + 1]) for i in range(LAYERS)])
        cache = EncoderDecoderCache(own, cross)
        for layer in range(LAYERS):
            cache.is_updated[layer] = True
        unused = torch.zeros(input_ids.shape[0], encoder_attention_mask.shape[1], self.model.config.d_model)
        output = self.model(decoder_input_ids=input_ids, attention_mask=encoder_attention_mask, encoder_outputs=(unused,),
                            past_key_values=cache, use_cache=True)
        layers = [x for layer in output.past_key_values.self_attention_cache.layers for x in (layer.keys, layer.values)]
        return (output.logits, *layers)


class MaskedTransformer(nn.Module):
    def __init__(self, norm_first):
        super().__init__()
        self.model = nn.Transformer(WIDTH, HEADS, LAYERS, LAYERS, 64, batch_first=True, norm_first=norm_first)

    def forward(self, src, tgt, tgt_mask, src_padding):
        return self.model(src, tgt, tgt_mask=tgt_mask, src_key_padding_mask=src_padding, memory_key_padding_mask=src_padding)


class PlainTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Transformer(WIDTH, HEADS, LAYERS, LAYERS, 64)

    def forward(self, src, tgt):
        return self.model(src, tgt)


class CrossAttention(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.need_weights = need_weights

    def forward(self, query, memory):
        return self.attention(query, memory, memory, need_weights=self.need_weights)[0]


class RecurrentClassifier(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.layers = kind(16, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 5)

    def forward(self, input_ids):
        return self.head(self.layers(self.embedding(input_ids))[0].mean(1))


class ConvClassifier(nn.Module):
    def __init__(self, dims):
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
        pool = (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d) if dims == 1 else (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
        self.body = nn.Sequential(conv(3, 8, 3, padding=1), norm(8), nn.ReLU(), pool[0](2), conv(8, 8, 3, padding=2, dilation=2, groups=4),
                                  nn.GELU(), pool[1](2, stride=1), conv(8, 12, 1, stride=2), nn.SiLU(), pool[2](1), nn.Flatten())
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.body(x))


# --- Inputs ---------------------------------------------------------------------------------------------------------------


def ids(*shape):
    return torch.randint(0, VOCABULARY, shape)


def padded_mask(batch, length):
    """Ones, with the last tokens of every second row padded."""
    mask = torch.ones(batch, length, dtype=torch.long)
    if length > 2:
        mask[1::2, -2:] = 0
    return mask


def decoder_inputs(heads):
    def make(batch, length, past):
        mask = torch.ones(batch, past + length, dtype=torch.long)
        if past > 1:
            mask[1::2, 0] = 0  # padding of a shorter prompt is on the left
        return (ids(batch, length), mask, *[torch.randn(batch, heads, past, SIZE) for _ in range(2 * LAYERS)])

    return make


def models():
    """name -> (module, input names, output names, dynamic axes, inputs for a shape, shapes, [(exporter, opset)])"""
    both = [("torchscript", 14), ("torchscript", 17), ("dynamo", 18), ("dynamo", 20)]
    text = {0: "batch", 1: "sequence"}
    table = {}
    for attention, kinds in (("eager", [("torchscript", 14), ("dynamo", 20)]), ("sdpa", [("torchscript", 17), ("dynamo", 18)])):
        table[f"bert-{attention}"] = (
            lambda attention=attention: Bert(attention), ["input_ids", "attention_mask", "token_type_ids"], ["last_hidden_state", "pooler_output"],
            {"input_ids": text, "attention_mask": text, "token_type_ids": text},
            lambda b, s: (ids(b, s), padded_mask(b, s), torch.randint(0, 2, (b, s))), [(2, 5), (1, 1), (7, 9)], kinds)
        past = [f"past_key_values.{i}.{k}" for i in range(LAYERS) for k in ("key", "value")]
        present = [f"present.{i}.{k}" for i in range(LAYERS) for k in ("key", "value")]
        axes = {"input_ids": text, "attention_mask": {0: "batch", 1: "past + sequence"}, **{p: {0: "batch", 2: "past"} for p in past}}
        gpt2 = lambda attention=attention: CausalDecoder(transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=64, attn_implementation=attention)))
        llama = lambda attention=attention: CausalDecoder(transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            num_key_value_heads=KEY_HEADS, max_position_embeddings=64, attn_implementation=attention)))
        for name, make, heads in (("gpt2", gpt2, HEADS), ("llama", llama, KEY_HEADS)):
            table[f"{name}-{attention}"] = (make, ["input_ids", "attention_mask", *past], ["logits", *present], axes, decoder_inputs(heads),
                                            [(2, 5, 3), (1, 4, 0), (7, 1, 9)], kinds)

    def t5():
        return transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=VOCABULARY, d_model=WIDTH, d_kv=SIZE, d_ff=64, num_layers=LAYERS, num_heads=HEADS, decoder_start_token_id=0))

    encoder_axes = {0: "batch", 1: "encoder_sequence"}
    own = [f"{i}.decoder.{k}" for i in range(LAYERS) for k in ("key", "value")]
    cross = [f"{i}.encoder.{k}" for i in range(LAYERS) for k in ("key", "value")]
    cache = lambda b, n: [torch.randn(b, HEADS, n, SIZE) for _ in range(2 * LAYERS)]
    table["t5-encoder"] = (lambda: T5Encoder(t5()), ["input_ids", "attention_mask"], ["last_hidden_state"], {"input_ids": text, "attention_mask": text},
                           lambda b, s: (ids(b, s), padded_mask(b, s)), [(2, 5), (1, 1), (7, 9)], both)
    table["t5-decoder"] = (lambda: T5Decoder(t5()), ["input_ids", "encoder_attention_mask", "encoder_hidden_states"],
                           ["logits", *[f"present.{n}" for n in own + cross]],
                           {"input_ids": text, "encoder_attention_mask": encoder_axes, "encoder_hidden_states": encoder_axes},
                           lambda b, s, e: (ids(b, s), padded_mask(b, e), torch.randn(b, e, WIDTH)), [(2, 4, 5), (1, 1, 3), (7, 3, 9)], both)
    table["t5-decoder-with-past"] = (
        lambda: T5DecoderWithPast(t5()), ["input_ids", "encoder_attention_mask", *[f"past_key_values.{n}" for n in own + cross]],
        ["logits", *[f"present.{n}" for n in own]],
        {"input_ids": text, "encoder_attention_mask": encoder_axes, **{f"past_key_values.{n}": {0: "batch", 2: "past"} for n in own},
         **{f"past_key_values.{n}": {0: "batch", 2: "encoder_sequence"} for n in cross}},
        lambda b, s, p, e: (ids(b, s), padded_mask(b, e), *cache(b, p), *cache(b, e)), [(2, 4, 3, 5), (1, 1, 1, 3), (7, 1, 6, 9)], both)
    causal = nn.Transformer.generate_square_subsequent_mask
    for norm_first in (False, True):
        table["transformer-norm-first" if norm_first else "transformer"] = (
            lambda norm_first=norm_first: MaskedTransformer(norm_first), ["src", "tgt", "tgt_mask", "src_padding"], ["out"],
            {"src": {0: "batch", 1: "src_length"}, "tgt": {0: "batch", 1: "tgt_length"}, "tgt_mask": {0: "tgt_length", 1: "tgt_length"},
             "src_padding": {0: "batch", 1: "src_length"}},
            lambda b, s, t: (torch.randn(b, s, WIDTH), torch.randn(b, t, WIDTH), causal(t), padded_mask(b, s) == 0),
            [(2, 5, 4), (1, 3, 6), (7, 9, 3)], [("torchscript", 14), ("torchscript", 17)])
    table["transformer-plain"] = (PlainTransformer, ["src", "tgt"], ["out"], {"src": {0: "src_length", 1: "batch"}, "tgt": {0: "tgt_length", 1: "batch"}},
                                  lambda b, s, t: (torch.randn(s, b, WIDTH), torch.randn(t, b, WIDTH)), [(2, 5, 4), (3, 3, 6), (7, 9, 3)], both)
    for weights in (False, True):
        table["cross-attention-weights" if weights else "cross-attention"] = (
            lambda weights=weights: CrossAttention(weights), ["query", "memory"], ["out"],
            {"query": {0: "batch", 1: "length"}, "memory": {0: "batch", 1: "memory_length"}},
            lambda b, s, t: (torch.randn(b, s, WIDTH), torch.randn(b, t, WIDTH)), [(2, 5, 4), (3, 4, 6), (7, 9, 3)], [("torchscript", 14), ("dynamo", 18)])
    for name, kind in (("lstm", nn.LSTM), ("gru", nn.GRU)):
        table[name] = (lambda kind=kind: RecurrentClassifier(kind), ["input_ids"], ["logits"], {"input_ids": text}, lambda b, s: (ids(b, s),),
                       [(2, 5), (1, 1), (7, 9)], [("torchscript", 14), ("torchscript", 17)])
    table["conv1d"] = (lambda: ConvClassifier(1), ["x"], ["logits"], {"x": {0: "batch", 2: "length"}}, lambda b, s: (torch.randn(b, 3, s),),
                       [(2, 16), (1, 21), (7, 33)], [("torchscript", 14), ("dynamo", 18)])
    table["conv2d"] = (lambda: ConvClassifier(2), ["x"], ["logits"], {"x": {0: "batch", 2: "height", 3: "width"}}, lambda b, h, w: (torch.randn(b, 3, h, w),),
                       [(2, 16, 12), (1, 13, 21), (7, 18, 15)], [("torchscript", 17), ("dynamo", 20)])
    return table


# --- Exporting ------------------------------------------------------------------------------------------------------------


def export(module, inputs, input_names, output_names, axes, exporter, opset, path):
    if exporter == "torchscript":
        torch.onnx.export(module, inputs, path, input_names=input_names, output_names=output_names, dynamic_axes=axes, opset_version=opset,
                          dynamo=False)
        return
    shapes = [{axis: torch.export.Dim.DYNAMIC for axis in axes.get(name, {})} for name in input_names]
    code = module.forward.__code__
    if code.co_flags & 4:  # *past
        fixed = code.co_argcount - 1
        shapes = (*shapes[:fixed], tuple(shapes[fixed:]))
    torch.onnx.export(module, inputs, path, input_names=input_names, output_names=output_names, dynamic_shapes=tuple(shapes), opset_version=opset,
                      dynamo=True, external_data=False, verbose=False)


def strip(model, keep_metadata):
    """Drops documentation, and the exporter's records where they would make up most of the file."""
    def clean(graph):
        graph.doc_string = ""
        del graph.value_info[:]
        if not keep_metadata:
            del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            if not keep_metadata:
                del node.metadata_props[:]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    clean(attribute.g)
        for value in [*graph.input, *graph.output, *graph.initializer]:
            value.doc_string = ""
            if not keep_metadata:
                del value.metadata_props[:]

    clean(model.graph)


def agrees(session, feeds, module, inputs, tolerance=1e-3):
    """Does ONNX Runtime take the inputs and give what PyTorch gives? Tracing may have fixed more than shapes."""
    try:
        found = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})
    except Exception:  # noqa: BLE001 (whatever the runtime objects to)
        return False
    with torch.no_grad():
        wanted = module(*inputs)
    wanted = [x.numpy() for x in (wanted if isinstance(wanted, tuple) else (wanted,))]
    near = lambda a, b: a.shape == b.shape and (a.size == 0 or np.nanmax(np.abs(a - b)) <= tolerance * max(np.nanmax(np.abs(b)), 1e-9))
    return all(near(a, b) for a, b in zip(found, wanted))


def write_sets(module, names, make_inputs, shapes, folder, session):
    """Data sets with PyTorch's results. A file whose exporter fixed a shape while tracing does not run on others, or gives others' results:
    such a file gets the traced shape three times, with other numbers."""
    input_names, output_names = names
    for number, shape in enumerate(shapes):
        inputs = make_inputs(*shape)
        feeds = {name: x.numpy() for name, x in zip(input_names, inputs)}
        if not agrees(session, feeds, module, inputs):
            inputs = make_inputs(*shapes[0])
        with torch.no_grad():
            outputs = module(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        target = folder / f"test_data_set_{number}"
        target.mkdir(parents=True)
        used = {i.name for i in session.get_inputs()}
        pairs = [(name, x) for name, x in zip(input_names, inputs) if name in used]
        for prefix, items in (("input", pairs), ("output", list(zip(output_names, outputs)))):
            for index, (name, x) in enumerate(items):
                tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(x.numpy()), name)
                (target / f"{prefix}_{index}.pb").write_bytes(tensor.SerializeToString())


def main():
    import onnxruntime

    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "fixtures")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    for name, (make, input_names, output_names, axes, make_inputs, shapes, kinds) in models().items():
        if arguments.only and not any(name.startswith(part) for part in arguments.only.split(",")):
            continue
        for exporter, opset in kinds:
            torch.manual_seed(0)
            module = make().eval()
            label = f"{name}-{exporter}-{opset}"
            folder = arguments.out / label
            shutil.rmtree(folder, ignore_errors=True)
            with tempfile.TemporaryDirectory() as scratch:
                path = pathlib.Path(scratch) / "model.onnx"
                try:
                    with torch.no_grad():
                        export(module, make_inputs(*shapes[0]), input_names, output_names, axes, exporter, opset, str(path))
                except Exception as error:  # noqa: BLE001
                    print(f"{label}: not exported: {type(error).__name__}: {str(error).splitlines()[0][:150]}", flush=True)
                    continue
                model = onnx.load(path)
            strip(model, keep_metadata=label == "bert-sdpa-dynamo-18")
            folder.mkdir(parents=True)
            onnx.save(model, folder / "model.onnx")
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
            write_sets(module, (input_names, output_names), make_inputs, shapes, folder, session)
            print(f"{label}: {(folder / 'model.onnx').stat().st_size // 1024} KB", flush=True)


if __name__ == "__main__":
    main()
