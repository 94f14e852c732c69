#!/usr/bin/env python3
"""What users of the command meet: exit codes, messages, files. Usage: command_test.py WEFT REPOSITORY"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

WEFT, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
BERT = ROOT / "tests/exports/fixtures/bert-sdpa-torchscript-17/model.onnx"
LLAMA = ROOT / "tests/exports/fixtures/llama-eager-dynamo-20/model.onnx"
BLOCKED = ROOT / "tests/explain/blocked.onnx"
SIZES = "batch=2,sequence=5"


def weft(*arguments):
    run = subprocess.run([WEFT, *map(str, arguments)], capture_output=True, text=True)
    return run.returncode, run.stdout, run.stderr


class Command(unittest.TestCase):
    def test_help_is_everywhere(self):
        for command in ([], ["run"], ["test"], ["dump"], ["explain"], ["compare"], ["optimize"], ["generate"], ["bench"]):
            code, out, _ = weft(*command, "--help")
            self.assertEqual(code, 0)
            self.assertIn("--help", out)

    def test_usage_errors_are_2_and_others_1(self):
        self.assertEqual(weft()[0], 2)
        self.assertEqual(weft("run")[0], 2)
        self.assertEqual(weft("run", BERT, "--no-such-option")[0], 2)
        code, out, error = weft("run", "missing.onnx")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("missing.onnx", error)

    def test_run_writes_what_it_read(self):
        with tempfile.TemporaryDirectory() as folder:
            first, second = pathlib.Path(folder) / "a.npz", pathlib.Path(folder) / "b.npz"
            code, out, error = weft("run", BERT, "--random", SIZES, "--seed", 3, "--output", first)
            self.assertEqual(code, 0, error)
            self.assertIn("last_hidden_state: f32[2, 5, 32]", out)
            again = weft("run", BERT, "--random", SIZES, "--seed", 3, "--output", second, "--threads", 1)
            self.assertEqual(again[1], out)
            with zipfile.ZipFile(first) as a, zipfile.ZipFile(second) as b:
                self.assertEqual({name: a.read(name) for name in a.namelist()}, {name: b.read(name) for name in b.namelist()})
            code, _, error = weft("run", BERT, "--inputs", first)
            self.assertEqual(code, 1)
            self.assertIn("no input \"last_hidden_state\"", error)

    def test_random_names_what_is_missing(self):
        code, _, error = weft("run", BERT, "--random", "batch=2")
        self.assertEqual(code, 1)
        self.assertIn("sequence", error)

    def test_dump_has_stages(self):
        imported = weft("dump", BERT, "--stage", "imported")[1]
        optimized = weft("dump", BERT)[1]
        self.assertIn("Softmax(", imported)
        self.assertNotIn("Softmax(", optimized)
        self.assertIn("Attention(", optimized)
        self.assertEqual(weft("dump", BERT, "--stage", "wrong")[0], 1)

    def test_explain_counts_and_gives_reasons(self):
        report = json.loads(weft("explain", BERT, "--json")[1])
        self.assertEqual(report["attention"], {"cores": 2, "fused": 2})
        self.assertEqual(report["softmax_left"], 0)
        self.assertGreater(report["ops_before"], report["ops_after"])
        names = [rule["name"] for rule in report["rules"]]
        self.assertIn("fuse-attention", names)
        plain = json.loads(weft("explain", BERT, "--json", "--passes", "none")[1])
        self.assertEqual(plain["attention"], {"cores": 2, "fused": 0})

    def test_explain_gives_node_reason_and_line_of_what_is_blocked(self):
        code, out, error = weft("explain", BLOCKED, "--require", "attention,norms,qkv", "--json")
        self.assertEqual(code, 1)
        for line in ("attention: 1 not fused", "norms: 1 not fused", "qkv: 2 not fused"):
            self.assertIn(line, error)
        sites = [s for s in json.loads(out)["sites"] if s["result"] == "not_fused"]
        bent, norm, exported, waiting = sites
        self.assertEqual((bent["kind"], bent["node"]), ("attention", "node_softmax_1"))
        self.assertEqual(bent["near_miss"]["node"], "node_relu")
        self.assertRegex(bent["near_miss"]["source"], r"make_blocked\.py:\d+ in forward")
        self.assertIn("Relu found", bent["near_miss"]["reason"])
        self.assertEqual(norm["kind"], "norms")
        self.assertIn("epsilon is not a known number but graph input \"epsilon\"", norm["near_miss"]["reason"])
        self.assertIn("a projection is an output of the graph", exported["near_miss"]["reason"])
        self.assertIn("not fused", waiting["reason"])
        text = weft("explain", BLOCKED)
        self.assertEqual(text[0], 0)
        self.assertIn("NOT FUSED  node_softmax_1  make_blocked.py:", text[1])

    def test_explain_requires_nothing_of_what_fuses(self):
        self.assertEqual(weft("explain", BERT, "--require", "attention,norms,qkv")[0], 0)
        self.assertEqual(weft("explain", BERT, "--require", "attention", "--passes", "none")[0], 1)
        self.assertEqual(weft("explain", LLAMA, "--require", "rotary")[0], 0)
        code, out, _ = weft("explain", LLAMA, "--require", "rotary", "--passes", "none")
        self.assertEqual(code, 1)
        self.assertIn("rotary     0 of 4 fused", out)
        self.assertEqual(weft("explain", BERT, "--require", "attentions")[0], 1)

    def test_explain_says_what_becomes_of_caches(self):
        kinds = ROOT / "tests/generate/folders/kinds"
        for path, count in ((kinds / "merged/decoder_model_merged.onnx", 4), (kinds / "past-stacked/model.onnx", 2)):
            code, out, _ = weft("explain", path, "--require", "caches", "--json")
            self.assertEqual(code, 0)
            self.assertEqual(json.loads(out)["caches"], {"inputs": count, "states": count})
        self.assertIn("  state      k0\n             state %past_key_values.0 f32[",
                      weft("explain", kinds / "names-of-its-own/decoder-of-mine.onnx")[1])
        code, out, error = weft("explain", kinds / "past-time-first/model.onnx", "--passes", "none", "--require", "caches")
        self.assertEqual(code, 1)
        self.assertIn("--require caches: 4 no states", error)
        self.assertRegex(out, r"NO STATE   past_key_values.0.key\n +lift-cache-states stopped after \d nodes at .*\n"
                              r" +found:  MatMul\(.*\n +reason: Attention, .* MatMul found")
        broken = ROOT / "tests/generate/folders/broken"
        self.assertIn("does not come out again", weft("explain", broken / "cache-does-not-come-out/model.onnx")[1])
        self.assertNotIn("caches", weft("explain", BERT)[1])

    def test_trace_passes_writes_a_graph_for_each_rewrite(self):
        with tempfile.TemporaryDirectory() as folder:
            for command in (["explain", BERT], ["run", BERT, "--random", SIZES],
                            ["optimize", BERT, "-o", pathlib.Path(folder) / "o.onnx"]):
                trace = pathlib.Path(folder) / command[0]
                self.assertEqual(weft(*command, "--trace-passes", trace)[0], 0)
                files = sorted(trace.iterdir())
                self.assertGreater(len(files), 10)
                fused = [f for f in files if f.name.endswith("-fuse-attention.txt")]
                self.assertEqual(len(fused), 2)
                self.assertEqual(fused[1].read_text().count(" = Attention("), 2)

    def test_compare_tells_outputs_apart(self):
        code, out, _ = weft("compare", BERT, "--random", SIZES)
        self.assertEqual(code, 0)
        self.assertIn("ok       last_hidden_state: ", out)
        with tempfile.TemporaryDirectory() as folder:
            prefix = pathlib.Path(folder) / "part"
            code, out, _ = weft("compare", BERT, "--random", SIZES, "--tolerance", 1e-9, "-o", prefix)
            self.assertEqual(code, 1)
            self.assertIn("DIFFERS  last_hidden_state", out)
            # What was written shows it again.
            again = weft("compare", f"{prefix}.onnx", "--inputs", f"{prefix}.npz", "--tolerance", 1e-9, "-o", prefix)
            self.assertEqual(again[0], 1)

    def test_optimize_has_targets(self):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder) / "optimized.onnx"
            self.assertEqual(weft("optimize", BERT, "-o", target, "--target", "standard", "--external-data")[0], 0)
            self.assertTrue(target.with_suffix(".onnx.data").exists())
            self.assertEqual(weft("explain", target, "--require", "attention,norms,qkv")[0], 0)
            self.assertEqual(weft("optimize", BERT, "-o", target, "--target", "tensorrt")[0], 1)

    def test_pass_names_are_suggested(self):
        code, _, error = weft("explain", BERT, "--passes", "fuse-attentoin")
        self.assertEqual(code, 1)
        self.assertIn("did you mean \"fuse-attention\"", error)

    def test_optimize_explains_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder) / "optimized.onnx"
            self.assertEqual(weft("optimize", BERT, "-o", target)[0], 0)
            keys = ("attention", "norms", "qkv", "softmax_left", "ops_after")
            before, after = (json.loads(weft("explain", path, "--json")[1]) for path in (BERT, target))
            self.assertEqual([before[k] for k in keys], [after[k] for k in keys])

    def test_generate_answers_the_misspelled(self):
        dates = ROOT / "models/dates"
        code, out, _ = weft("generate", dates, "--text", "the 3rd of March, 2024", "--num-beams", 4)
        self.assertEqual((code, out.strip()), (0, "2024-03-03"))
        code, _, error = weft("generate", dates, "--text", "x", "--num-beam", 4)
        self.assertEqual(code, 1)
        self.assertIn("did you mean \"num_beams\"", error)
        line = json.loads(weft("generate", dates, "--text", "1.2.2003", "--json", "--num-beams=2")[1])
        self.assertEqual(line["texts"], ["2003-02-01"])
        self.assertEqual(len(line["scores"]), 1)

    def test_generate_keeps_to_limits(self):
        for kind in ("past", "past-stacked"):  # caches that are states, and others
            folder = ROOT / "tests/generate/folders/kinds" / kind
            command = ("generate", folder, "--ids-file", folder / "prompts.jsonl", "--batch-size", 1)
            self.assertEqual(weft(*command, "--max-cache", "16KB", "--max-memory", "4MB")[0], 0)
            code, out, error = weft(*command, "--max-cache", "1KB")
            self.assertEqual((code, out), (1, ""))
            self.assertRegex(error, r"invalid_argument: keys and values would take \d+ bytes more than the \d+ that they have; the limit is 1024")
            self.assertEqual(weft(*command, "--max-memory", "1KB")[0], 1)

    def test_caches_of_halves_take_half_the_memory(self):
        folder = ROOT / "tests/generate/gpt2"
        command = ("generate", folder, "--ids-file", folder / "prompts.jsonl", "--json")
        f32 = weft(*command)[1]
        self.assertEqual(weft(*command, "--cache-dtype", "f16")[1], f32)
        for dtype, *extra in (("f16", "--num-beams", 3), ("f16", "--prompt-lookup-num-tokens", 4), ("bf16",)):
            runs = [weft(*command, "--cache-dtype", dtype, *extra, "--batch-size", size, "--threads", threads) for size, threads in ((8, 1), (8, 3), (1, 2))]
            self.assertEqual([run[0] for run in runs], [0, 0, 0])
            self.assertEqual(runs[0], runs[1])
            sequences = [[json.loads(line)["sequences"] for line in run[1].splitlines()] for run in runs]
            self.assertEqual(sequences[0], sequences[2])
        peaks = [json.loads(weft("bench", folder, "--prompt-length", 8, "--new-tokens", 2, "--repeat", 1, "--json", *dtype)[1])["workloads"][0]["cache"]["peak_bytes"]
                 for dtype in ((), ("--cache-dtype", "f16"), ("--cache-dtype", "bf16"))]
        self.assertEqual(peaks[0], 2 * peaks[1])
        self.assertEqual(peaks[1], peaks[2])
        self.assertEqual(weft(*command, "--cache-dtype", "f8")[0], 2)

    def test_generate_knows_how_many_positions_there_are(self):
        # Tables of 64 rows: looked up by position_ids, by a mask that is counted, by lengths with caches and without.
        for kind in ("past", "no-past-mask-positions", "genai-names", "past-without-positions", "no-past", "past-buffer"):
            folder = ROOT / "tests/generate/folders/kinds" / kind
            with tempfile.TemporaryDirectory() as scratch:
                prompts = pathlib.Path(scratch) / "prompts.jsonl"
                for length, new, fits in ((60, 5, True), (60, 6, False), (64, 1, True), (65, 1, False)):
                    prompts.write_text(json.dumps({"input_ids": [5] * length}))
                    code, _, error = weft("generate", folder, "--ids-file", prompts, "--max-new-tokens", new)
                    self.assertEqual(code, 0 if fits else 1, error)
                    if not fits:
                        self.assertIn(f"{length + new} tokens, {length} of them the prompt's, for a model of 64 positions", error)
        t5 = ROOT / "tests/generate/t5"  # its table of 32 rows is of distances
        self.assertEqual(weft("generate", t5, "--ids-file", t5 / "prompts.jsonl", "--max-new-tokens", 70, "--eos-token-id", 1000)[0], 0)

    def test_generate_warns_of_what_has_no_effect(self):
        command = ("generate", ROOT / "tests/generate/gpt2", "--ids-file", ROOT / "tests/generate/folders/kinds/past/prompts.jsonl", "--max-new-tokens", 2)
        warned = lambda *options: [w.split()[2] for w in weft(*command, *options)[2].splitlines()]
        self.assertEqual(warned(), [])
        self.assertEqual(warned("--temperature", 0.5, "--top-p", 0.9, "--seed", 3), ["temperature", "top_p", "seed"])
        self.assertEqual(warned("--temperature", 0.5, "--top-p", 0.9, "--seed", 3, "--do-sample", "true"), [])
        self.assertEqual(warned("--length-penalty", 2, "--early-stopping", "true"), ["length_penalty", "early_stopping"])
        self.assertEqual(warned("--length-penalty", 2, "--early-stopping", "true", "--num-beams", 2), [])
        self.assertEqual(warned("--use-cache", "false", "--cache-implementation", "static", "--output-logits", "true"),
                         ["use_cache", "cache_implementation", "output_logits"])
        self.assertEqual(warned("--use-cache", "true", "--output-logits", "false", "--num-assistant-tokens-schedule", "constant"), [])
        self.assertEqual(warned("--num-assistant-tokens", 5, "--num-assistant-tokens-schedule", "heuristic"),
                         ["num_assistant_tokens_schedule", "num_assistant_tokens"])
        self.assertEqual(warned("--output-attentions", "true"), ["output_attentions"])
        code, out, error = weft(*command, "--output-attentions", "true", "--json")
        self.assertEqual((code, error), (0, ""))
        for line in map(json.loads, out.splitlines()):
            layers = line["attentions"][0]["attentions"]
            length = len(line["sequences"][0])
            for layer in layers:
                for head in layer:
                    self.assertEqual((len(head), len(head[-1])), (length, length))
                    self.assertAlmostEqual(sum(head[-1]), 1, places=5)

    def test_bench_reports(self):
        with tempfile.TemporaryDirectory() as folder:
            trace = pathlib.Path(folder) / "trace.json"
            report = json.loads(weft("bench", BERT, "--random", SIZES, "--random", "batch=1,sequence=3", "--repeat", 3,
                                     "--threads", 1, "--json", "--profile", "--trace", trace)[1])
            self.assertEqual(report["threads"], 1)
            self.assertEqual(len(report["workloads"]), 2)
            run = report["workloads"][0]["phases"]["run"]
            self.assertLessEqual(run["min_ms"], run["median_ms"])
            self.assertGreater(run["gflop"], 0)
            profile = report["workloads"][0]["profile"]["phases"]["run"]
            self.assertIn("Attention", [row["name"] for row in profile["ops"]])
            for kind in ("ops", "sites", "scopes"):
                self.assertAlmostEqual(sum(row["ms"] for row in profile[kind]) + profile["outside_ms"], profile["ms"], 6)
            events = json.loads(trace.read_text())["traceEvents"]
            self.assertIn("Attention", [event["name"] for event in events])

    def test_bench_of_generation_reports_both_phases(self):
        report = json.loads(weft("bench", ROOT / "tests/generate/gpt2", "--prompt-length", "3x5", "--new-tokens", 4,
                                 "--num-beams", 2, "--repeat", 2, "--threads", 1, "--json", "--profile")[1])
        workload = report["workloads"][0]
        for phase in ("prefill", "decode"):
            self.assertGreater(workload["phases"][phase]["tokens_per_second"], 0)
        self.assertEqual(workload["profile"]["phases"]["decode"]["runs"], 3)
        code, _, error = weft("bench", ROOT / "tests/generate/gpt2", "--prompt-length", "5x")
        self.assertEqual(code, 1)
        self.assertIn("N or BxN", error)
        code, _, error = weft("bench", BERT, "--random", SIZES, "--prompt-length", 5)
        self.assertEqual(code, 1)
        self.assertIn("one of them", error)

    def test_bench_serves_measurements(self):
        answers = subprocess.run([str(WEFT), "bench", str(BERT), "--random", SIZES, "--threads", "1", "--serve"],
                                 input="0\n0\n", capture_output=True, text=True).stdout.splitlines()
        ready, first, second, last = map(json.loads, answers)
        self.assertEqual(ready["ready"], [SIZES])
        self.assertGreater(min(first["run"], second["run"]), 0)
        self.assertGreater(last["peak_rss_mb"], 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
