#!/usr/bin/env python3
"""Four beams, all returned: `weft generate` beside transformers.generate, which runs the same encoder_model.onnx and decoder_model.onnx with
ONNX Runtime and without caches.

    python beside_transformers.py --weft PATH FOLDER... [--prompts 50] [--show 1]
"""

import argparse
import json
import pathlib
import random

import numpy as np
import onnxruntime
import tokenizers
import torch
import transformers
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from parity_compare import ask

OPTIONS = {"num_beams": 4, "num_return_sequences": 4}


class Config(transformers.PretrainedConfig):
    model_type = "exported"


class Exported(transformers.PreTrainedModel, transformers.GenerationMixin):
    config_class = Config
    main_input_name = "input_ids"

    def __init__(self, config, folder):
        super().__init__(config)
        session = lambda name: onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        self.encoder_file, self.decoder_file = session("encoder_model.onnx"), session("decoder_model.onnx")
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def get_encoder(self, *unused):
        outer = self

        class Encoder(torch.nn.Module):
            main_input_name = "input_ids"

            def forward(self, input_ids, attention_mask=None, **unused):
                states = outer.encoder_file.run(None, {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})[0]
                return BaseModelOutput(last_hidden_state=torch.tensor(states))

        return Encoder()

    def forward(self, attention_mask=None, decoder_input_ids=None, encoder_outputs=None, **unused):
        feeds = {"input_ids": decoder_input_ids.numpy(), "encoder_attention_mask": attention_mask.numpy(),
                 "encoder_hidden_states": encoder_outputs[0].numpy()}
        return Seq2SeqLMOutput(logits=torch.tensor(self.decoder_file.run(["logits"], feeds)[0]))

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, encoder_outputs=None, **unused):
        return {"decoder_input_ids": input_ids, "attention_mask": attention_mask, "encoder_outputs": encoder_outputs}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weft", required=True)
    parser.add_argument("folders", type=pathlib.Path, nargs="+")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--show", type=int, default=1)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    for folder in arguments.folders:
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        ids = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k in names}
        model = Exported(Config(is_encoder_decoder=True, **ids), folder)
        if (folder / "heldout.tsv").exists():
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            lines = (folder / "heldout.tsv").read_text().splitlines()[:arguments.prompts]
            prompts = [tokenizer.encode(line.split("\t")[0]).ids for line in lines]
        else:
            rng = random.Random(1)
            prompts = [[rng.randrange(3, 99) for _ in range(rng.randint(1, 15))] for _ in range(arguments.prompts)]
        ours = ask(arguments.weft, folder, {**OPTIONS, "max_new_tokens": 12}, prompts, 8)
        equal, difference = 0, 0.0
        for number, (prompt, a) in enumerate(zip(prompts, ours, strict=True)):
            with torch.no_grad():
                e = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=12,
                                   use_cache=False, return_dict_in_generate=True, output_scores=True, **OPTIONS, **ids)
            scores = np.abs(np.array(a["scores"]) - e.sequences_scores.numpy())
            equal += all(x == y[:len(x)] and set(y[len(x):]) <= {0, ids["eos_token_id"]} for x, y in zip(a["sequences"], e.sequences.tolist()))
            difference = max(difference, scores.max())
            if number < arguments.show:
                for x, s, y, t in zip(a["sequences"], a["scores"], e.sequences.tolist(), e.sequences_scores.tolist()):
                    print(f"  weft {s:.6f} {x}\n  transf. {t:.6f} {y}")
        print(f"{folder.name}: {equal} of {len(prompts)} prompts equal, scores differ by at most {difference:.1e}", flush=True)


if __name__ == "__main__":
    main()
