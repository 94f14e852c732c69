#!/usr/bin/env python3
"""The seeds of the fuzzers: of ONNX's node tests the smallest model of each operator, and the hostile files that are small.

    python make_corpus.py [--cache DIR]

The node tests are those that scripts/conformance has fetched.
"""
import argparse
import importlib.machinery
import importlib.util
import os
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LARGEST = 2000
sys.path.insert(0, str(ROOT / "tests/hostile"))


def conformance():
    loader = importlib.machinery.SourceFileLoader("conformance", str(ROOT / "scripts/conformance"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("conformance", loader))
    loader.exec_module(module)
    return module


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(os.environ.get("WEFT_CACHE_DIR", pathlib.Path.home() / ".cache/weft")) / "conformance")
    cache = parser.parse_args().cache
    runner = conformance()
    out = HERE / "corpus"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    smallest = {}
    for folder in sorted(runner.fetch(runner.NEWEST, cache).iterdir()):
        model = folder / "model.onnx"
        if not model.exists() or model.stat().st_size > LARGEST:
            continue
        ops, _ = runner.describe(model.read_bytes())
        key = ("expanded " if "_expanded" in folder.name else "") + (ops[-1] if ops else "")
        if key not in smallest or model.stat().st_size < smallest[key].stat().st_size:
            smallest[key] = model
    for key, model in smallest.items():
        if not key.startswith("expanded "):
            shutil.copyfile(model, out / f"{key}.onnx")
    import files  # pylint: disable=import-outside-toplevel
    import operators  # pylint: disable=import-outside-toplevel
    for name, data in [*files.files(), *operators.operators()]:
        if 0 < len(data) <= 600:
            (out / f"hostile-{name}.onnx").write_bytes(data)
    print(f"{len(list(out.iterdir()))} files")


if __name__ == "__main__":
    main()
