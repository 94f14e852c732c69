#!/usr/bin/env python3
"""weft beside other runtimes on the same files: every competitor of a workload is loaded, then they take turns, one measurement each,
round after round, so that whatever disturbs the machine disturbs all.

    compare.py run --models DIR --weft PATH --results FILE.jsonl [--python PEER=PYTHON]... [--workload REGEX] [--size REGEX] [--peer REGEX]
                   [--rounds 5] [--isa avx2]
    compare.py load --models DIR --weft PATH --results FILE.jsonl [--python PEER=PYTHON]...
    compare.py report --results FILE.jsonl

Needs nothing itself; each peer needs the Python that has it (ort, ct2, ov, genai, optimum). DIR holds onnx/NAME.EXPORTER.onnx (encoders,
dynamo decoders), optimum/NAME/ (decoders with past, translation), ct2/NAME-float32, ov/NAME-fp32, genai/NAME-fp32; competitors whose files
or Python are missing are left out. --isa avx2 holds weft, CTranslate2 and OpenVINO to AVX2 (ONNX Runtime cannot be held). Ratios are a peer's time by weft's on the file of the same row: above 1, weft is faster.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
ENCODER_SIZES = ("1x16", "1x128", "8x128", "1x512")
DECODER_SIZES = ("1x128", "1x512", "1x1024", "8x128")

Workload = collections.namedtuple("Workload", "kind sizes beams competitors")
NEW_TOKENS = 64  # of a translation
WEFT_ARGUMENTS = {"encoder": [], "decoder": ["--new-tokens", "33"], "translation": ["--new-tokens", str(NEW_TOKENS)]}


ISA_VARIABLES = ("CT2_FORCE_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def encoder(name):
    files = {exporter: f"onnx/{name}.{exporter}.onnx" for exporter in ("ts", "dynamo", "eager")}
    competitors = {f"{peer}-{exporter}": (peer, path) for exporter, path in files.items() for peer in ("weft", "ort")}
    return Workload("encoder", ENCODER_SIZES, 1, {
        **competitors, "ct2": ("ct2", f"ct2/{name}-float32"), "ov": ("ov", files["ts"])})


def decoder(name, sizes=DECODER_SIZES, beams=1):
    both = {} if beams > 1 else {
        "weft-dynamo": ("weft", f"onnx/{name}.dynamo.onnx"), "ort-dynamo": ("ort", f"onnx/{name}.dynamo.onnx"),
        "ort-optimum": ("ort", f"optimum/{name}/model.onnx"), "ov": ("ov", f"ov/{name}-fp32/openvino_model.xml")}
    return Workload("decoder", sizes, beams, {
        "weft-optimum": ("weft", f"optimum/{name}"), **both, "ct2": ("ct2", f"ct2/{name}-float32"), "genai": ("genai", f"genai/{name}-fp32")})


def translation(name):
    return Workload("translation", ("1x64", "8x64"), 4, {
        "weft-optimum": ("weft", f"optimum/{name}"), "ort-optimum": ("optimum", f"optimum/{name}"), "ct2": ("ct2", f"ct2/{name}-float32")})


WORKLOADS = {
    "minilm": encoder("minilm"), "bert": encoder("bert"), "gpt2": decoder("gpt2"), "llama": decoder("llama"),
    "gpt2-beam4": decoder("gpt2", ("1x128", "1x512"), 4), "t5": translation("t5"), "marian": translation("marian"),
}


def weft_command(options, workload, path):
    command = [str(options.weft), "bench", str(path), "--threads", str(options.threads), "--serve", *WEFT_ARGUMENTS[workload.kind]]
    command += ["--isa", options.isa] if options.isa else []
    for size in workload.sizes:
        batch, length = size.split("x")
        if workload.kind == "encoder":
            command += ["--random", ",".join(f"{name}={(batch, length)[axis]}" for name, axis in dimensions(options, path))]
        else:
            command += ["--prompt-length", size]
    return command + (["--num-beams", str(workload.beams)] if workload.beams > 1 else [])


def dimensions(options, path):
    """(symbol, axis) of every input [batch, sequence]."""
    text = subprocess.run([str(options.weft), "dump", "--stage", "imported", str(path)], capture_output=True, text=True, check=True).stdout
    shapes = re.findall(r": \w+\[([^\]]*)\]", text.splitlines()[0].partition("->")[0])
    return sorted({(name.strip(), axis) for shape in shapes for axis, name in enumerate(shape.split(",")) if not name.strip().isdigit()})


class Competitor:
    def __init__(self, label, peer, path, workload, options):
        self.label, self.peer = label, peer
        if peer == "weft":
            command = weft_command(options, workload, path)
        else:
            command = [options.python[peer], str(HERE / "peers.py"), peer, workload.kind, str(path), "--sizes", ",".join(workload.sizes),
                       "--threads", str(options.threads), "--beams", str(workload.beams), "--new-tokens", str(NEW_TOKENS)]
        environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads), MKL_NUM_THREADS=str(options.threads), HF_HUB_OFFLINE="1")
        if options.isa:
            environment |= {variable: options.isa.upper() for variable in ISA_VARIABLES}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=environment)
        self.ready = self.answer()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return None

    def measure(self, index):
        self.process.stdin.write(f"{index}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        last = self.answer() or {}
        error = self.process.stderr.read()
        self.process.wait()
        return last.get("peak_rss_mb"), error


def record(options, **row):
    row["when"] = time.strftime("%Y-%m-%d %H:%M")
    with open(options.results, "a") as file:
        file.write(json.dumps(row) + "\n")


def run_workload(name, workload, options):
    competitors = []
    for label, (peer, path) in workload.competitors.items():
        path = options.models / path
        if not path.exists() or not re.search(options.peer, label) or (peer != "weft" and peer not in options.python):
            continue
        competitor = Competitor(label, peer, path, workload, options)
        if competitor.ready is None:
            print(f"{name}: {label} did not start: {competitor.end()[1].strip().splitlines()[-1:]}", flush=True)
            continue
        competitors.append(competitor)
    for index, size in enumerate(workload.sizes):
        samples = collections.defaultdict(list)
        for _ in range(options.rounds):
            for competitor in competitors:
                answer = competitor.measure(index) or {}
                if workload.kind == "translation" and competitor.peer == "weft":
                    answer = {"total": answer["prefill"] + answer["decode"] * (NEW_TOKENS - 1)}
                for phase, ms in answer.items():
                    samples[competitor.label, phase].append(ms)
        for (label, phase), values in samples.items():
            record(options, workload=name, size=size, phase=phase, peer=label, min=min(values), median=statistics.median(values), samples=values)
            print(f"{name} {size} {phase} {label}: median {statistics.median(values):.2f} min {min(values):.2f}", flush=True)
    for competitor in competitors:
        peak, _ = competitor.end()
        record(options, workload=name, peer=competitor.label, peak_rss_mb=peak, load_ms=competitor.ready.get("load_ms"))


LOADS = {
    "ort": ("onnxruntime", """
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = threads, 3
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
session.run(None, {i.name: given(i.name, i.shape) for i in session.get_inputs()})
"""),
    "ov": ("openvino", """
model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
model({i.any_name: given(i.any_name, [None if d.is_dynamic else d.get_length() for d in i.partial_shape]) for i in model.inputs})
""")}
LOAD = """
import sys, time, json
import numpy as np
import {module}
start = time.perf_counter()
path, threads = sys.argv[1], int(sys.argv[2])
def given(name, shape):
    return np.zeros((1, shape[1], 0, shape[3]), np.float32) if name.startswith("past") else np.ones((1, 16), np.int64)
{load}
ms = (time.perf_counter() - start) * 1e3
peak = [l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1]
print(json.dumps(dict(first_result_ms=ms, peak_rss_mb=int(peak) / 1024)))
"""


def run_load(options):
    """From the start of loading to the first result (a prompt of 16 tokens), each in a process of its own, in turns."""
    folder = options.models / "optimum/gpt2"
    commands = {"weft": [str(options.weft), "bench", str(folder), "--prompt-length", "16", "--new-tokens", "1", "--first", "--threads", str(options.threads)]}
    if options.packed:
        commands["weft, packed"] = commands["weft"] + ["--packed", str(options.packed)]
    for peer in LOADS.keys() & options.python.keys():
        module, load = LOADS[peer]
        script = LOAD.format(module=module, load=load)
        commands[peer] = [options.python[peer], "-c", script, str(folder / "model.onnx"), str(options.threads)]
    results = collections.defaultdict(list)
    for _ in range(options.rounds):
        for label, command in commands.items():
            lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
            results[label] += [json.loads(line) for line in lines if line.startswith("{")]
    for label, answers in results.items():
        for key in ("first_result_ms", "peak_rss_mb"):
            values = [answer[key] for answer in answers]
            if values:
                record(options, workload="load", size="gpt2", phase=key, peer=label, min=min(values), median=statistics.median(values), samples=values)
                print(f"load {label} {key}: median {statistics.median(values):.1f} min {min(values):.1f}", flush=True)


def report(options):
    newest = {}
    for line in open(options.results):
        row = json.loads(line)
        newest[row["workload"], row.get("size"), row.get("phase"), row["peer"]] = row
    cases = list(dict.fromkeys(key[:3] for key in newest if key[2]))
    print("| workload | weft, ms | " + "peers: ms, ratio of medians (of minima) |\n| --- | --- | --- |")
    for case in cases:
        rows = {key[3]: row for key, row in newest.items() if key[:3] == case}
        ours = {label: row for label, row in rows.items() if label.startswith("weft")}
        if not ours:
            continue
        best = min(ours, key=lambda label: ours[label]["median"])
        cells = []
        for label, row in sorted(rows.items(), key=lambda item: item[1]["median"]):
            if label.startswith("weft"):
                continue
            same = ours.get("weft-" + label.partition("-")[2], ours[best])  # on the same file, where there is one
            cells.append(f"{label} {row['median']:.4g} ×{row['median'] / same['median']:.2f} ({row['min'] / same['min']:.2f})")
        mine = ", ".join(f"{label.partition('-')[2] or label} {row['median']:.4g} ({row['min']:.4g})" for label, row in ours.items())
        print(f"| {' '.join(case)} | {mine} | {'; '.join(cells)} |")
    print("\n| workload | peak RSS, MB |\n| --- | --- |")
    for workload in dict.fromkeys(key[0] for key in newest if not key[2]):
        peaks = [f"{key[3]} {row['peak_rss_mb']:.0f}" for key, row in newest.items() if key[0] == workload and row.get("peak_rss_mb") and not key[2]]
        print(f"| {workload} | {', '.join(peaks)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "load", "report"))
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--weft", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PYTHON")
    parser.add_argument("--workload", default="", help="regular expression")
    parser.add_argument("--size", default="", help="regular expression over BATCHxLENGTH")
    parser.add_argument("--peer", default="", help="regular expression over labels")
    parser.add_argument("--packed", type=pathlib.Path, help="load: also with this packed file")
    parser.add_argument("--isa", default="", help="the newest instruction set to use: sse2, avx2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.python = dict(entry.split("=", 1) for entry in options.python)
    if options.action == "report":
        return report(options)
    if options.models is None or options.weft is None:
        sys.exit("compare.py: --models and --weft are needed")
    options.weft = options.weft.resolve()
    if options.action == "load":
        return run_load(options)
    for name, workload in WORKLOADS.items():
        sizes = [size for size in workload.sizes if re.search(options.size, size)]
        if re.search(options.workload, name) and sizes:
            run_workload(name, workload._replace(sizes=sizes), options)


if __name__ == "__main__":
    main()
