#!/usr/bin/env python3
"""Exports tiny seeded models as Optimum lays them out: one file with past, encoder, decoder with and without past, merged.

    python optimum_layouts.py OUT [--only gpt2,t5]        (needs optimum-onnx; measure.py and optimize.py take OUT)

Each file becomes a folder in ONNX's test format with what PyTorch computes. What a merged decoder gives for caches of the
encoder when it has them already is not compared: Optimum gives placeholders.
"""
import argparse
import pathlib
import sys
import tempfile
import warnings

import numpy
import onnx
import torch
import transformers as tf
from onnx import numpy_helper
from optimum.exporters.onnx import onnx_export_from_model
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

warnings.filterwarnings("ignore")
V, W, L, H, D, E = 99, 32, 2, 4, 8, 6
COMMON = dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, max_position_embeddings=64)
ROPE = dict(COMMON, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
BART = dict(vocab_size=V, d_model=W, encoder_layers=L, decoder_layers=L, encoder_attention_heads=H, decoder_attention_heads=H, encoder_ffn_dim=64,
            decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
            forced_eos_token_id=None)
T5 = dict(vocab_size=V, d_model=W, d_kv=D, d_ff=64, num_layers=L, num_heads=H, decoder_start_token_id=0)
WHISPER = dict(BART, num_mel_bins=8, max_source_positions=1500, max_target_positions=32)
IMAGE = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, image_size=16, patch_size=4)
AUDIO = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, vocab_size=V, conv_dim=(16, 16), conv_stride=(4, 2),
             conv_kernel=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
             do_stable_layer_norm=True)
MODELS = {
    "bert": (tf.BertForSequenceClassification, tf.BertConfig(**COMMON), "text-classification"),
    "distilbert": (tf.DistilBertForQuestionAnswering, tf.DistilBertConfig(vocab_size=V, dim=W, hidden_dim=64, n_layers=L, n_heads=H, max_position_embeddings=64), "question-answering"),
    "roberta": (tf.RobertaForTokenClassification, tf.RobertaConfig(**COMMON, pad_token_id=1), "token-classification"),
    "mpnet": (tf.MPNetModel, tf.MPNetConfig(**COMMON), "feature-extraction"),
    "modernbert": (tf.ModernBertForMaskedLM, tf.ModernBertConfig(**COMMON, global_attn_every_n_layers=2, local_attention=4, pad_token_id=0), "fill-mask"),
    "vit": (tf.ViTForImageClassification, tf.ViTConfig(**IMAGE), "image-classification"),
    "wav2vec2": (tf.Wav2Vec2ForCTC, tf.Wav2Vec2Config(**AUDIO), "automatic-speech-recognition"),
    "gpt2": (tf.GPT2LMHeadModel, tf.GPT2Config(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64), "text-generation-with-past"),
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig(**ROPE), "text-generation-with-past"),
    "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config(**ROPE), "text-generation-with-past"),
    "qwen3": (tf.Qwen3ForCausalLM, tf.Qwen3Config(**ROPE, head_dim=D), "text-generation-with-past"),
    "mistral": (tf.MistralForCausalLM, tf.MistralConfig(**ROPE, sliding_window=4), "text-generation-with-past"),
    "gemma": (tf.GemmaForCausalLM, tf.GemmaConfig(**ROPE, head_dim=D), "text-generation-with-past"),
    "phi": (tf.PhiForCausalLM, tf.PhiConfig(**COMMON, pad_token_id=0, bos_token_id=1, eos_token_id=2, partial_rotary_factor=0.5), "text-generation-with-past"),
    "phi3": (tf.Phi3ForCausalLM, tf.Phi3Config(**ROPE), "text-generation-with-past"),
    "gpt-neo": (tf.GPTNeoForCausalLM, tf.GPTNeoConfig(vocab_size=V, hidden_size=W, num_layers=L, num_heads=H, attention_types=[[["global", "local"], 1]], window_size=4, max_position_embeddings=64), "text-generation-with-past"),
    "gpt-neox": (tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig(**COMMON, rotary_pct=0.5), "text-generation-with-past"),
    "gptj": (tf.GPTJForCausalLM, tf.GPTJConfig(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64, rotary_dim=4), "text-generation-with-past"),
    "bloom": (tf.BloomForCausalLM, tf.BloomConfig(vocab_size=V, hidden_size=W, n_layer=L, n_head=H), "text-generation-with-past"),
    "opt": (tf.OPTForCausalLM, tf.OPTConfig(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=W), "text-generation-with-past"),
    "falcon": (tf.FalconForCausalLM, tf.FalconConfig(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, new_decoder_architecture=False, multi_query=True, alibi=False), "text-generation-with-past"),
    "t5": (tf.T5ForConditionalGeneration, tf.T5Config(**T5), "text2text-generation-with-past"),
    "bart": (tf.BartForConditionalGeneration, tf.BartConfig(**BART), "text2text-generation-with-past"),
    "marian": (tf.MarianMTModel, tf.MarianConfig(**BART, decoder_vocab_size=V), "text2text-generation-with-past"),
    "whisper": (tf.WhisperForConditionalGeneration, tf.WhisperConfig(**WHISPER), "automatic-speech-recognition-with-past"),
}
SHAPES = [(2, 4, 3), (1, 1, 6), (3, 2, 5)]


def make(name):
    model_class, config, _ = MODELS[name]
    torch.manual_seed(0)
    return model_class(config).eval()


class Case:
    """One file with the sizes of one data set."""

    def __init__(self, model, inputs, outputs, sizes, cached):
        self.model, self.inputs, self.outputs, self.cached = model, inputs, outputs, cached
        (self.batch, self.length, past), self.past = sizes, 0
        if any(name.startswith("past_key_values") for name in inputs) and cached:
            self.past = past

    def tensor(self, info):
        name, b, s, p = info.name, self.batch, self.length, self.past
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        if name in ("input_ids", "decoder_input_ids"):
            return torch.randint(3, V, (b, s))
        if name in ("attention_mask", "encoder_attention_mask"):
            length = E if name.startswith("encoder") else p + s
            mask = torch.ones(b, length, dtype=torch.long)
            decodes = p > 0 or any(n.startswith("past") for n in self.inputs)
            if length > 3:
                mask[1::2, slice(0, 2) if decodes else slice(-2, None)] = 0
            return mask
        if name == "token_type_ids":
            return torch.randint(0, 2, (b, s))
        if name == "position_ids":
            return None  # of the mask
        if name == "cache_position":
            return torch.arange(p, p + s)
        if name == "use_cache_branch":
            return torch.tensor([self.cached])
        if name == "encoder_hidden_states":
            return torch.randn(b, dims[1] or E, W)
        if name.startswith("past_key_values"):
            length = p if ".encoder." not in name else (E if self.cached else 0)
            if ".encoder." in name and self.cached and dims[2]:
                length = dims[2]
            return torch.randn(b, dims[1] or H, length, dims[3] or D)
        shape = {"pixel_values": (b, 3, 16, 16), "input_values": (b, 80 + 20 * s), "input_features": (b, 8, 3000)}[name]
        return torch.randn(*shape)

    def feeds(self, infos):
        feeds = {info.name: self.tensor(info) for info in infos}
        if "position_ids" in feeds:
            positions = (feeds["attention_mask"].cumsum(-1) - 1).clamp(0)
            feeds["position_ids"] = positions[:, -self.length:].contiguous()
        return feeds

    def truth(self, feeds):
        """By name, what PyTorch gives."""
        if self.outputs == ["last_hidden_state"] and self.model.config.is_encoder_decoder:
            return dict(self.model.get_encoder()(**feeds))
        past = {n: x for n, x in feeds.items() if n.startswith("past_key_values")}
        pairs = lambda part: [(past[f"past_key_values.{i}.{part}key"], past[f"past_key_values.{i}.{part}value"]) for i in range(L)]
        if not self.model.config.is_encoder_decoder:
            rest = {n: x for n, x in feeds.items() if n not in past}
            if past:
                rest["past_key_values"] = DynamicCache.from_legacy_cache(pairs(""))
            output = self.model(**rest)
            named = dict(output)
            if past:
                named |= {f"present.{i}.{k}": getattr(layer, k + "s") for i, layer in enumerate(output.past_key_values.layers) for k in ("key", "value")}
            return named
        cache = None
        if past and self.cached:
            cache = EncoderDecoderCache(DynamicCache.from_legacy_cache(pairs("decoder.")), DynamicCache.from_legacy_cache(pairs("encoder.")))
        hidden = feeds.get("encoder_hidden_states", torch.zeros(self.batch, E, W))
        options = {"attention_mask": feeds["encoder_attention_mask"]} if "encoder_attention_mask" in feeds else {}
        ids = feeds.get("input_ids", feeds.get("decoder_input_ids"))
        output = self.model(decoder_input_ids=ids, encoder_outputs=(hidden,), past_key_values=cache, use_cache=True, **options)
        named = {"logits": output.logits}
        for part, layers in (("decoder", output.past_key_values.self_attention_cache.layers), ("encoder", output.past_key_values.cross_attention_cache.layers)):
            if part == "encoder" and self.cached:
                continue
            named |= {f"present.{i}.{part}.{k}": getattr(layer, k + "s") for i, layer in enumerate(layers) for k in ("key", "value")}
        return named


def write(folder, file, name):
    model = onnx.load(file, load_external_data=False)
    inputs, outputs = [i.name for i in model.graph.input], [o.name for o in model.graph.output]
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(file.read_bytes())
    truth = make(name)
    for number, sizes in enumerate(SHAPES):
        branches = "use_cache_branch" in inputs
        case = Case(truth, inputs, outputs, sizes, cached=number != 1 if branches else True)
        feeds = case.feeds(model.graph.input)
        with torch.no_grad():
            named = case.truth(dict(feeds))
        target = folder / f"test_data_set_{number}"
        target.mkdir()
        for prefix, names, tensors in (("input", inputs, feeds), ("output", outputs, named)):
            for index, tensor_name in enumerate(names):
                if tensor_name not in tensors:
                    continue
                array = numpy.ascontiguousarray(tensors[tensor_name].numpy())
                (target / f"{prefix}_{index}.pb").write_bytes(numpy_helper.from_array(array, tensor_name).SerializeToString())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for name, (_, _, task) in MODELS.items():
        if options.only and name not in options.only.split(","):
            continue
        try:
            with tempfile.TemporaryDirectory() as scratch:
                onnx_export_from_model(make(name), scratch, task=task, do_validation=False)
                for file in sorted(pathlib.Path(scratch).glob("*.onnx")):
                    opset = onnx.load(file, load_external_data=False).opset_import[0].version
                    part = file.stem.replace("_model", "").replace("model", "").replace("_", "-")
                    label = "-".join(x for x in (name, part, "optimum", str(opset), "sdpa") if x)
                    write(options.out / label, file, name)
                    print(label, flush=True)
        except Exception as error:  # noqa: BLE001 (what cannot be exported is recorded, not fatal)
            print(f"{name}: not exported: {type(error).__name__}: {str(error)[:200]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
