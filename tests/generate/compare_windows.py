#!/usr/bin/env python3
"""Decoders with sliding windows keep the windows of these layers and no more, however they decode: within a limit on the bytes of caches that
whole ones would pass, they give the tokens that transformers recorded (make_windows.py). Needs nothing but Python.

    python compare_windows.py --weft PATH FOLDER...
"""
import argparse
import json
import pathlib
import subprocess
import sys

WINDOW, BLOCK, TAKEN_BACK, LAYER_BLOCK = 16, 8, 64, 2 * 2 * 8 * 8 * 4  # keys and values of 2 heads of 8, f32


def blocks(tokens):
    return (tokens + BLOCK - 1) // BLOCK


def generate(weft, folder, limit, *options):
    command = [weft, "generate", folder, "--ids-file", folder / "prompts.jsonl", "--json", "--max-cache", limit, *options]
    run = subprocess.run([str(x) for x in command], capture_output=True, text=True)
    results = None if run.returncode else [json.loads(line) for line in run.stdout.splitlines()]
    return results, run.stderr


def check(weft, folder):
    expected = {s: [json.loads(line)["sequences"] for line in (folder / f"{s}.jsonl").read_text().splitlines()] for s in ("greedy", "beam4")}
    longest = max(len(s) for sequences in expected["greedy"] for s in sequences)
    prompt = max(len(json.loads(line)["input_ids"]) for line in (folder / "prompts.jsonl").read_text().splitlines())
    windowed = 2 if folder.name.startswith("mistral") else 1
    # What lies before the window goes two blocks at a time, one behind the last that is still read.
    kept = max(blocks(WINDOW + TAKEN_BACK) + 3, blocks(prompt))
    bytes_of = lambda rows, guessed=0: LAYER_BLOCK * rows * (windowed * (kept + blocks(guessed)) + (2 - windowed) * blocks(longest))
    whole = LAYER_BLOCK * 2 * blocks(longest)
    print(f"{folder.name}: {longest} tokens, limit {bytes_of(1)} bytes, whole caches {whole}")
    for name, limit, options in (
            ("greedy", bytes_of(1), ["--batch-size", 1]),
            ("greedy", bytes_of(3), ["--batch-size", 3]),
            ("greedy", bytes_of(1, TAKEN_BACK), ["--prompt-lookup-num-tokens", 100]),
            ("greedy", 2 * bytes_of(1, TAKEN_BACK), ["--assistant", folder, "--num-assistant-tokens", 100]),
            ("beam4", bytes_of(4), ["--num-beams", 4, "--num-return-sequences", 2, "--batch-size", 1])):
        results, error = generate(weft, folder, limit, *options)
        if results is None:
            yield f"{folder.name} {options}: {error}"
        elif [r["sequences"] for r in results] != expected[name]:
            yield f"{folder.name} {options}: other tokens"
    if generate(weft, folder, bytes_of(1) - 2 * LAYER_BLOCK * windowed * 3, "--batch-size", 1)[0] is not None:
        yield f"{folder.name}: the limit is not reached"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weft", required=True)
    parser.add_argument("folders", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()
    problems = [p for folder in arguments.folders for p in check(arguments.weft, folder)]
    print("\n".join(problems))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
