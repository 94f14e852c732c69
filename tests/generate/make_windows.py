#!/usr/bin/env python3
"""Decoders with sliding windows of 16 tokens, in every layer (Mistral) and in one of two (Gemma 3), with what transformers generates from
prompts shorter and longer than the window, over many windows.

    python make_windows.py [--out FOLDER]
"""
import argparse
import json
import pathlib
import sys
import warnings

import torch
import transformers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "exports"))
import make_exports as exports  # noqa: E402
import make_generate  # noqa: E402
from parity_models import Causal, spread  # noqa: E402

warnings.filterwarnings("ignore")
V, WIDTH, HEADS, KEY_HEADS, SIZE, WINDOW, NEW = 67, 32, 4, 2, 8, 16, 240
COMMON = dict(vocab_size=V, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS,
              head_dim=SIZE, max_position_embeddings=512, sliding_window=WINDOW, pad_token_id=0, bos_token_id=1, eos_token_id=None)


def build(name):
    if name == "mistral-window":
        return spread(transformers.MistralForCausalLM(transformers.MistralConfig(**COMMON)), 0.3, 5)
    config = transformers.Gemma3TextConfig(layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=SIZE, **COMMON)
    return spread(transformers.Gemma3ForCausalLM(config), 0.3, 6)


def export(model, folder):
    names = lambda prefix: [f"{prefix}.{i}.{k}" for i in range(2) for k in ("key", "value")]
    pasts, presents = names("past_key_values"), names("present")
    axes = {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "past + sequence"}, **{p: {0: "batch", 2: "past"} for p in pasts}}
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, 0] = 0
    place = torch.tensor([[3, 4, 5, 6, 7]] * 2)
    caches = [torch.randn(2, KEY_HEADS, 3, SIZE) for _ in range(4)]
    axes["position_ids"] = axes["input_ids"]
    with torch.no_grad():
        make_generate.save(Causal(model, 2, True).eval(), (torch.randint(3, V, (2, 5)), mask, place, *caches),
                           ["input_ids", "attention_mask", "position_ids", *pasts], ["logits", *presents], axes, folder / "model.onnx")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    out = parser.parse_args().out
    for name in ("mistral-window", "gemma3-window"):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = build(name)
        export(model, folder)
        prompts = [torch.randint(3, V, (n,)).tolist() for n in (5, 16, 70)]
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"input_ids": p}) + "\n" for p in prompts))
        (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": NEW, "pad_token_id": 0, "bos_token_id": 1}) + "\n")
        for strategy, options in (("greedy", {}), ("beam4", {"num_beams": 4, "num_return_sequences": 2})):
            with open(folder / f"{strategy}.jsonl", "w") as file:
                for prompt in prompts:
                    result = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, return_dict_in_generate=True, output_scores=True, **options)
                    scores = result.sequences_scores.tolist() if options else []
                    file.write(json.dumps({"sequences": result.sequences.tolist(), "scores": scores}) + "\n")


if __name__ == "__main__":
    main()
