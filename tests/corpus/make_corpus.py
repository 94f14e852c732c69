#!/usr/bin/env python3
"""Exports many architectures with tiny seeded weights, both exporters, and records what PyTorch computes.

    python make_corpus.py OUT [--only bert,vit] [--kinds torchscript-14-eager,dynamo-18-sdpa]

Each OUT/<architecture>-<exporter>-<opset>-<attention> is a folder in ONNX's test format. Not committed: it is some 100 MB;
measure.py beside this runs weft and ONNX Runtime over it and writes docs/fusion.md.
"""
import argparse
import importlib.util
import pathlib
import shutil
import sys
import warnings

import onnx
import onnxruntime
import torch
import transformers as tf
from torch import nn
from transformers.cache_utils import DynamicCache

spec = importlib.util.spec_from_file_location("make_exports", pathlib.Path(__file__).parent.parent / "exports/make_exports.py")
exports = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exports)
warnings.filterwarnings("ignore")
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


def architectures():
    past = lambda cls, model, options, heads=K, size=W // H: with_past(cls, model, options, heads, size)
    rope = dict(LLAMA)
    image = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, image_size=16, patch_size=4)
    audio = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, vocab_size=V, conv_dim=(16, 16), conv_stride=(4, 2),
                 conv_kernel=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
                 do_stable_layer_norm=True)
    gemma = dict(LLAMA, head_dim=8)
    table = {
        "roberta": encoder(tf.RobertaConfig, tf.RobertaModel, dict(pad_token_id=1)),
        "distilbert": encoder(tf.DistilBertConfig, tf.DistilBertModel, dict(dim=W, hidden_dim=64, n_layers=L, n_heads=H)),
        "albert": encoder(tf.AlbertConfig, tf.AlbertModel, dict(embedding_size=16), token_types=True),
        "electra": encoder(tf.ElectraConfig, tf.ElectraModel, dict(embedding_size=16), token_types=True),
        "mpnet": encoder(tf.MPNetConfig, tf.MPNetModel),
        "modernbert": encoder(tf.ModernBertConfig, tf.ModernBertModel, dict(global_attn_every_n_layers=2, local_attention=4)),
        "deberta-v2": encoder(tf.DebertaV2Config, tf.DebertaV2Model, dict(relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm")),
        "opt": decoder(tf.OPTConfig, tf.OPTForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=W)),
        "bloom": decoder(tf.BloomConfig, tf.BloomForCausalLM, dict(vocab_size=V, hidden_size=W, n_layer=L, n_head=H)),
        "falcon": decoder(tf.FalconConfig, tf.FalconForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, new_decoder_architecture=False, multi_query=True, alibi=False)),
        "gpt-neox": decoder(tf.GPTNeoXConfig, tf.GPTNeoXForCausalLM, dict(COMMON, max_position_embeddings=64, rotary_pct=0.5)),
        "gptj": decoder(tf.GPTJConfig, tf.GPTJForCausalLM, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64, rotary_dim=4)),
        "gpt-neo": decoder(tf.GPTNeoConfig, tf.GPTNeoForCausalLM, dict(vocab_size=V, hidden_size=W, num_layers=L, num_heads=H, attention_types=[[["global", "local"], 1]], window_size=4, max_position_embeddings=64)),
        "phi": decoder(tf.PhiConfig, tf.PhiForCausalLM, dict(LLAMA, partial_rotary_factor=0.5)),
        "phi3": decoder(tf.Phi3Config, tf.Phi3ForCausalLM, rope),
        "qwen2": past(tf.Qwen2Config, tf.Qwen2ForCausalLM, rope),
        "qwen3": past(tf.Qwen3Config, tf.Qwen3ForCausalLM, dict(rope, head_dim=8)),
        "mistral": past(tf.MistralConfig, tf.MistralForCausalLM, dict(rope, sliding_window=4)),
        "gemma": past(tf.GemmaConfig, tf.GemmaForCausalLM, gemma),
        "gemma2": decoder(tf.Gemma2Config, tf.Gemma2ForCausalLM, dict(gemma, sliding_window=4, query_pre_attn_scalar=8)),
        "gemma3": decoder(tf.Gemma3TextConfig, tf.Gemma3ForCausalLM, dict(gemma, sliding_window=4, query_pre_attn_scalar=8)),
        "stablelm": decoder(tf.StableLmConfig, tf.StableLmForCausalLM, dict(rope, partial_rotary_factor=0.5)),
        "cohere": decoder(tf.CohereConfig, tf.CohereForCausalLM, rope),
        "olmo2": decoder(tf.Olmo2Config, tf.Olmo2ForCausalLM, rope),
        "starcoder2": decoder(tf.Starcoder2Config, tf.Starcoder2ForCausalLM, rope),
        "bart": encoder_decoder(tf.BartConfig, tf.BartForConditionalGeneration),
        "marian": encoder_decoder(tf.MarianConfig, tf.MarianMTModel, dict(decoder_vocab_size=V)),
        "pegasus": encoder_decoder(tf.PegasusConfig, tf.PegasusForConditionalGeneration),
        "m2m100": encoder_decoder(tf.M2M100Config, tf.M2M100ForConditionalGeneration),
        "vit": vision(tf.ViTConfig, tf.ViTModel, image),
        "deit": vision(tf.DeiTConfig, tf.DeiTModel, image),
        "beit": vision(tf.BeitConfig, tf.BeitModel, dict(image, use_relative_position_bias=True)),
        "dinov2": vision(tf.Dinov2Config, tf.Dinov2Model, image),
        "swin": vision(tf.SwinConfig, tf.SwinModel, dict(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4), size=32),
        "siglip": vision(tf.SiglipVisionConfig, tf.SiglipVisionModel, image),
        "clip-vision": vision(tf.CLIPVisionConfig, tf.CLIPVisionModel, image),
        "clip-text": (clip_text, ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"], {"input_ids": TEXT, "attention_mask": TEXT},
                      lambda b, s: (exports.ids(b, s).clamp(3), exports.padded_mask(b, s)), TEXT_SHAPES),
        "wav2vec2": speech(tf.Wav2Vec2Config, tf.Wav2Vec2Model, audio, [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
        "hubert": speech(tf.HubertConfig, tf.HubertModel, audio, [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
        "whisper": (Whisper, ["input_features", "decoder_input_ids"], ["logits"], {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "target"}},
                    lambda b, t: (torch.randn(b, 8, 24), exports.ids(b, t).clamp(3)), [(2, 4), (1, 1), (3, 6)]),
        "granite": past(tf.GraniteConfig, tf.GraniteForCausalLM, dict(rope, attention_multiplier=0.3, residual_multiplier=0.7, embedding_multiplier=2.0)),
        "smollm3": past(tf.SmolLM3Config, tf.SmolLM3ForCausalLM, dict(rope, no_rope_layer_interval=2)),
        "glm": decoder(tf.GlmConfig, tf.GlmForCausalLM, dict(rope, head_dim=8, partial_rotary_factor=0.5)),
        "olmo": decoder(tf.OlmoConfig, tf.OlmoForCausalLM, rope),
        "persimmon": decoder(tf.PersimmonConfig, tf.PersimmonForCausalLM, dict(COMMON, max_position_embeddings=64, partial_rotary_factor=0.5)),
        "mpt": decoder(tf.MptConfig, tf.MptForCausalLM, dict(vocab_size=V, d_model=W, n_layers=L, n_heads=H, expansion_ratio=2, max_seq_len=64)),
        "codegen": decoder(tf.CodeGenConfig, tf.CodeGenForCausalLM, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64, rotary_dim=4)),
        "gpt-bigcode": decoder(tf.GPTBigCodeConfig, tf.GPTBigCodeForCausalLM, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64, multi_query=True)),
        "nemotron": decoder(tf.NemotronConfig, tf.NemotronForCausalLM, dict(rope, partial_rotary_factor=0.5)),
        "cohere2": past(tf.Cohere2Config, tf.Cohere2ForCausalLM, dict(rope, sliding_window=4, layer_types=["sliding_attention", "full_attention"])),
        "gpt-oss": past(tf.GptOssConfig, tf.GptOssForCausalLM, dict(rope, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=4)),
        "exaone4": decoder(tf.Exaone4Config, tf.Exaone4ForCausalLM, dict(rope, sliding_window=4, head_dim=8)),
        "gpt2-long": past(tf.GPT2Config, tf.GPT2LMHeadModel, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64), H),
        "bloom-past": past(tf.BloomConfig, tf.BloomForCausalLM, dict(vocab_size=V, hidden_size=W, n_layer=L, n_head=H), H),
        "deberta": encoder(tf.DebertaConfig, tf.DebertaModel, dict(relative_attention=True, pos_att_type=["c2p", "p2c"])),
        "layoutlm": encoder(tf.LayoutLMConfig, tf.LayoutLMModel),
        "esm": encoder(tf.EsmConfig, tf.EsmModel, dict(position_embedding_type="rotary", mask_token_id=98)),
        "nystromformer": encoder(tf.NystromformerConfig, tf.NystromformerModel, dict(segment_means_seq_len=64, num_landmarks=64)),
        "convbert": encoder(tf.ConvBertConfig, tf.ConvBertModel, dict(embedding_size=32)),
        "mobilebert": encoder(tf.MobileBertConfig, tf.MobileBertModel, dict(embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16)),
        "rembert": encoder(tf.RemBertConfig, tf.RemBertModel, dict(input_embedding_size=16, output_embedding_size=16)),
        "squeezebert": encoder(tf.SqueezeBertConfig, tf.SqueezeBertModel, dict(embedding_size=W)),
        "data2vec-text": encoder(tf.Data2VecTextConfig, tf.Data2VecTextModel, dict(pad_token_id=1)),
        "ibert": encoder(tf.XLMRobertaConfig, tf.XLMRobertaModel, dict(pad_token_id=1)),
        "roformer": encoder(tf.RoFormerConfig, tf.RoFormerModel, dict(embedding_size=W)),
        "mbart": encoder_decoder(tf.MBartConfig, tf.MBartForConditionalGeneration),
        "blenderbot": encoder_decoder(tf.BlenderbotConfig, tf.BlenderbotForConditionalGeneration),
        "yolos": vision(tf.YolosConfig, tf.YolosModel, dict(image, image_size=[16, 16], num_detection_tokens=3)),
        "segformer": vision(tf.SegformerConfig, tf.SegformerModel, dict(depths=[1, 1], num_encoder_blocks=2, hidden_sizes=[16, 32], num_attention_heads=[1, 2], sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2]), size=32),
        "pvt": vision(tf.PvtConfig, tf.PvtModel, dict(image_size=32, num_encoder_blocks=2, depths=[1, 1], sequence_reduction_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[4, 2], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2]), size=32),
        "mobilevit": vision(tf.MobileViTConfig, tf.MobileViTModel, dict(image_size=32, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 32], num_attention_heads=2), size=32),
        "convnext": vision(tf.ConvNextConfig, tf.ConvNextModel, dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]), size=64),
        "ijepa": vision(tf.IJepaConfig, tf.IJepaModel, image),
        "sew": speech(tf.SEWConfig, tf.SEWModel, dict(audio, squeeze_factor=2, conv_dim=(16, 16)), [(2, 128), (1, 160), (3, 192)], lambda b, n: (b, n)),
        "wavlm": speech(tf.WavLMConfig, tf.WavLMModel, dict(audio, num_buckets=8, max_bucket_distance=16), [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
        "data2vec-audio": speech(tf.Data2VecAudioConfig, tf.Data2VecAudioModel, dict(audio, conv_pos_kernel_size=3, num_conv_pos_embeddings=2), [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
    }
    return table


KINDS = ["torchscript-14-eager", "torchscript-17-sdpa", "dynamo-18-eager", "dynamo-20-sdpa"]


def export_one(label, entry, kind, out):
    make, input_names, output_names, axes, make_inputs, shapes = entry
    exporter, opset, attention = kind.split("-")
    torch.manual_seed(0)
    module = make(attention).eval()
    folder = out / f"{label}-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    with torch.no_grad():
        inputs = make_inputs(*shapes[0])
        if exporter == "dynamo" and isinstance(module, Wrapped):
            dynamic = (tuple({a: torch.export.Dim.DYNAMIC for a in axes.get(n, {})} for n in input_names),)
            torch.onnx.export(module, inputs, str(path), input_names=input_names, output_names=output_names, dynamic_shapes=dynamic,
                              opset_version=int(opset), dynamo=True, external_data=False, verbose=False)
        else:
            exports.export(module, inputs, input_names, output_names, axes, exporter, int(opset), str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    exports.write_sets(module, (input_names, output_names), make_inputs, shapes, folder, session)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    for label, entry in architectures().items():
        if arguments.only and label not in arguments.only.split(","):
            continue
        for kind in arguments.kinds.split(","):
            try:
                export_one(label, entry, kind, arguments.out)
                print(f"{label}-{kind}", flush=True)
            except Exception as error:  # noqa: BLE001 (what an exporter cannot do is recorded, not fatal)
                shutil.rmtree(arguments.out / f"{label}-{kind}", ignore_errors=True)
                print(f"{label}-{kind}: not exported: {type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
