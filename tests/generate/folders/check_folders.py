#!/usr/bin/env python3
"""A folder of each kind generates the expected tokens with no option but its path; each folder that cannot be decided has its own error.

    python check_folders.py --weft PATH [--record]

--record writes broken.json, to be read before it is committed.
"""
import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
# What settles a folder that cannot be decided.
SETTLED = {"two-inputs-may-be-tokens": ["--io", "a=input_ids", "--io", "b=attention_mask"], "two-logits": ["--io", "z=logits"],
           "something-beside-tokens": ["--io", "what=attention_mask"]}


def generate(weft, folder, *options):
    return subprocess.run([weft, "generate", str(folder), "--json", *options], capture_output=True, text=True, check=False)


def kinds(weft):
    for folder in sorted((HERE / "kinds").iterdir()):
        run = generate(weft, folder, "--ids-file", str(folder / "prompts.jsonl"))
        if run.returncode:
            yield f"{folder.name}: {run.stderr.strip()}"
            continue
        expected = json.loads((folder / "expected.json").read_text())
        actual = [json.loads(line)["sequences"][0] for line in run.stdout.splitlines()]
        if actual != expected:
            yield f"{folder.name}:\n  {actual}\n  expected\n  {expected}"


def batches(weft):
    """Beams of all prompts together are those of each alone: features, sources of different lengths, one file or several."""
    for folder in sorted((HERE / "kinds").iterdir()):
        runs = [generate(weft, folder, "--ids-file", str(folder / "prompts.jsonl"), "--num-beams", "3", "--num-return-sequences", "2", "--batch-size", size)
                for size in ("1", "8")]
        if any(run.returncode for run in runs) or runs[0].stdout == "":
            yield f"{folder.name}, beams: {runs[0].stderr}{runs[1].stderr}"
            continue
        alone, together = ([json.loads(line) for line in run.stdout.splitlines()] for run in runs)
        close = all(abs(x - y) < 1e-4 for a, b in zip(alone, together) for x, y in zip(a["scores"], b["scores"]))
        if [a["sequences"] for a in alone] != [b["sequences"] for b in together] or not close:
            yield f"{folder.name}, beams: alone and together differ"


def answers(weft):
    (HERE / "broken" / "empty").mkdir(exist_ok=True)
    prompts = HERE / "kinds" / "past" / "prompts.jsonl"
    for folder in sorted((HERE / "broken").iterdir()):
        run = generate(weft, folder, "--ids-file", str(prompts), "--max-new-tokens", "2")
        yield folder.name, "generates" if run.returncode == 0 else run.stderr.strip().replace(str(HERE), "HERE")
        if folder.name in SETTLED:
            run = generate(weft, folder, "--ids-file", str(prompts), "--max-new-tokens", "2", *SETTLED[folder.name])
            yield f"{folder.name}, settled", "generates" if run.returncode == 0 else run.stderr.strip().replace(str(HERE), "HERE")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weft", required=True)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    problems = [*kinds(arguments.weft), *batches(arguments.weft)]
    given = dict(answers(arguments.weft))
    path = HERE / "broken.json"
    if arguments.record:
        path.write_text(json.dumps(given, indent=1) + "\n")
    expected = json.loads(path.read_text())
    for name in {**expected, **given}:
        if given.get(name) != expected.get(name):
            problems.append(f"{name}:\n  {given.get(name)}\n  expected\n  {expected.get(name)}")
        elif (given[name] == "generates") != name.endswith(", settled"):
            problems.append(f"{name}: {given[name]}")
    print("\n".join(problems))
    print(f"{len(list((HERE / 'kinds').iterdir()))} kinds, {len(expected)} that cannot be decided, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
