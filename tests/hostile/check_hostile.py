#!/usr/bin/env python3
"""Hostile and broken model files: each must be answered with exactly the error of expected.json, within bounded time and memory.

    python check_hostile.py --weft PATH [--record]

The files are written anew each time, one for each class; --record writes expected.json, to be read before it is committed.
"""
import argparse
import json
import os
import pathlib
import resource
import struct
import subprocess
import sys
import tempfile

SECONDS, ADDRESS_SPACE = 20, 6 << 30


# --- A writer of the wire format, able to lie ----------------------------------------------------------------

def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def integer(number, value):
    return varint(number << 3) + varint(value)


def text(number, value, length=None):
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value) if length is None else length) + value


def floating(number, value):
    return varint(number << 3 | 5) + struct.pack("<f", value)


def attribute(name, kind, *fields):
    return text(5, text(1, name) + b"".join(fields) + integer(20, kind))


def ints(name, values):
    return attribute(name, 7, *[integer(8, v) for v in values])


def number(name, value):
    return attribute(name, 2, integer(3, value))


def subgraph(name, graph):
    return attribute(name, 5, text(6, graph))


def node(op, inputs, outputs, *attributes, name="", domain=""):
    return text(1, b"".join([text(1, i) for i in inputs] + [text(2, o) for o in outputs] + ([text(3, name)] if name else []) + [text(4, op)] +
                            list(attributes) + ([text(7, domain)] if domain else [])))


def tensor(name, kind, dims, raw=None, *more):
    return b"".join([integer(1, d) for d in dims] + [integer(2, kind), text(8, name)] + ([text(9, raw)] if raw is not None else []) + list(more))


def int64s(name, values, dims=None):
    return text(5, tensor(name, 7, [len(values)] if dims is None else dims, struct.pack(f"<{len(values)}q", *values)))


def value(number, name, kind=1, dims=()):
    shape = b"".join(text(1, integer(1, d) if isinstance(d, int) else text(2, d)) for d in dims)
    return text(number, text(1, name) + text(2, text(1, integer(1, kind) + text(2, shape))))


def graph(*parts, inputs=None, outputs=None):
    inputs = value(11, "x", 1, [2, 3]) if inputs is None else inputs
    outputs = value(12, "y", 1, ["N"]) if outputs is None else outputs
    return b"".join(parts) + text(2, "g") + inputs + outputs


def model(g, ir=8, opsets=(("", 17),), more=b""):
    imports = b"".join(text(8, (text(1, d) if d else b"") + integer(2, v)) for d, v in opsets)
    return (integer(1, ir) if ir is not None else b"") + text(7, g) + imports + more


def external(location, offset=None, length=None):
    entries = [("location", location)] + ([("offset", str(offset))] if offset is not None else []) + ([("length", str(length))] if length is not None else [])
    more = [text(13, text(1, k) + text(2, v)) for k, v in entries] + [integer(14, 1)]
    return model(graph(node("Add", ["x", "w"], ["y"]), text(5, tensor("w", 1, [3], None, *more))))


def function(name, *nodes):
    return text(25, text(1, name) + text(4, "a") + text(5, "b") + b"".join(nodes) + text(9, integer(2, 17)) + text(10, "own"))


def function_node(op, domain="own"):
    return text(7, text(1, "a") + text(2, "b") + text(4, op) + text(7, domain))


def nested(depth):
    inner = text(1, text(1, "x") + text(2, "y") + text(4, "Identity")) + text(2, "g") + value(12, "y")
    for _ in range(depth):
        inner = (text(1, text(1, "c") + text(2, "y") + text(4, "If") + text(5, text(1, "then_branch") + text(6, inner) + integer(20, 5)) +
                      text(5, text(1, "else_branch") + text(6, inner[:0] + text(1, text(1, "x") + text(2, "y") + text(4, "Identity")) + text(2, "g") + value(12, "y")) +
                           integer(20, 5))) + text(2, "g") + value(12, "y"))
    return model(inner + value(11, "x", 1, [2]) + value(11, "c", 9, []))


def files():
    relu = node("Relu", ["x"], ["y"])
    good = model(graph(relu))
    groups = b"".join(varint(100 << 3 | 3) for _ in range(100000))
    yield "empty.onnx", b""
    yield "text.onnx", b"This is not a model, it is a sentence."
    yield "truncated.onnx", good[:len(good) // 2]
    yield "length-beyond-file.onnx", integer(1, 8) + text(7, b"abc", 1 << 40)
    yield "length-of-64-bits.onnx", integer(1, 8) + varint(7 << 3 | 2) + b"\xff" * 9 + b"\x01"
    yield "varint-too-long.onnx", b"\x08" + b"\xff" * 11
    yield "field-zero.onnx", b"\x00\x01" + good
    yield "deep-groups.onnx", good + groups
    yield "no-ir-version.onnx", model(graph(relu), ir=None)
    yield "ir-version-99.onnx", model(graph(relu), ir=99)
    yield "no-graph.onnx", integer(1, 8) + text(8, integer(2, 17))
    yield "no-opset.onnx", model(graph(relu), opsets=())
    yield "opset-twice.onnx", model(graph(relu), opsets=(("", 17), ("ai.onnx", 13)))
    yield "unknown-operators.onnx", model(graph(node("Foo", ["x"], ["a"], name="one"), node("Foo", ["a"], ["b"], name="two"), node("Bar", ["b"], ["c"], name="three"),
                                                node("Baz", ["c"], ["y"], name="four", domain="com.example")))
    yield "undefined-input.onnx", model(graph(node("Relu", ["nobody"], ["y"])))
    yield "undefined-output.onnx", model(graph(node("Relu", ["x"], ["z"])))
    yield "defined-twice.onnx", model(graph(relu, node("Neg", ["x"], ["y"])))
    yield "initializer-twice.onnx", model(graph(relu, int64s("w", [1]), int64s("w", [2])))
    yield "cycle.onnx", model(graph(node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"]), node("Relu", ["b"], ["y"])))
    yield "self-loop.onnx", model(graph(node("Add", ["x", "y"], ["y"])))
    yield "function-calls-itself.onnx", model(graph(node("F", ["x"], ["y"], domain="own")), opsets=(("", 17), ("own", 1)), more=function("F", function_node("F")))
    yield "functions-call-each-other.onnx", model(graph(node("F", ["x"], ["y"], domain="own")), opsets=(("", 17), ("own", 1)),
                                                  more=function("F", function_node("G")) + function("G", function_node("F")))
    yield "nested-200.onnx", nested(200)
    yield "too-few-inputs.onnx", model(graph(node("Add", ["x"], ["y"])))
    yield "too-many-inputs.onnx", model(graph(node("Relu", ["x", "x", "x"], ["y"])))
    yield "attribute-of-wrong-kind.onnx", model(graph(node("Softmax", ["x"], ["y"], attribute("axis", 3, text(4, "last")))))
    yield "attribute-nobody-reads.onnx", model(graph(node("Relu", ["x"], ["y"], number("speed", 9))))
    yield "axis-out-of-range.onnx", model(graph(node("Softmax", ["x"], ["y"], number("axis", 7))))
    yield "shapes-clash.onnx", model(graph(node("Add", ["x", "w"], ["y"]), text(5, tensor("w", 1, [4], struct.pack("<4f", 1, 2, 3, 4)))))
    yield "raw-data-too-short.onnx", model(graph(node("Add", ["x", "w"], ["y"]), text(5, tensor("w", 1, [3], b"\0" * 8))))
    yield "dims-overflow.onnx", model(graph(node("Add", ["x", "w"], ["y"]), text(5, tensor("w", 1, [1 << 40, 1 << 40], b""))))
    yield "negative-dims.onnx", model(graph(node("Add", ["x", "w"], ["y"]), text(5, tensor("w", 1, [-3], b""))))
    yield "element-type-77.onnx", model(graph(node("Add", ["x", "w"], ["y"]), text(5, tensor("w", 77, [1], b"\0"))))
    yield "int4-of-wrong-size.onnx", model(graph(node("Cast", ["w"], ["y"], number("to", 1)), text(5, tensor("w", 22, [3], b"\0\0\0"))))
    yield "external-parent.onnx", external("../secret")
    yield "external-absolute.onnx", external("/etc/passwd")
    yield "external-symlink.onnx", external("link")
    yield "external-device.onnx", external("zero")
    yield "external-fifo.onnx", external("pipe")
    yield "external-missing.onnx", external("missing")
    yield "external-offset.onnx", external("data", offset=1 << 50)
    yield "external-negative-offset.onnx", external("data", offset=-4)
    yield "external-length.onnx", external("data", length=5)
    yield "bomb-constant-of-shape.onnx", model(graph(node("ConstantOfShape", ["s"], ["y"]), int64s("s", [1 << 20, 1 << 20])))
    yield "bomb-expand.onnx", model(graph(node("Expand", ["x", "s"], ["y"]), int64s("s", [1 << 20, 1 << 10, 2, 3])))
    yield "bomb-tile.onnx", model(graph(node("Tile", ["x", "s"], ["y"]), int64s("s", [1 << 20, 1 << 20])))
    yield "bomb-range.onnx", model(graph(node("Range", ["a", "b", "c"], ["y"]), int64s("a", [0], []), int64s("b", [1 << 40], []), int64s("c", [1], [])))
    yield "bomb-pad.onnx", model(graph(node("Pad", ["x", "s"], ["y"]), int64s("s", [0, 0, 1 << 40, 0])))
    yield "bomb-negative-size.onnx", model(graph(node("ConstantOfShape", ["s"], ["y"]), int64s("s", [-5])))
    yield "bomb-one-hot.onnx", model(graph(node("OneHot", ["i", "d", "v"], ["y"]), int64s("i", [1]), int64s("d", [1 << 40], []), int64s("v", [0, 1])))
    body = (node("Identity", ["c"], ["d"]) + node("Neg", ["p"], ["q"]) + text(2, "b") + value(11, "i", 7, []) + value(11, "c", 9, []) +
            value(11, "p", 1, [2, 3]) + value(12, "d", 9, []) + value(12, "q", 1, [2, 3]))
    yield "bomb-endless-loop.onnx", model(graph(node("Loop", ["m", "t", "x"], ["y"], subgraph("body", body)), int64s("m", [(1 << 63) - 1], []),
                                                text(5, tensor("t", 9, [], b"\1"))))
    yield "gather-out-of-range.onnx", model(graph(node("Gather", ["x", "i"], ["y"]), int64s("i", [99])))
    yield "reshape-impossible.onnx", model(graph(node("Reshape", ["x", "s"], ["y"]), int64s("s", [5, 5])))
    yield "scale-nan.onnx", model(graph(node("Resize", ["x", "", "s"], ["y"]), text(5, tensor("s", 1, [2], struct.pack("<2f", float("nan"), 1)))))
    yield "scale-infinite.onnx", model(graph(node("Resize", ["x", "", "s"], ["y"]), text(5, tensor("s", 1, [2], struct.pack("<2f", float("inf"), 1)))))
    yield "sparse-index.onnx", model(graph(node("Add", ["x", "w"], ["y"]), text(15, text(1, tensor("w", 1, [1], struct.pack("<f", 1))) +
                                                                               text(2, tensor("", 7, [1], struct.pack("<q", 99))) + integer(3, 3))))
    yield "group-of-zero.onnx", model(graph(node("Conv", ["v", "w"], ["y"], number("group", 0)), text(5, tensor("w", 1, [1, 1, 1], b"\0" * 4)),
                                            inputs=value(11, "v", 1, [1, 1, 4])))
    yield "stride-of-zero.onnx", model(graph(node("Conv", ["v", "w"], ["y"], ints("strides", [0])), text(5, tensor("w", 1, [1, 1, 1], b"\0" * 4)),
                                             inputs=value(11, "v", 1, [1, 1, 4])))


def bounded():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def answer(weft, path):
    try:
        run = subprocess.run([weft, "run", path.name, "--random", "N=2", "--threads", "1"], cwd=path.parent, capture_output=True, text=True,
                             timeout=SECONDS, preexec_fn=bounded, errors="replace", check=False)
    except subprocess.TimeoutExpired:
        return f"NO ANSWER within {SECONDS} s"
    if run.returncode == 1:
        return run.stderr.strip()
    return f"EXIT CODE {run.returncode}: {(run.stderr + run.stdout)[-300:]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weft", required=True)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    expected_path = pathlib.Path(__file__).parent / "expected.json"
    answers = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "model"
        folder.mkdir()
        (pathlib.Path(scratch) / "secret").write_bytes(b"\0" * 64)
        (folder / "data").write_bytes(b"\0" * 12)
        (folder / "link").symlink_to("../secret")
        (folder / "zero").symlink_to("/dev/zero")
        os.mkfifo(folder / "pipe")
        for name, data in files():
            (folder / name).write_bytes(data)
            answers[name] = answer(str(pathlib.Path(arguments.weft).resolve()), folder / name).replace(str(folder.resolve()), "FOLDER")
    if arguments.record:
        expected_path.write_text(json.dumps(answers, indent=1) + "\n")
    expected = json.loads(expected_path.read_text())
    wrong = [name for name in {**expected, **answers} if answers.get(name) != expected.get(name)]
    for name in wrong:
        print(f"{name}:\n  {answers.get(name)}\n  expected\n  {expected.get(name)}")
    print(f"{len(expected) - len(wrong)} of {len(expected)} files answered as expected")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
