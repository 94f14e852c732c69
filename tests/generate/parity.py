#!/usr/bin/env python3
"""Random generation configurations through transformers.generate and through `weft generate`: tokens exactly, scores to 1e-4.

    python parity.py --weft PATH --work FOLDER [--draws 1000] [--models gpt2,t5] [--strategies greedy,beam] [--seed 0] [--record FILE]

The models are made and exported into FOLDER the first time (transformers 5). Diverse beam search needs transformers 4.56, the last with it.
Sampling is compared draw by draw: torch.multinomial is replaced by weft's random numbers. A draw is discarded, before weft is asked, when
transformers had to choose between two candidates closer than 1e-4, or refuses the configuration.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import random
import sys
import warnings

import numpy as np
import torch
import transformers

import parity_models as models
from parity_compare import ask, equal

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
TIE = 1e-4
STRATEGIES = ["greedy", "beam", "sample", "beam-sample", "prompt-lookup", "lookup-sample", "assistant", "group-beam"]


# --- weft's random numbers ----------------------------------------------------------------------------------------------


def philox(key, counters):
    """Four arrays of 32-bit words from counters, four arrays; see runtime/generate/distribution.h."""
    c = [np.asarray(x, dtype=np.uint64) for x in np.broadcast_arrays(*counters)]
    k = [key & 0xffffffff, key >> 32]
    low = np.uint64(0xffffffff)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xd2511f53), c[2] * np.uint64(0xcd9e8d57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), a & low]
        k = [(k[0] + 0x9e3779b9) & 0xffffffff, (k[1] + 0xbb67ae85) & 0xffffffff]
    return c


def uniform(seed, stream, row, step, index):
    words = philox(seed, (index, step, row, stream))
    bits = (words[0] << np.uint64(32) | words[1]) >> np.uint64(12)
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


class Watch:
    """Within it torch.multinomial draws as weft does, and choices that were close are noticed."""

    def __init__(self, seed, stream, start, vocabulary):
        self.seed, self.stream, self.length, self.vocabulary, self.close = seed, stream, start, vocabulary, False

    def __enter__(self):
        self.kept = torch.multinomial, torch.topk, torch.argmax
        torch.multinomial, torch.topk, torch.argmax = self.multinomial, self.topk, self.argmax
        return self

    def __exit__(self, *unused):
        torch.multinomial, torch.topk, torch.argmax = self.kept

    def near(self, values):
        """Adjacent values of a sorted row."""
        if int(torch.isposinf(values).sum()) > 1:
            self.close = True
        values = values[torch.isfinite(values) & (values > -1e8)]
        if len(values) > 1 and bool(((values[:-1] - values[1:]).abs() < TIE).any()):
            self.close = True

    def topk(self, x, k, *rest, **options):
        if x.is_floating_point():
            for row in x.reshape(-1, x.shape[-1]):
                values = torch.sort(row, descending=True)[0]
                if x.shape[-1] == self.vocabulary:
                    self.near(values[k - 1:k + 1])  # a warper: only its border counts
                else:
                    self.near(values[:k + 1])
                    if x.shape[-1] > 200 and bool(((values[:k] < -1e8) & torch.isfinite(values[:k])).any()):
                        self.close = True  # beams that are not there yet
        return self.kept[1](x, k, *rest, **options)

    def argmax(self, x, *rest, **options):
        if x.is_floating_point() and x.dim() > 0:
            for row in x.reshape(-1, x.shape[-1]):
                self.near(torch.sort(row, descending=True)[0][:2])
        return self.kept[2](x, *rest, **options)

    def multinomial(self, probabilities, num_samples, **unused):
        self.length += 1
        table = probabilities.double().numpy()
        if num_samples == 1:
            picked = []
            for row, p in enumerate(table):
                passed = np.cumsum(p)
                target = uniform(self.seed, self.stream, row, self.length - 1, 0) * passed[-1]
                index = int(np.searchsorted(passed, target, side="right"))
                if min(abs(passed[index] - target), abs(passed[index - 1] - target) if index else 1) < TIE / 10:
                    self.close = True
                picked.append([index])
            return torch.tensor(picked)
        u = uniform(self.seed, self.stream, 0, self.length - 1, np.arange(table.shape[1]))
        with np.errstate(divide="ignore"):
            keys = np.log(table[0]) - np.log(-np.log(u))
        keys[table[0] < 1e-30] = -np.inf
        order = np.argsort(-keys, kind="stable")
        if not np.isfinite(keys[order[num_samples - 1]]) or keys[order[num_samples - 1]] - keys[order[num_samples]] < TIE:
            self.close = True
        return torch.tensor(order[:num_samples][None])


class OwnContinuations:
    """Guidance of beams: transformers takes what was last written in a beam's place for what the beam without its prompt has read, whichever beam
    has moved there; this is what the beam itself has written."""

    def __enter__(self):
        kind = transformers.generation.logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor
        self.kind, self.before = kind, kind.get_unconditional_logits

        def unconditional(processor, input_ids):
            if processor.unconditional_context["first_pass"]:
                processor.unconditional_context |= {"first_pass": False, "from": input_ids.shape[1] - 1}
            ids = input_ids[:, processor.unconditional_context["from"]:]
            return processor.model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        kind.get_unconditional_logits = unconditional

    def __exit__(self, *unused):
        self.kind.get_unconditional_logits = self.before


# --- Drawing configurations ---------------------------------------------------------------------------------------------


def draw(rng, strategy, encoder_decoder, prompts):
    pick = lambda *values: rng.choice(values)
    token = lambda: rng.randrange(3, models.VOCABULARY)
    options = {"max_new_tokens": rng.randint(1, 12)}
    if rng.random() < 0.15:
        options = {"max_length": rng.randint(max(map(len, prompts)) + 1, max(map(len, prompts)) + 10)}
    space = {
        "min_new_tokens": lambda: rng.randint(1, 10), "min_length": lambda: rng.randint(1, 14),
        "repetition_penalty": lambda: pick(0.7, 1.2, 1.6, 2.5), "encoder_repetition_penalty": lambda: pick(0.8, 1.3, 1.7),
        "no_repeat_ngram_size": lambda: rng.randint(1, 3), "encoder_no_repeat_ngram_size": lambda: rng.randint(1, 3),
        "bad_words_ids": lambda: [[token() for _ in range(rng.randint(1, 2))] for _ in range(rng.randint(1, 20))],
        "suppress_tokens": lambda: [token() for _ in range(rng.randint(1, 40))],
        "begin_suppress_tokens": lambda: [token() for _ in range(rng.randint(1, 60))],
        "sequence_bias": lambda: [[[token() for _ in range(rng.randint(1, 2))], round(rng.uniform(-6, 6), 2)] for _ in range(rng.randint(1, 20))],
        "forced_bos_token_id": token, "forced_eos_token_id": lambda: pick(2, 2, [2, 7], token()),
        "exponential_decay_length_penalty": lambda: [rng.randint(0, 6), round(rng.uniform(1.0, 2.0), 2)],
        "eos_token_id": lambda: [2] + [token() for _ in range(rng.randint(1, 6))],
        "renormalize_logits": lambda: True, "remove_invalid_values": lambda: True,
        "stop_strings": lambda: [chr(rng.randrange(97, 123)) for _ in range(rng.randint(1, 8))] + ["ab"],
    }
    if not encoder_decoder and strategy in ("greedy", "sample", "beam", "beam-sample"):
        space["guidance_scale"] = lambda: pick(1.5, 0.5, 3.0)
    if "sample" in strategy:
        space["forced_eos_token_id"] = lambda: pick(2, token())  # of two none is better, and warpers drop either
        options |= {"do_sample": True, "seed": rng.randrange(1 << 40), "top_k": pick(0, 10, 50)}
        space |= {"temperature": lambda: pick(0.6, 1.4, 3.0), "top_p": lambda: pick(0.5, 0.9, 0.97), "min_p": lambda: pick(0.01, 0.1),
                  "typical_p": lambda: pick(0.4, 0.9), "epsilon_cutoff": lambda: pick(0.001, 0.02), "eta_cutoff": lambda: pick(0.001, 0.02)}
    if strategy == "sample":
        space["num_return_sequences"] = lambda: rng.randint(2, 4)
    if "beam" in strategy:
        options["num_beams"] = rng.randint(2, 6)
        space |= {"length_penalty": lambda: pick(-1.0, 0.0, 0.5, 1.7), "early_stopping": lambda: pick(True, "never"),
                  "num_return_sequences": lambda: rng.randint(2, options["num_beams"])}
    if strategy == "group-beam":
        options["num_beams"] = pick(4, 6)
        options |= {"num_beam_groups": pick(2, options["num_beams"]) if options["num_beams"] == 4 else pick(2, 3), "diversity_penalty": pick(0.5, 2.0)}
        # transformers 4.56 adds an end token to what stop_strings stopped, penalizes the source for the first beam of a group only, and takes
        # a max_length of 20 for none.
        del space["stop_strings"], space["encoder_repetition_penalty"]
        if options.get("max_length") == 20:
            options["max_length"] = 21
    for name, value in space.items():
        if rng.random() < 0.16:
            options[name] = value()
    return options


def truth(model, tokenizer, prompt, stream, options, encoder_decoder):
    """What transformers returns, or why the draw is discarded."""
    settings = {**models.SPECIAL, **{k: v for k, v in options.items() if k not in ("seed", "stop_strings")}}
    if encoder_decoder:
        settings["decoder_start_token_id"] = model.config.decoder_start_token_id
    if "sequence_bias" in settings:  # as a mapping: a second bias of the same sequence replaces the first
        settings["sequence_bias"] = [[list(k), v] for k, v in {tuple(k): v for k, v in settings["sequence_bias"]}.items()]
        options["sequence_bias"] = settings["sequence_bias"]
    # With a cache, transformers 5 loses the unconditional one.
    settings["use_cache"] = "guidance_scale" not in options and not isinstance(model, models.Transformer)
    start = 1 if encoder_decoder else len(prompt)
    extra = {"stop_strings": options["stop_strings"], "tokenizer": tokenizer} if "stop_strings" in options else {}
    own = OwnContinuations() if options.get("num_beams", 1) > 1 else contextlib.nullcontext()
    with torch.no_grad(), own, Watch(options.get("seed", 0), stream, start, models.VOCABULARY) as watch:
        try:
            config = transformers.GenerationConfig(**settings)
            result = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), generation_config=config,
                                    return_dict_in_generate=True, output_scores=True, **extra)
        except (ValueError, RuntimeError, IndexError) as error:
            return f"refused: {type(error).__name__} {str(error)[:80]}"
    if watch.close:
        return "close"
    scores = result.sequences_scores.tolist() if options.get("num_beams", 1) > 1 else []
    if any(bool(torch.isnan(step).any()) for step in result.scores):  # an end token decayed and forbidden at once
        return "refused: NaN"
    if options.get("num_beam_groups", 1) > 1:  # the end token that is written at the end has none
        return {"sequences": result.sequences.tolist(), "scores": scores, "steps": [], "start": start}
    steps = model.compute_transition_scores(result.sequences, result.scores, getattr(result, "beam_indices", None))
    return {"sequences": result.sequences.tolist(), "scores": scores, "steps": steps.tolist(), "start": start}


def compare(arguments, name, strategy, number, counts, record):
    rng = random.Random(f"{arguments.seed} {name} {strategy} {number}")
    encoder_decoder = name.removesuffix("-small") in models.ENCODER_DECODER
    prompts = [[rng.randrange(3, models.VOCABULARY) for _ in range(rng.choice([1, 2, 3, 5, 8, 12]))] for _ in range(3)]
    if "lookup" in strategy:
        prompts = [prompt * 3 for prompt in prompts]
    options = draw(rng, strategy, encoder_decoder, prompts)
    folder = arguments.work / name
    expected = [truth(arguments.loaded[name], arguments.tokenizer, prompt, i, options, encoder_decoder) for i, prompt in enumerate(prompts)]
    cell = counts[name, strategy]
    discarded = [e for e in expected if isinstance(e, str)]
    if any(e.startswith("refused") for e in discarded):
        cell["refused"] += 1
        return
    cell["close"] += len(discarded)
    if len(discarded) == len(prompts):
        cell["discarded"] += 1
        return
    cell["configurations"] += 1
    extra = []
    asked = dict(options)
    if "lookup" in strategy:
        asked["prompt_lookup_num_tokens"] = rng.randint(1, 5)
    if strategy == "assistant":
        extra = ["--assistant", str(arguments.work / f"{name.removesuffix('-small')}-small")]
        asked["num_assistant_tokens"] = rng.randint(1, 5)
    actual = ask(arguments.weft, folder, asked, prompts, rng.choice([1, 2, 3]), extra)
    if isinstance(actual, str):
        cell["mismatches"] += 1
        print(f"{name} {strategy} {number}: {options}\n  {actual}", flush=True)
        return
    for prompt, a, e in zip(prompts, actual, expected):
        if isinstance(e, str):
            continue
        cell["prompts"] += 1
        if equal(a, e, options):
            continue
        cell["mismatches"] += 1
        print(f"{name} {strategy} {number}: {options} {prompt}\n  {a['sequences']} {a['scores']} {[t['scores'] for t in a['tokens']]}\n"
              f"  expected\n  {e['sequences']} {e['scores']} {e['steps']}", flush=True)
    if record is not None and number < arguments.record_each:
        lines = [{"input_ids": p, **({"discarded": True} if isinstance(e, str) else e)} for p, e in zip(prompts, expected)]
        record.write(json.dumps({"model": name, "strategy": strategy, "options": asked, "prompts": lines}) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weft", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--models", default=",".join(models.DECODER_ONLY + models.ENCODER_DECODER))
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--seed", default="0")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--record", type=pathlib.Path)
    parser.add_argument("--record-each", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    old = int(transformers.__version__.split(".")[0]) < 5
    names = arguments.models.split(",")
    strategies = [s for s in arguments.strategies.split(",") if (s == "group-beam") == old]
    for name in names + [f"{n.removesuffix('-small')}-small" for n in names]:
        if not (arguments.work / name / "config.json").exists():
            models.export(name, arguments.work / name)
    arguments.loaded = {name: models.load(name, arguments.work / name) for name in names}
    arguments.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(arguments.work / names[0] / "tokenizer.json"))
    counts = collections.defaultdict(collections.Counter)
    record = arguments.record.open("a") if arguments.record else None
    each = -(-arguments.draws // (len(names) * len(strategies)))
    for number in range(arguments.first, arguments.first + each):
        for strategy in strategies:
            for name in names:
                compare(arguments, name, strategy, number, counts, record)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    total = collections.Counter()
    for (name, strategy), cell in sorted(counts.items()):
        total += cell
        print(f"| {name} | {strategy} | {cell['configurations']} | {cell['prompts']} | {cell['close']} | {cell['refused']} | {cell['mismatches']} |")
    print(f"| all | | {total['configurations']} | {total['prompts']} | {total['close']} | {total['refused']} | {total['mismatches']} |")
    if arguments.json:
        arguments.json.write_text(json.dumps([{"model": n, "strategy": s, **c} for (n, s), c in sorted(counts.items())]))
    sys.exit(total["mismatches"] > 0)


if __name__ == "__main__":
    main()
