#!/usr/bin/env python3
"""Exports seeded GPT-2 and T5 models for generation and records what transformers.generate returns for 20 prompts each, prompt by
prompt: greedy, and with four beams (sequences and scores).

    python make_generate.py [--out FOLDER]
"""

import argparse
import json
import pathlib
import sys
import tempfile

import onnx
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "exports"))
import make_exports as exports  # noqa: E402

HERE = pathlib.Path(__file__).parent
VOCABULARY, PROMPTS = exports.VOCABULARY, 20


def spread(model, scale):
    """Weights large enough that no two tokens are nearly as good as each other."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=scale)
    return model.eval()


def save(module, inputs, input_names, output_names, axes, path):
    with tempfile.TemporaryDirectory() as scratch:
        temporary = str(pathlib.Path(scratch) / "model.onnx")
        with torch.no_grad():
            exports.export(module, inputs, input_names, output_names, axes, "torchscript", 17, temporary)
        model = onnx.load(temporary)
    exports.strip(model, keep_metadata=False)
    onnx.save(model, path)


def names(prefix, kind):
    return [f"{prefix}.{i}{kind}.{k}" for i in range(exports.LAYERS) for k in ("key", "value")]


def record(model, prompts, folder, settings):
    """prompts.jsonl, generation_config.json, greedy.jsonl, beam4.jsonl"""
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"input_ids": p}) + "\n" for p in prompts))
    (folder / "generation_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    for label, extra in (("greedy", {}), ("beam4", {"num_beams": 4, "num_return_sequences": 2})):
        lines = []
        for prompt in prompts:
            with torch.no_grad():
                result = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                                        return_dict_in_generate=True, output_scores=True, **settings, **extra)
            sequences = []
            for row in result.sequences.tolist():
                start = len(prompt) if not model.config.is_encoder_decoder else 1
                ends = [i for i, token in enumerate(row) if i >= start and token == settings["eos_token_id"]]
                sequences.append(row[:ends[0] + 1] if ends else row)
            line = {"sequences": sequences, "scores": result.sequences_scores.tolist() if label == "beam4" else []}
            lines.append(json.dumps(line) + "\n")
        (folder / f"{label}.jsonl").write_text("".join(lines))


CONFIGS = [
    {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 8}, {"min_length": 12}, {"max_new_tokens": 1},
    {"bad_words_ids": [[5], [7, 8]]}, {"suppress_tokens": list(range(10, 40))}, {"begin_suppress_tokens": list(range(3, 60))},
    {"forced_bos_token_id": 9}, {"forced_eos_token_id": 2}, {"exponential_decay_length_penalty": [3, 1.5]},
    {"sequence_bias": [[[10], 5.0], [[11, 12], -4.0]]}, {"eos_token_id": [2, 17, 23, 31, 40]},
    {"renormalize_logits": True, "remove_invalid_values": True}, {"encoder_repetition_penalty": 1.5}, {"encoder_no_repeat_ngram_size": 2},
    {"num_beams": 3, "length_penalty": 0.5}, {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": -1.0}, {"num_beams": 4, "early_stopping": "never", "length_penalty": 1.5},
    {"num_beams": 5, "num_return_sequences": 5, "no_repeat_ngram_size": 2}, {"num_beams": 2, "repetition_penalty": 1.4, "min_new_tokens": 5},
    {"num_beams": 3, "num_return_sequences": 3, "eos_token_id": [2, 17, 23, 31, 40]}, {"num_beams": 4, "exponential_decay_length_penalty": [2, 1.3]},
    {"num_beams": 4, "max_new_tokens": 1}, {"num_beams": 3, "bad_words_ids": [[5], [7, 8]], "renormalize_logits": True},
    {"num_beams": 4, "forced_eos_token_id": 2, "max_new_tokens": 6}, {"num_beams": 3, "sequence_bias": [[[10], 5.0], [[11, 12], -4.0]]},
]


def record_configs(model, prompts, folder, settings):
    """configs.jsonl: options of generation_config.json and what they give for some prompts."""
    lines = []
    for options in CONFIGS:
        for prompt in prompts[1:20:4]:
            merged = {**settings, **options}
            config = transformers.GenerationConfig(**merged, do_sample=False)
            with torch.no_grad():
                result = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                        generation_config=config, return_dict_in_generate=True, output_scores=True)
            ends_with = merged["eos_token_id"] if isinstance(merged["eos_token_id"], list) else [merged["eos_token_id"]]
            sequences = []
            for row in result.sequences.tolist():
                start = len(prompt) if not model.config.is_encoder_decoder else 1
                ends = [i for i, token in enumerate(row) if i >= start and token in ends_with]
                sequences.append(row[:ends[0] + 1] if ends else row)
            scores = result.sequences_scores.tolist() if options.get("num_beams", 1) > 1 else []
            lines.append(json.dumps({"options": options, "input_ids": prompt, "sequences": sequences, "scores": scores}) + "\n")
    (folder / "configs.jsonl").write_text("".join(lines))


def gpt2(out):
    torch.manual_seed(5)
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=exports.WIDTH, n_layer=exports.LAYERS, n_head=exports.HEADS, n_positions=64,
                                     bos_token_id=1, eos_token_id=2)
    model = spread(transformers.GPT2LMHeadModel(config), 0.35)
    out.mkdir(parents=True, exist_ok=True)
    past, present = names("past_key_values", ""), names("present", "")
    text = {0: "batch_size", 1: "sequence_length"}
    axes = {"input_ids": text, "attention_mask": {0: "batch_size", 1: "past_sequence_length + sequence_length"},
            **{p: {0: "batch_size", 2: "past_sequence_length"} for p in past}}
    inputs = exports.decoder_inputs(exports.HEADS)(2, 5, 3)
    save(exports.CausalDecoder(model).eval(), inputs, ["input_ids", "attention_mask", *past], ["logits", *present], axes, out / "model.onnx")
    prompts = [torch.randint(3, VOCABULARY, (1 + i % 7,)).tolist() for i in range(PROMPTS)]
    settings = {"max_new_tokens": 20, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1}
    record(model, prompts, out, settings)
    record_configs(model, prompts, out, settings)


def t5(out):
    torch.manual_seed(6)
    config = transformers.T5Config(vocab_size=VOCABULARY, d_model=exports.WIDTH, d_kv=exports.SIZE, d_ff=64, num_layers=exports.LAYERS,
                                   num_heads=exports.HEADS, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    model = spread(transformers.T5ForConditionalGeneration(config), 0.4)
    out.mkdir(parents=True, exist_ok=True)
    own, cross = names("past_key_values", ".decoder"), names("past_key_values", ".encoder")
    new_own, new_cross = names("present", ".decoder"), names("present", ".encoder")
    text, encoded = {0: "batch_size", 1: "sequence_length"}, {0: "batch_size", 1: "encoder_sequence_length"}
    save(exports.T5Encoder(model).eval(), (exports.ids(2, 5), exports.padded_mask(2, 5)), ["input_ids", "attention_mask"], ["last_hidden_state"],
         {"input_ids": text, "attention_mask": text}, out / "encoder_model.onnx")
    save(exports.T5Decoder(model).eval(), (exports.ids(2, 4), exports.padded_mask(2, 5), torch.randn(2, 5, exports.WIDTH)),
         ["input_ids", "encoder_attention_mask", "encoder_hidden_states"], ["logits", *new_own, *new_cross],
         {"input_ids": text, "encoder_attention_mask": encoded, "encoder_hidden_states": encoded}, out / "decoder_model.onnx")
    caches = lambda n: [torch.randn(2, exports.HEADS, n, exports.SIZE) for _ in range(2 * exports.LAYERS)]
    axes = {"input_ids": text, "encoder_attention_mask": encoded, **{p: {0: "batch_size", 2: "past_sequence_length"} for p in own},
            **{p: {0: "batch_size", 2: "encoder_sequence_length"} for p in cross}}
    save(exports.T5DecoderWithPast(model).eval(), (exports.ids(2, 1), exports.padded_mask(2, 5), *caches(3), *caches(5)),
         ["input_ids", "encoder_attention_mask", *own, *cross], ["logits", *new_own], axes, out / "decoder_with_past_model.onnx")
    (out / "config.json").write_text(json.dumps({"is_encoder_decoder": True, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}, indent=1) + "\n")
    prompts = [torch.randint(2, VOCABULARY, (1 + i % 9,)).tolist() for i in range(PROMPTS)]
    settings = {"max_new_tokens": 20, "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0}
    record(model, prompts, out, settings)
    record_configs(model, prompts, out, settings)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    arguments = parser.parse_args()
    gpt2(arguments.out / "gpt2")
    t5(arguments.out / "t5")


if __name__ == "__main__":
    main()
