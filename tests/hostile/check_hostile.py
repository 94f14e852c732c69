#!/usr/bin/env python3
"""Hostile and broken model files: each must be answered with exactly the error of expected.json, within bounded time and memory.

    python check_hostile.py --weft PATH [--record] [--only PREFIX] [--keep FOLDER]

The files are written anew each time, one for each class (files.py, operators.py); names that end in "runs" are odd but in order and must
run. --record writes expected.json, to be read before it is committed. --keep leaves the files in FOLDER.
"""
import argparse
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile

import files
import operators

# Time is the processor's, so that a busy machine changes nothing.
SECONDS, ADDRESS_SPACE, LONGEST_ANSWER = 20, 6 << 30, 2000
# They fill what they are allowed before they end.
GROWING = ("bomb-loop-doubles", "bomb-loop-stacks")


def bounded():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def answer(weft, path, *options):
    command = [weft, "run", path.name, "--random", "N=2", "--threads", "1", *options]
    run = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, preexec_fn=bounded, errors="replace", check=False)
    if -run.returncode in (signal.SIGXCPU, signal.SIGKILL):
        return f"NO ANSWER within {SECONDS} s"
    if run.returncode == 0:
        return "runs"
    text = run.stderr.strip()
    if run.returncode != 1:
        return f"EXIT CODE {run.returncode}: {(text + run.stdout)[-300:]}"
    return text if len(text) <= LONGEST_ANSWER else f"AN ANSWER of {len(text)} characters"


def lay_out(scratch):
    """The folder of the models, with what external data may try to reach."""
    folder = scratch / "model"
    (folder / "inner").mkdir(parents=True)
    (scratch / "secret").write_bytes(b"\0" * 64)
    (folder / "data").write_bytes(b"\0" * 12)
    (folder / "link").symlink_to("../secret")
    (folder / "outside").symlink_to("..")
    (folder / "zero").symlink_to("/dev/zero")
    os.link(folder / "data", folder / "hardlink")
    os.mkfifo(folder / "pipe")
    return folder


def answers_of(weft, scratch, only):
    folder = lay_out(scratch)
    answers = {}
    for name, data in [*files.files(), *operators.operators()]:
        if not name.startswith(only):
            continue
        if name in answers:
            raise RuntimeError(f"two files are called {name}")
        (folder / f"{name}.onnx").write_bytes(data)
        options = ["--max-memory", "128MB"] if name in GROWING else []
        answers[name] = answer(weft, folder / f"{name}.onnx", *options).replace(str(folder.resolve()), "FOLDER")
    # The cache of Hugging Face: a model and its data are links to files beside each other elsewhere.
    blobs, snapshot = scratch / "blobs", scratch / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1f").write_bytes(files.external_weight("model.onnx_data"))
    (blobs / "2e").write_bytes(b"\0" * 12)
    (snapshot / "model.onnx").symlink_to("../../blobs/1f")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/2e")
    answers["external-in-cache-runs"] = answer(weft, snapshot / "model.onnx")
    # A limit of memory of one's own, on what the default lets pass.
    (folder / "bomb-limited.onnx").write_bytes(operators.one("ConstantOfShape", ["s"], [operators.int64s("s", [1 << 20])]))
    answers["bomb-limited"] = answer(weft, folder / "bomb-limited.onnx", "--max-memory", "1MB")
    return answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weft", required=True)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    expected_path = pathlib.Path(__file__).parent / "expected.json"
    weft = str(pathlib.Path(arguments.weft).resolve())
    if arguments.keep:
        answers = answers_of(weft, arguments.keep, arguments.only)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            answers = answers_of(weft, pathlib.Path(scratch), arguments.only)
    if arguments.record:
        expected_path.write_text(json.dumps(answers, indent=1) + "\n")
    expected = json.loads(expected_path.read_text())
    names = [name for name in {**expected, **answers} if name in answers or not arguments.only]
    wrong = [name for name in names if answers.get(name) != expected.get(name) or (answers.get(name) == "runs") != name.endswith(("runs", "run"))]
    for name in wrong:
        print(f"{name}:\n  {answers.get(name)}\n  expected\n  {expected.get(name)}")
    print(f"{len(names) - len(wrong)} of {len(names)} files answered as expected")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
