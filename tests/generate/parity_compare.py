#!/usr/bin/env python3
"""`weft generate` beside recorded results of transformers.generate, configuration by configuration. Needs nothing but Python.

    python parity_compare.py --weft PATH FOLDER     # FOLDER/cases.jsonl and a folder for each model, see parity.py --record
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

TOLERANCE = 1e-4


def equal(actual, expected, options):
    """Sequences but for padding; scores of sequences and of tokens."""
    fills = {0, options.get("eos_token_id", [2])[0]}
    if len(actual["sequences"]) != len(expected["sequences"]) or len(actual["scores"]) != len(expected["scores"]):
        return False
    near = lambda x, y: x == y or (x is not None and y is not None and abs(x - y) <= TOLERANCE * max(1, abs(y)))
    for i, (ours, theirs) in enumerate(zip(actual["sequences"], expected["sequences"])):
        if ours != theirs[:len(ours)] or not set(theirs[len(ours):]) <= fills:
            return False
        if options.get("num_beam_groups", 1) > 1:
            continue  # the end token is written later there, without a score
        steps = expected["steps"][i][:len(ours) - expected["start"]]
        given = [-float("inf") if x is None else x for x in actual["tokens"][i]["scores"]]
        if len(steps) != len(given) or not all(near(x, y) for x, y in zip(given, steps)):
            return False
    return all(near(x, y) for x, y in zip(actual["scores"], expected["scores"]))


def ask(weft, folder, options, prompts, batch, extra=()):
    """One result a prompt, or the error's text."""
    with tempfile.TemporaryDirectory() as scratch:
        lines, config = pathlib.Path(scratch) / "prompts.jsonl", pathlib.Path(scratch) / "config.json"
        lines.write_text("".join(json.dumps({"input_ids": prompt}) + "\n" for prompt in prompts))
        config.write_text(json.dumps({**options, "output_scores": True}))
        run = subprocess.run([weft, "generate", folder, "--ids-file", lines, "--config", config, "--json", "--threads", "1",
                              "--batch-size", str(batch), *extra], capture_output=True, text=True)
    if run.returncode:
        return run.stderr.strip()
    return [json.loads(line) for line in run.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weft", required=True)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    cases = [json.loads(line) for line in (arguments.folder / "cases.jsonl").read_text().splitlines()]
    wrong = 0
    for case in cases:
        extra = ["--assistant", str(arguments.folder / case["model"])] if case["strategy"] == "assistant" else []
        actual = ask(arguments.weft, arguments.folder / case["model"], case["options"], [p["input_ids"] for p in case["prompts"]], 3, extra)
        same = not isinstance(actual, str) and all(
            p.get("discarded") or equal(a, p, case["options"]) for a, p in zip(actual, case["prompts"], strict=True))
        if not same:
            wrong += 1
            print(f"{case['model']} {case['strategy']} {case['options']}:\n  {actual}\n  expected\n  {case['prompts']}")
    print(f"{len(cases) - wrong} of {len(cases)} configurations equal")
    sys.exit(wrong > 0 or not cases)


if __name__ == "__main__":
    main()
