"""One peer at one workload, measured on demand: what compare.py starts for everything but weft.

    peers.py PEER KIND MODEL --sizes BxS,... --threads N

KIND: encoder, decoder or translation. Prints {"load_ms": ...} once every size has run; then, for each line of standard input (the index
of a size), one line {"run": ms} (encoder), {"prefill": ms, "decode": ms of a step} (decoder) or {"total": ms} (translation); at the end
{"peak_rss_mb": ...}. As `weft bench --serve` does.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import numpy as np

STEPS = 32  # of a decode measurement
BUDGET = 0.4  # seconds of one measurement


def tokens(batch, length):
    return np.random.default_rng(7).integers(5, 20000, (batch, length), dtype=np.int64)


def timed(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def median_of(call):
    times, end = [], time.perf_counter() + BUDGET
    while len(times) < 2 or time.perf_counter() < end:
        times.append(timed(call))
    return statistics.median(times)


# --- ONNX Runtime -------------------------------------------------------------------------------------


def onnxruntime_session(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ort_encoder(path, options):
    session = onnxruntime_session(path, options.threads)

    def measure(batch, length):
        ids = tokens(batch, length)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        feed = {i.name: given[i.name] for i in session.get_inputs()}
        return {"run": median_of(lambda: session.run(None, feed))}

    return measure


def ort_decoder(path, options):
    """Past and present bound as ONNX Runtime's own values: nothing is copied outside the graph."""
    import onnxruntime

    session = onnxruntime_session(path, options.threads)
    inputs = {i.name: i for i in session.get_inputs()}
    pasts = [name for name in inputs if name.startswith("past_key_values")]
    outputs = [o.name for o in session.get_outputs()]

    def step(ids, past, length):
        batch, count = ids.shape
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        if "attention_mask" in inputs:
            binding.bind_cpu_input("attention_mask", np.ones((batch, length + count), np.int64))
        if "position_ids" in inputs:
            binding.bind_cpu_input("position_ids", np.tile(np.arange(length, length + count), (batch, 1)))
        for name, value in past.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        values = dict(zip(outputs, binding.get_outputs()))
        token = values["logits"].numpy()[:, -1:].argmax(-1)
        return token, {name: values[name.replace("past_key_values", "present")] for name in pasts}

    def measure(batch, length):
        ids = tokens(batch, length)
        _, heads, _, size = inputs[pasts[0]].shape
        nothing = np.zeros((batch, heads, 0, size), np.float32)
        empty = {name: onnxruntime.OrtValue.ortvalue_from_numpy(nothing) for name in pasts}
        prefill = median_of(lambda: step(ids, empty, 0))
        token, past = step(ids, empty, 0)
        start = time.perf_counter()
        for i in range(STEPS):
            token, past = step(token, past, length + i)
        return {"prefill": prefill, "decode": (time.perf_counter() - start) * 1e3 / STEPS}

    return measure


def optimum_translation(path, options):
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    torch.set_num_threads(options.threads)
    model = ORTModelForSeq2SeqLM.from_pretrained(str(path), session_options=session_options, use_cache=True)

    def measure(batch, length):
        ids = torch.from_numpy(tokens(batch, length))
        return {"total": timed(lambda: model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=options.beams, do_sample=False,
            min_new_tokens=options.new_tokens, max_new_tokens=options.new_tokens))}

    return measure


# --- CTranslate2 --------------------------------------------------------------------------------------


def ct2_encoder(path, options):
    import ctranslate2

    model = ctranslate2.Encoder(str(path), device="cpu", compute_type="float32", inter_threads=1, intra_threads=options.threads)

    def measure(batch, length):
        ids = tokens(batch, length)
        rows, types = ids.tolist(), np.zeros_like(ids).tolist()
        return {"run": median_of(lambda: np.asarray(model.forward_batch(rows, token_type_ids=types).last_hidden_state))}

    return measure


def ct2_decoder(path, options):
    import ctranslate2

    model = ctranslate2.Generator(str(path), device="cpu", compute_type="float32", inter_threads=1, intra_threads=options.threads)

    def measure(batch, length):
        words = [[f"t{i}" for i in row] for row in tokens(batch, length).tolist()]

        def generate(count):
            return model.generate_batch(words, max_length=count, min_length=count, beam_size=options.beams, max_batch_size=0,
                                        include_prompt_in_result=False)

        prefill = median_of(lambda: generate(1))
        return {"prefill": prefill, "decode": (timed(lambda: generate(STEPS + 1)) - prefill) / STEPS}

    return measure


def ct2_translation(path, options):
    import ctranslate2

    model = ctranslate2.Translator(str(path), device="cpu", compute_type="float32", inter_threads=1, intra_threads=options.threads)

    def measure(batch, length):
        words = [[f"t{i}" for i in row] for row in tokens(batch, length).tolist()]
        return {"total": timed(lambda: model.translate_batch(
            words, beam_size=options.beams, max_decoding_length=options.new_tokens, min_decoding_length=options.new_tokens,
            max_batch_size=0))}

    return measure


# --- OpenVINO, reading the ONNX file ------------------------------------------------------------------------


def ov_request(path, threads):
    import openvino

    return openvino.Core().compile_model(str(path), "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32"}).create_infer_request()


def ov_encoder(path, options):
    request = ov_request(path, options.threads)
    names = {name for i in request.model_inputs for name in i.names}

    def measure(batch, length):
        ids = tokens(batch, length)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        feed = {name: value for name, value in given.items() if name in names}
        return {"run": median_of(lambda: request.infer(feed, share_inputs=True, share_outputs=True))}

    return measure


def ov_decoder(path, options):
    """A stateful model as Optimum Intel exports it."""
    request = ov_request(path, options.threads)
    names = {name for i in request.model_inputs for name in i.names}

    def step(ids, length):
        batch, count = ids.shape
        feed = {"input_ids": ids, "attention_mask": np.ones((batch, length + count), np.int64),
                "beam_idx": np.arange(batch, dtype=np.int32),
                "position_ids": np.tile(np.arange(length, length + count), (batch, 1))}
        request.infer({k: v for k, v in feed.items() if k in names}, share_inputs=True, share_outputs=True)
        return request.get_tensor("logits").data[:, -1:].argmax(-1)

    def measure(batch, length):
        ids = tokens(batch, length)

        def prefill():
            request.reset_state()
            return step(ids, 0)

        took = median_of(prefill)
        token = prefill()
        start = time.perf_counter()
        for i in range(STEPS):
            token = step(token, length + i)
        return {"prefill": took, "decode": (time.perf_counter() - start) * 1e3 / STEPS}

    return measure


# --- onnxruntime-genai ----------------------------------------------------------------------------------


def genai_decoder(path, options):
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(path))

    def measure(batch, length):
        ids = tokens(batch, length)

        def start():
            parameters = onnxruntime_genai.GeneratorParams(model)
            parameters.set_search_options(batch_size=batch, max_length=length + STEPS + 2, num_beams=options.beams)
            generator = onnxruntime_genai.Generator(model, parameters)
            generator.append_tokens(ids)
            generator.generate_next_token()
            return generator

        prefill = median_of(start)
        generator = start()
        begin = time.perf_counter()
        for _ in range(STEPS):
            generator.generate_next_token()
        return {"prefill": prefill, "decode": (time.perf_counter() - begin) * 1e3 / STEPS}

    return measure


def peak_rss_mb():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("ort", "ct2", "ov", "genai", "optimum"))
    parser.add_argument("kind", choices=("encoder", "decoder", "translation"))
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes.split(",")]
    start = time.perf_counter()
    measure = globals()[f"{options.peer}_{options.kind}"](options.model, options)
    load_ms = (time.perf_counter() - start) * 1e3
    for size in sizes:
        measure(*size)
    print(json.dumps({"load_ms": load_ms}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(*sizes[int(line)])), flush=True)
    print(json.dumps({"peak_rss_mb": peak_rss_mb()}), flush=True)


if __name__ == "__main__":
    main()
