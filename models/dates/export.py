#!/usr/bin/env python3
"""Exports the trained model for generation: encoder_model.onnx, decoder_model.onnx (first step), decoder_with_past_model.onnx (later steps),
and its configuration and tokenizer in Hugging Face's file formats. Checks the exports against the trained torch.nn.Transformer.

    python export.py
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel

from model import END, HEADS, LAYERS, PAD, START, UNKNOWN, VOCABULARY, WIDTH, DateModel, encode

HERE = pathlib.Path(__file__).parent


def split_heads(x):
    return x.reshape(x.shape[0], x.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)


def attend(q, k, v, mask):
    scores = q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + mask
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(q.shape[0], q.shape[2], WIDTH)


def project(attention, part, x):
    """One of the three projections that nn.MultiheadAttention keeps in one matrix."""
    rows = slice(part * WIDTH, (part + 1) * WIDTH)
    return torch.nn.functional.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows])


class Encoder(torch.nn.Module):
    """nn.TransformerEncoder layer by layer (tracing torch.nn.MultiheadAttention would fix the sequence length)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        padding = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        x = self.model.embed(input_ids)
        for layer in self.model.transformer.encoder.layers:
            q, k, v = (split_heads(project(layer.self_attn, part, x)) for part in range(3))
            x = layer.norm1(x + layer.self_attn.out_proj(attend(q, k, v, padding)))
            x = layer.norm2(x + layer.linear2(torch.relu(layer.linear1(x))))
        return self.model.transformer.encoder.norm(x)


class Decoder(torch.nn.Module):
    """nn.TransformerDecoder step by step: what it attends is kept. `first`: nothing is past, the encoder's keys and values are computed;
    otherwise both are inputs."""

    def __init__(self, model, first):
        super().__init__()
        self.model = model
        self.first = first

    def forward(self, input_ids, encoder_attention_mask, *rest):
        padding = (1.0 - encoder_attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        past = 0 if self.first else rest[0].shape[2]
        length = input_ids.shape[1]
        x = self.model.embedding(input_ids) * WIDTH**0.5 + self.model.positions[past:past + length]
        order = torch.arange(past + length)
        causal = (order[None, :] > order[past:, None]).float() * torch.finfo(torch.float32).min
        own, cross = [], []
        for index, layer in enumerate(self.model.transformer.decoder.layers):
            attention = layer.self_attn
            q, k, v = (split_heads(project(attention, part, x)) for part in range(3))
            if not self.first:
                k = torch.cat([rest[2 * index], k], 2)
                v = torch.cat([rest[2 * index + 1], v], 2)
            own += [k, v]
            x = layer.norm1(x + attention.out_proj(attend(q, k, v, causal)))
            attention = layer.multihead_attn
            q = split_heads(project(attention, 0, x))
            if self.first:
                k, v = (split_heads(project(attention, part, rest[0])) for part in (1, 2))
                cross += [k, v]
            else:
                k, v = rest[2 * LAYERS + 2 * index], rest[2 * LAYERS + 2 * index + 1]
            x = layer.norm2(x + attention.out_proj(attend(q, k, v, padding)))
            x = layer.norm3(x + layer.linear2(torch.relu(layer.linear1(x))))
        return (self.model.head(self.model.transformer.decoder.norm(x)), *own, *cross)


def save(module, inputs, input_names, output_names, axes, name):
    path = HERE / name
    torch.onnx.export(module, inputs, str(path), input_names=input_names, output_names=output_names, dynamic_axes=axes, opset_version=17,
                      dynamo=False)
    model = onnx.load(path)
    for node in model.graph.node:
        node.doc_string = ""
    del model.graph.value_info[:]
    onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    with torch.no_grad():
        expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    feeds = {n: x.numpy() for n, x in zip(input_names, inputs)}
    for wanted, actual in zip(expected, session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})):
        assert np.abs(wanted.numpy() - actual).max() < 1e-4, name
    return expected


def export_models(model):
    source = torch.tensor([encode("the 3rd of March, 2024"), encode("Sunday 2024-03-03xxxxx")])
    mask = torch.ones_like(source)
    mask[1, -5:] = 0
    text, encoded = {0: "batch_size", 1: "sequence_length"}, {0: "batch_size", 1: "encoder_sequence_length"}
    own = [f"{i}.decoder.{k}" for i in range(LAYERS) for k in ("key", "value")]
    cross = [f"{i}.encoder.{k}" for i in range(LAYERS) for k in ("key", "value")]
    (hidden,) = save(Encoder(model), (source, mask), ["input_ids", "attention_mask"], ["last_hidden_state"],
                     {"input_ids": text, "attention_mask": text, "last_hidden_state": text}, "encoder_model.onnx")
    start = torch.tensor([[START, 5, 6], [START, 7, 8]])
    logits, *caches = save(Decoder(model, True), (start, mask, hidden), ["input_ids", "encoder_attention_mask", "encoder_hidden_states"],
                           ["logits", *[f"present.{n}" for n in own + cross]],
                           {"input_ids": text, "encoder_attention_mask": encoded, "encoder_hidden_states": encoded}, "decoder_model.onnx")
    padded = source.masked_fill(mask == 0, PAD)
    with torch.no_grad():
        reference = model(padded, start)
        hidden = Encoder(model)(padded, mask)
        again = Decoder(model, True)(start, mask, hidden)[0]
    assert (reference - again).abs().max() < 1e-4, "the decoder is not nn.Transformer's"
    axes = {"input_ids": text, "encoder_attention_mask": encoded, **{f"past_key_values.{n}": {0: "batch_size", 2: "past_sequence_length"} for n in own},
            **{f"past_key_values.{n}": {0: "batch_size", 2: "encoder_sequence_length"} for n in cross}}
    save(Decoder(model, False), (torch.tensor([[9, 4], [10, 11]]), mask, *caches),
         ["input_ids", "encoder_attention_mask", *[f"past_key_values.{n}" for n in own + cross]], ["logits", *[f"present.{n}" for n in own]], axes,
         "decoder_with_past_model.onnx")


def export_configuration():
    common = {"bos_token_id": START, "decoder_start_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
    (HERE / "config.json").write_text(json.dumps({"model_type": "encoder-decoder", "is_encoder_decoder": True, "vocab_size": len(VOCABULARY),
                                                  "d_model": WIDTH, **common}, indent=1) + "\n")
    (HERE / "generation_config.json").write_text(json.dumps({"max_new_tokens": 12, **common}, indent=1) + "\n")
    tokenizer = Tokenizer(WordLevel({piece: i for i, piece in enumerate(VOCABULARY)}, unk_token=VOCABULARY[UNKNOWN]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(VOCABULARY[:4])
    tokenizer.save(str(HERE / "tokenizer.json"))
    assert tokenizer.encode("Tue 12.2.85é").ids == encode("Tue 12.2.85é")
    (HERE / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "bos_token": "<s>",
                                                            "eos_token": "</s>", "unk_token": "<unk>"}, indent=1) + "\n")


def main():
    torch.backends.mha.set_fastpath_enabled(False)
    model = DateModel()
    model.load_state_dict(torch.load(HERE / "weights.pt"))
    model.eval()
    export_models(model)
    export_configuration()


if __name__ == "__main__":
    main()
