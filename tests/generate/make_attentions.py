#!/usr/bin/env python3
"""Records the attention weights that PyTorch has for sequences of tests/generate/gpt2 and t5: attentions.jsonl in each folder. The models are
those of make_generate.py, made again from their seeds.

    python make_attentions.py
"""
import json
import pathlib

import make_generate
import torch
import transformers

HERE = pathlib.Path(__file__).parent
PROMPTS = (0, 4, 8)  # of lengths 1, 5 and, for T5, 9


def caught(make):
    """The model that a function of make_generate makes, before it is exported."""

    class Made(Exception):
        pass

    spread = make_generate.spread

    def stop(model, scale):
        raise Made(spread(model, scale))

    make_generate.spread = stop
    try:
        make(pathlib.Path())
    except Made as made:
        model = made.args[0]
    make_generate.spread = spread
    model.set_attn_implementation("eager")
    return model


def numbers(layers):
    return [[[[round(x, 6) for x in row] for row in head] for head in layer[0].tolist()] for layer in layers]


def record(name, model):
    folder = HERE / name
    prompts = [json.loads(line)["input_ids"] for line in (folder / "prompts.jsonl").read_text().splitlines()]
    lines = []
    for number in PROMPTS:
        line = {"input_ids": prompts[number]}
        settings = {**json.loads((folder / "generation_config.json").read_text()), "max_new_tokens": 5}
        with torch.no_grad():
            source = torch.tensor([prompts[number]])
            sequence = model.generate(source, attention_mask=torch.ones_like(source), do_sample=False, **settings)
            if model.config.is_encoder_decoder:
                result = model(input_ids=source, decoder_input_ids=sequence, output_attentions=True)
                kinds = ("encoder_attentions", "decoder_attentions", "cross_attentions")
            else:
                result = model(input_ids=sequence, output_attentions=True)
                kinds = ("attentions",)
        line["sequence"] = sequence[0].tolist()
        for kind in kinds:
            line[kind] = numbers(result[kind])
        lines.append(json.dumps(line) + "\n")
    (folder / "attentions.jsonl").write_text("".join(lines))


def main():
    transformers.logging.set_verbosity_error()
    record("gpt2", caught(make_generate.gpt2))
    record("t5", caught(make_generate.t5))


if __name__ == "__main__":
    main()
