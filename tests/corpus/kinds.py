"""What make_corpus.py exports: how a tiny model of each kind is made, its inputs and their dynamic axes.

An entry is (make(attention), input names, output names, dynamic axes, inputs(*shape), shapes).
"""
import importlib.util
import pathlib

import torch
import transformers
from torch import nn
from transformers.cache_utils import DynamicCache

spec = importlib.util.spec_from_file_location("make_exports", pathlib.Path(__file__).parent.parent / "exports/make_exports.py")
exports = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exports)


class Known:
    """Classes of transformers; None for those that its version does not have yet or has no more."""

    def __getattr__(self, name):
        return getattr(transformers, name, None)


tf = Known()
V, W, L, H, K = 99, 32, 2, 4, 2
TEXT = {0: "batch", 1: "sequence"}
TEXT_SHAPES = [(2, 5), (1, 3), (3, 9)]
COMMON = dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64)
LLAMA = dict(COMMON, num_key_value_heads=K, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)


class Wrapped(nn.Module):
    """Calls a model by names; returns the tensors named."""

    def __init__(self, model, inputs, outputs, **fixed):
        super().__init__()
        self.model, self.inputs, self.outputs, self.fixed = model, inputs, outputs, fixed

    def forward(self, *tensors):
        output = self.model(**dict(zip(self.inputs, tensors)), **self.fixed)
        return tuple(output[name] for name in self.outputs)


def encoder(config_class, model_class, extra=None, outputs=("last_hidden_state",), token_types=False):
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if token_types else [])

    def make(attention):
        config = config_class(**{**COMMON, "max_position_embeddings": 66, "pad_token_id": 0, **(extra or {})})
        config._attn_implementation = attention
        return Wrapped(model_class(config), names, outputs)

    def inputs(b, s):
        tensors = (exports.ids(b, s).clamp(3), exports.padded_mask(b, s))
        return tensors + ((torch.randint(0, 2, (b, s)),) if token_types else ())
    return make, names, list(outputs), {n: TEXT for n in names}, inputs, TEXT_SHAPES


def decoder(config_class, model_class, options):
    def make(attention):
        config = config_class(**options)
        config._attn_implementation = attention
        return Wrapped(model_class(config), ["input_ids", "attention_mask"], ["logits"], use_cache=False)
    return (make, ["input_ids", "attention_mask"], ["logits"], {"input_ids": TEXT, "attention_mask": TEXT},
            lambda b, s: (exports.ids(b, s).clamp(3), exports.padded_mask(b, s)), TEXT_SHAPES)


# With a past only: a query row without any key is where an exported file may differ from PyTorch (the dynamo exporter's
# attention gives such rows the mean of the values, PyTorch zeros).
def left_mask(batch, length):
    mask = torch.ones(batch, length, dtype=torch.long)
    if length > 3:
        mask[1::2, :2] = 0
    return mask


class WithPast(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, *past):
        cache = DynamicCache([(past[2 * i], past[2 * i + 1]) for i in range(L)])
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        return (output.logits, *[x for layer in output.past_key_values.layers for x in (layer.keys, layer.values)])


def with_past(config_class, model_class, options, heads, size):
    past = [f"past_key_values.{i}.{k}" for i in range(L) for k in ("key", "value")]
    present = [f"present.{i}.{k}" for i in range(L) for k in ("key", "value")]

    def make(attention):
        config = config_class(**options)
        config._attn_implementation = attention
        return WithPast(model_class(config))

    def inputs(b, s, p):
        return (exports.ids(b, s).clamp(3), left_mask(b, p + s), *[torch.randn(b, heads, p, size) for _ in range(2 * L)])
    axes = {"input_ids": TEXT, "attention_mask": {0: "batch", 1: "past + sequence"}, **{p: {0: "batch", 2: "past"} for p in past}}
    return make, ["input_ids", "attention_mask", *past], ["logits", *present], axes, inputs, [(2, 4, 3), (1, 1, 6), (3, 2, 5)]


def encoder_decoder(config_class, model_class, extra=None):
    options = dict(vocab_size=V, d_model=W, encoder_layers=L, decoder_layers=L, encoder_attention_heads=H, decoder_attention_heads=H,
                   encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                   decoder_start_token_id=1, forced_eos_token_id=None, **(extra or {}))

    def make(attention):
        config = config_class(**options)
        config._attn_implementation = attention
        return Wrapped(model_class(config), ["input_ids", "attention_mask", "decoder_input_ids"], ["logits"], use_cache=False)
    names = ["input_ids", "attention_mask", "decoder_input_ids"]
    axes = {"input_ids": TEXT, "attention_mask": TEXT, "decoder_input_ids": {0: "batch", 1: "target"}}
    return (make, names, ["logits"], axes, lambda b, s, t: (exports.ids(b, s).clamp(3), exports.padded_mask(b, s), exports.ids(b, t).clamp(3)),
            [(2, 5, 4), (1, 3, 6), (3, 9, 2)])


def vision(config_class, model_class, options, output="last_hidden_state", size=16):
    def make(attention):
        config = config_class(**options)
        config._attn_implementation = attention
        return Wrapped(model_class(config), ["pixel_values"], [output])
    return (make, ["pixel_values"], [output], {"pixel_values": {0: "batch"}}, lambda b: (torch.randn(b, 3, size, size),), [(2,), (1,), (3,)])


def speech(config_class, model_class, options, shapes, shape, names=("input_values",), axes=None):
    def make(attention):
        config = config_class(**options)
        config._attn_implementation = attention
        model = model_class(config)
        return Wrapped(model, list(names), ["last_hidden_state"])
    return make, list(names), ["last_hidden_state"], axes or {names[0]: TEXT}, lambda *s: (torch.randn(*shape(*s)),), shapes


def clip_text(attention):
    config = tf.CLIPTextConfig(**COMMON, max_position_embeddings=64, eos_token_id=98, bos_token_id=1, pad_token_id=0)
    config._attn_implementation = attention
    return Wrapped(tf.CLIPTextModel(config), ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"])


class Whisper(nn.Module):
    def __init__(self, attention):
        super().__init__()
        config = tf.WhisperConfig(vocab_size=V, d_model=W, encoder_layers=L, decoder_layers=L, encoder_attention_heads=H,
                                  decoder_attention_heads=H, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=8, max_source_positions=12,
                                  max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
        config._attn_implementation = attention
        self.model = tf.WhisperForConditionalGeneration(config)

    def forward(self, input_features, decoder_input_ids):
        return (self.model(input_features=input_features, decoder_input_ids=decoder_input_ids, use_cache=False).logits,)
