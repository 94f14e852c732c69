"""Folders of which nobody can tell what they are."""
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from genai_folders import GENAI_DECODER, genai_config
from tiny_models import LAYERS


def broken(out):
    """Tiny graphs without a model in them: what is wrong is in their interface."""
    info, I64, F32 = helper.make_tensor_value_info, TensorProto.INT64, TensorProto.FLOAT

    def write(path, inputs, outputs):
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = [numpy_helper.from_array(np.zeros([d if isinstance(d, int) else 1 for d in shape], dtype=np.float32), f"w_{n}") for n, shape in outputs]
        nodes = [helper.make_node("Identity", [f"w_{n}"], [f"i_{n}"]) for n, _ in outputs] + [helper.make_node("Neg", [f"i_{n}"], [n]) for n, _ in outputs]
        graph = helper.make_graph(nodes, "g", [info(n, t, s) for n, t, s in inputs], [info(n, F32, s) for n, s in outputs], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    tokens = ("input_ids", I64, ["B", "S"])
    cache = lambda n: (n, F32, ["B", 2, "P", 8])
    logits = ("logits", [1, 1, 48])
    write(out / "two-inputs-may-be-tokens/model.onnx", [("a", I64, ["B", "S"]), ("b", I64, ["B", "S"])], [logits])
    write(out / "something-beside-tokens/model.onnx", [tokens, ("what", I64, ["B", "S"])], [logits])
    write(out / "no-tokens/model.onnx", [("x", F32, ["B", 3])], [logits])
    write(out / "no-logits/model.onnx", [tokens], [("y", [4])])
    write(out / "two-logits/model.onnx", [tokens], [("y", [1, 1, 48]), ("z", [1, 1, 48])])
    write(out / "cache-does-not-come-out/model.onnx", [tokens, cache("past_key_values.0.key")], [logits])
    write(out / "caches-of-another-number/model.onnx", [tokens, cache("k0"), cache("v0")], [logits, ("k", [1, 2, 1, 8])])
    write(out / "encoder-missing/decoder_model.onnx", [tokens, ("encoder_hidden_states", F32, ["B", "T", 16])], [logits])
    write(out / "encoder-missing-by-interface/dec.onnx", [tokens, ("memory", F32, ["B", "T", 16])], [logits])
    write(out / "two-decoders/left.onnx", [tokens], [logits])
    write(out / "two-decoders/right.onnx", [tokens], [logits])
    full = [("first", I64, ["B", "S"]), ("second", I64, ["B", "T"]), ("third", I64, ["B", "S"]), *[cache(f"{k}_{i}") for i in range(LAYERS) for k in "kv"]]
    results = [("out", [1, 1, 48]), *[(f"next_{k}_{i}", [1, 2, 5, 8]) for i in range(LAYERS) for k in "kv"]]
    write(out / "genai-other-names/weights/d.onnx", full, results)
    genai_config(out / "genai-other-names", {**GENAI_DECODER, "inputs": {**GENAI_DECODER["inputs"], "past_key_names": "key_%d"}})
    write(out / "genai-no-file/e.onnx", full, results)
    genai_config(out / "genai-no-file", GENAI_DECODER)
    for name, decoder, extra in (("genai-no-filename", {"filename": None}, {}), ("genai-no-layers", {**GENAI_DECODER, "num_hidden_layers": None}, {}),
                                 ("genai-vision", GENAI_DECODER, {"vision": {"filename": "v.onnx"}}), ("genai-pipeline", {"pipeline": []}, {}),
                                 ("genai-not-text", {**GENAI_DECODER, "inputs": {"input_ids": 3}}, {})):
        write(out / name / "weights/d.onnx", full, results)
        genai_config(out / name, decoder, **extra)
    shutil.copytree(out.parent / "kinds/genai-names/weights", out / "genai-other-heads/weights")
    genai_config(out / "genai-other-heads", {**GENAI_DECODER, "num_key_value_heads": 1})
    write(out / "genai-unknown-search/weights/d.onnx", full, results)
    genai_config(out / "genai-unknown-search", GENAI_DECODER, {"num_beam": 4})
    genai_config(out / "genai-outside", {**GENAI_DECODER, "filename": "weights/../../genai-no-file/e.onnx"})
    (out / "genai-no-json").mkdir()
    (out / "genai-no-json/genai_config.json").write_text("{")
    (out / "genai-no-model").mkdir()
    (out / "genai-no-model/genai_config.json").write_text("{}")
    write(out / "no-decoder/vision.onnx", [("pixels", F32, ["B", 3, 8, 8])], [("y", [1, 4, 16])])
