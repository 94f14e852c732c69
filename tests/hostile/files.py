"""One file for each class of attack or damage: structure() and values() yield (name, bytes)."""
import struct

from wire import (OWN, attribute, bools, call, floating, floats, function, graph, int32s, int64s, integer, ints, model, node, number, one, real,
                  reference, sparse, subgraph, tensor, text, value, varint, words, zeros)

RELU = node("Relu", ["x"], ["y"])
GOOD = model(graph(RELU))
HUGE, LARGEST = 1 << 40, (1 << 63) - 1


def files():
    yield from wire_format()
    yield from versions()
    yield from names()
    yield from functions()
    yield from control_flow()
    yield from attributes()
    yield from tensors()
    yield from external_data()


# --- Bytes ----------------------------------------------------------------------------------------------------

def wire_format():
    yield "empty", b""
    yield "text", b"This is not a model, it is a sentence."
    yield "truncated", GOOD[:len(GOOD) // 2]
    yield "length-beyond-file", integer(1, 8) + text(7, b"abc", HUGE)
    yield "length-of-64-bits", integer(1, 8) + varint(7 << 3 | 2) + b"\xff" * 9 + b"\x01"
    yield "varint-too-long", b"\x08" + b"\xff" * 11
    yield "field-zero", b"\x00\x01" + GOOD
    yield "wire-type-7", b"\x0f" + GOOD
    yield "graph-as-number", integer(1, 8) + integer(7, 5)
    yield "node-as-number", model(graph(integer(1, 5), RELU))
    yield "dims-as-float", model(graph(node("Add", ["x", "w"], ["y"]), text(5, floating(1, 3.0) + integer(2, 1) + text(8, "w"))))
    yield "packed-floats-of-odd-size", model(graph(node("Add", ["x", "w"], ["y"]), text(5, tensor("w", 1, [1], None, text(4, b"\0\0\0")))))
    yield "deep-groups", GOOD + b"".join(varint(100 << 3 | 3) for _ in range(100000))
    yield "group-without-end", GOOD + varint(100 << 3 | 3)
    yield "group-of-another-number", GOOD + varint(100 << 3 | 3) + varint(101 << 3 | 4)
    yield "three-million-nodes", model(graph(text(1, b"") * 3_000_000))


def versions():
    yield "no-ir-version", model(graph(RELU), ir=None)
    yield "ir-version-2", model(graph(RELU), ir=2)
    yield "ir-version-99", model(graph(RELU), ir=99)
    yield "no-graph", integer(1, 8) + text(8, integer(2, 17))
    yield "no-opset", model(graph(RELU), opsets=())
    yield "opset-0", model(graph(RELU), opsets=(("", 0),))
    yield "opset-negative", model(graph(RELU), opsets=(("", -1),))
    yield "opset-of-the-future", model(graph(RELU), opsets=(("", 10**9),))
    yield "opset-largest", model(graph(RELU), opsets=(("", LARGEST),))
    yield "opset-twice", model(graph(RELU), opsets=(("", 17), ("ai.onnx", 13)))


# --- Graphs ---------------------------------------------------------------------------------------------------

def names():
    yield "unknown-operators", model(graph(node("Foo", ["x"], ["a"], name="one"), node("Foo", ["a"], ["b"], name="two"),
                                           node("Bar", ["b"], ["c"], name="three"), node("Baz", ["c"], ["y"], name="four", domain="com.example")))
    yield "unknown-operator-in-branch", if_model(node("Foo", ["x"], ["r"]) + text(2, "t") + value(12, "r"))
    yield "undefined-input", model(graph(node("Relu", ["nobody"], ["y"])))
    yield "undefined-output", model(graph(node("Relu", ["x"], ["z"])))
    yield "defined-twice", model(graph(RELU, node("Neg", ["x"], ["y"])))
    yield "input-twice", model(graph(RELU, inputs=value(11, "x", 1, [2]) * 2))
    yield "initializer-twice", model(graph(RELU, int64s("w", [1]), int64s("w", [2])))
    yield "initializer-is-result", model(graph(RELU, floats("y", [1])))
    yield "sparse-and-dense-initializer", model(graph(RELU, floats("w", [1]), sparse(tensor("w", 1, [1], b"\0" * 4), tensor("", 7, [1], b"\0" * 8), [3])))
    yield "result-is-input", model(graph(node("Relu", ["x"], ["x"]), outputs=value(12, "x")))
    yield "cycle", model(graph(node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"]), node("Relu", ["b"], ["y"])))
    yield "self-loop", model(graph(node("Add", ["x", "y"], ["y"])))
    yield "required-input-left-out", model(graph(node("Add", ["x", ""], ["y"])))
    yield "too-few-inputs", model(graph(node("Add", ["x"], ["y"])))
    yield "too-many-inputs", model(graph(node("Relu", ["x", "x", "x"], ["y"])))
    yield "too-many-outputs", model(graph(node("Relu", ["x"], ["y", "z"])))
    yield "name-of-a-megabyte", model(graph(node("Relu", ["n" * (1 << 20)], ["y"])))
    yield "name-with-control-characters", model(graph(node("Relu", ["\x1b[2Jred\n\r\0"], ["y"])))


def functions():
    calls = node("F", ["x"], ["y"], domain="own")
    yield "function-calls-itself", model(graph(calls), opsets=OWN, more=function("F", call("F")))
    yield "functions-call-each-other", model(graph(calls), opsets=OWN, more=function("F", call("G")) + function("G", call("F")))
    inside = node("If", ["a"], ["b"], subgraph("then_branch", call("F", ["a"], ["r"], field=1) + value(12, "r")),
                  subgraph("else_branch", node("Identity", ["a"], ["r"]) + value(12, "r")), field=7)
    yield "function-calls-itself-in-branch", model(graph(calls), opsets=OWN, more=function("F", inside))
    ring = b"".join(function(f"F{i}", call(f"F{(i + 1) % 40}")) for i in range(40))
    yield "function-ring-of-40", model(graph(node("F0", ["x"], ["y"], domain="own")), opsets=OWN, more=ring)
    chain = b"".join(function(f"F{i}", call(f"F{i + 1}")) for i in range(20000)) + function("F20000", node("Relu", ["a"], ["b"], field=7))
    yield "function-chain-of-20000", model(graph(node("F0", ["x"], ["y"], domain="own")), opsets=OWN, more=chain)
    laughs = b"".join(function(f"F{i}", call(f"F{i + 1}", ["a"], ["t"]), call(f"F{i + 1}", ["t"], ["b"])) for i in range(40))
    laughs += function("F40", node("Relu", ["a"], ["b"], field=7))
    yield "bomb-billion-laughs", model(graph(node("F0", ["x"], ["y"], domain="own")), opsets=OWN, more=laughs)
    yield "function-twice", model(graph(calls), opsets=OWN, more=function("F", node("Relu", ["a"], ["b"], field=7)) * 2)
    yield "function-with-too-many-inputs", model(graph(node("F", ["x", "x"], ["y"], domain="own")), opsets=OWN,
                                                 more=function("F", node("Relu", ["a"], ["b"], field=7)))
    yield "function-reads-the-graph", model(graph(calls, floats("w", [1])), opsets=OWN, more=function("F", node("Add", ["a", "w"], ["b"], field=7)))
    yield "reference-outside-function", one("Softmax", ["x"], reference("axis", 2, "which"))
    yield "reference-of-another-type", model(graph(node("F", ["x"], ["y"], words("which", "last"), domain="own")), opsets=OWN,
                                             more=function("F", node("Softmax", ["a"], ["b"], reference("axis", 2, "which"), field=7), attributes=["which"]))


def branch(*parts, outputs=("r",)):
    return b"".join(parts) + text(2, "b") + b"".join(value(12, o) for o in outputs)


def if_model(then, otherwise=None, condition=None, outputs=("y",), opset=17):
    otherwise = branch(node("Neg", ["x"], ["r"])) if otherwise is None else otherwise
    return model(graph(node("If", ["c"], outputs, subgraph("then_branch", then), *([subgraph("else_branch", otherwise)] if otherwise else [])),
                       inputs=value(11, "x", 1, [2, 3]) + (condition or value(11, "c", 9, []))), opsets=(("", opset),))


def nested(depth):
    inner = branch(node("Identity", ["x"], ["y"]), outputs=["y"])
    other = inner
    for _ in range(depth):
        inner = branch(node("If", ["c"], ["y"], subgraph("then_branch", inner), subgraph("else_branch", other)), outputs=["y"])
    return model(inner + value(11, "x", 1, [2]) + value(11, "c", 9, []))


def wide(depth):
    """Both branches nest: 2^depth of them if each is looked at anew on each level, but few bytes."""
    inner = branch(node("Neg", ["x"], ["y"]), outputs=["y"])
    for _ in range(depth):
        inner = branch(node("If", ["c"], ["t"], subgraph("then_branch", inner), subgraph("else_branch", branch(node("Abs", ["x"], ["y"]), outputs=["y"]))),
                       node("Relu", ["t"], ["y"]), outputs=["y"])
    return model(inner + value(11, "x", 1, [2]) + value(11, "c", 9, []))


def loop(body, trips=3, inputs=("x",), outputs=("y",), condition=True):
    return model(graph(node("Loop", ["m", "t", *inputs], outputs, subgraph("body", body)), int64s("m", [trips], []), bools("t", [condition], [])))


def loop_body(*nodes, carried="q", outputs=None):
    formal = value(11, "i", 7, []) + value(11, "c", 9, []) + value(11, "p", 1, [2, 3])
    return (node("Identity", ["c"], ["d"]) + b"".join(nodes) + text(2, "b") + formal +
            b"".join(value(12, o) for o in (outputs or ["d", carried])))


def control_flow():
    yield "nested-10-runs", nested(10)
    yield "nested-10-with-results-runs", wide(10)
    yield "nested-50", nested(50)
    yield "nested-200", nested(200)
    yield "nested-5000", nested(5000)
    yield "branch-missing", if_model(branch(node("Neg", ["x"], ["r"])), otherwise=b"")
    yield "branch-with-fewer-outputs", if_model(branch(node("Neg", ["x"], ["r"])), branch(node("Neg", ["x"], ["r"]), outputs=[]))
    yield "branches-of-two-types", if_model(branch(node("Neg", ["x"], ["r"])), branch(node("Shape", ["x"], ["r"])))
    yield "branch-with-inputs", if_model(branch(node("Neg", ["k"], ["r"])) + value(11, "k"))
    yield "branch-reads-its-sibling", if_model(branch(node("Neg", ["x"], ["r"])), branch(node("Neg", ["s"], ["z"]), node("Neg", ["r"], ["s"]), outputs=["z"]))
    yield "branch-shadows", if_model(branch(node("Neg", ["x"], ["x"]), outputs=["x"]))
    yield "branch-reads-later-result", model(graph(node("If", ["c"], ["y"], subgraph("then_branch", branch(node("Neg", ["y"], ["r"]))),
                                                        subgraph("else_branch", branch(node("Neg", ["x"], ["r"])))),
                                                   inputs=value(11, "x", 1, [2, 3]) + value(11, "c", 9, [])))
    yield "condition-of-two", if_model(branch(node("Abs", ["x"], ["r"])), condition=value(11, "c", 9, [2]))
    yield "condition-of-floats", if_model(branch(node("Abs", ["x"], ["r"])), condition=value(11, "c", 1, []))
    yield "loop-without-inputs", loop(branch(node("Neg", ["x"], ["r"])))
    yield "loop-with-fewer-outputs", loop(loop_body(outputs=["d"]))
    yield "loop-changes-type", loop(loop_body(node("Shape", ["p"], ["q"])))
    yield "loop-condition-of-floats", loop(loop_body(node("Neg", ["p"], ["q"]), outputs=["q", "q"]))
    yield "loop-of-negative-trips-runs", loop(loop_body(node("Neg", ["p"], ["q"])), trips=-5)
    yield "bomb-endless-loop", loop(loop_body(node("Neg", ["p"], ["q"])), trips=LARGEST)
    yield "bomb-loop-doubles", loop(loop_body(node("Concat", ["p", "p"], ["q"], number("axis", 0))), trips=60)
    yield "bomb-loop-stacks", loop(loop_body(node("Expand", ["p", "s"], ["z"]), node("Identity", ["p"], ["q"]), int64s("s", [1 << 20, 2, 3]), outputs=["d", "q", "z"]),
                                   trips=100000, outputs=["y", "z"])
    yield "scan-of-more-than-given", model(graph(node("Scan", ["x"], ["y"], number("num_scan_inputs", 3),
                                                      subgraph("body", branch(node("Neg", ["k"], ["r"])) + value(11, "k")))))
    yield "scan-of-two-lengths", model(graph(node("Scan", ["x", "w"], ["y"], number("num_scan_inputs", 2),
                                                  subgraph("body", branch(node("Add", ["k", "l"], ["r"])) + value(11, "k", 1, [3]) + value(11, "l", 1, [3]))), zeros("w", [5, 3])))


def attributes():
    yield "attribute-of-wrong-kind", one("Softmax", ["x"], attribute("axis", 3, text(4, "last")))
    yield "attribute-of-other-field", one("Softmax", ["x"], attribute("axis", 1, integer(3, 1)))
    yield "attribute-twice", one("Softmax", ["x"], number("axis", 0), number("axis", 1))
    yield "attribute-nobody-reads", one("Relu", ["x"], number("speed", 9))
    yield "attribute-without-tensor", one("Constant", [], attribute("value", 4))
    yield "attribute-without-graph", model(graph(node("If", ["c"], ["y"], attribute("then_branch", 5), attribute("else_branch", 5)), inputs=value(11, "c", 9, [])))
    yield "axis-out-of-range", one("Softmax", ["x"], number("axis", 7))


# --- Tensors --------------------------------------------------------------------------------------------------

def with_weight(*parts):
    return model(graph(node("Add", ["x", "w"], ["y"]), text(5, b"".join(parts))))


def tensors():
    yield "shapes-clash", with_weight(tensor("w", 1, [4], b"\0" * 16))
    yield "raw-data-too-short", with_weight(tensor("w", 1, [3], b"\0" * 8))
    yield "raw-data-too-long", with_weight(tensor("w", 1, [3], b"\0" * 16))
    yield "raw-data-of-odd-size", with_weight(tensor("w", 1, [3], b"\0" * 11))
    yield "raw-and-typed-data", with_weight(tensor("w", 1, [3], b"\0" * 12, text(4, b"\0" * 12)))
    yield "typed-data-too-short", with_weight(tensor("w", 1, [3], None, text(4, b"\0" * 8)))
    yield "typed-data-in-another-field", with_weight(tensor("w", 1, [3], None, text(7, b"\1\2\3")))
    yield "no-data", with_weight(tensor("w", 1, [3]))
    yield "strings-as-raw-data", with_weight(tensor("w", 8, [3], b"abc"))
    yield "dims-overflow", with_weight(tensor("w", 1, [HUGE, HUGE], b""))
    yield "dims-overflow-to-zero", with_weight(tensor("w", 1, [1 << 32, 1 << 32], b""))
    yield "dims-overflow-in-bytes", with_weight(tensor("w", 1, [1 << 61], b""))
    yield "dims-negative", with_weight(tensor("w", 1, [-3], b""))
    yield "dims-of-rank-100", with_weight(tensor("w", 1, [1] * 100, b"\0" * 4))
    yield "dims-of-rank-a-million", with_weight(text(1, b"\1" * 1_000_000) + tensor("w", 1, [], b"\0" * 4))
    yield "input-of-rank-a-million", model(graph(RELU, inputs=value(11, "x", 1, [2] * 1_000_000)))
    yield "input-of-huge-extent", model(graph(RELU, inputs=value(11, "x", 1, [LARGEST])))
    yield "element-type-0", with_weight(tensor("w", 0, [1], b"\0"))
    yield "element-type-27", with_weight(tensor("w", 27, [1], b"\0"))
    yield "element-type-77", with_weight(tensor("w", 77, [1], b"\0"))
    yield "element-type-complex", with_weight(tensor("w", 14, [1], b"\0" * 8))
    yield "int4-of-wrong-size", model(graph(node("Cast", ["w"], ["y"], number("to", 1)), text(5, tensor("w", 22, [3], b"\0\0\0"))))
    yield "tensor-in-segments", with_weight(tensor("w", 1, [3], b"\0" * 12, text(3, integer(1, 0))))
    one_value, at = tensor("w", 1, [1], struct.pack("<f", 1)), lambda *i: tensor("", 7, [len(i)], struct.pack(f"<{len(i)}q", *i))
    two_values = tensor("w", 1, [2], struct.pack("<2f", 1, 2))
    add = node("Add", ["x", "w"], ["y"])
    yield "sparse-index", model(graph(add, sparse(one_value, at(99), [3])))
    yield "sparse-negative-index", model(graph(add, sparse(one_value, at(-1), [3])))
    yield "sparse-unsorted", model(graph(add, sparse(two_values, at(2, 0), [3])))
    yield "sparse-coordinate", model(graph(add, sparse(one_value, tensor("", 7, [1, 2], struct.pack("<2q", 0, 5)), [2, 3])))
    yield "sparse-overflow", model(graph(add, sparse(one_value, tensor("", 7, [1, 2], struct.pack("<2q", 1 << 62, 1)), [2, 3])))
    yield "sparse-fewer-indices", model(graph(add, sparse(two_values, at(1), [3])))
    yield "sparse-strings", model(graph(add, sparse(tensor("w", 8, [1], None, text(6, "a" * 100)), at(1), [3])))
    yield "bomb-sparse", model(graph(add, sparse(one_value, at(1), [HUGE])))


def external(location, offset=None, length=None, more=()):
    entries = [("location", location)] + ([("offset", str(offset))] if offset is not None else []) + ([("length", str(length))] if length is not None else [])
    return b"".join([text(13, text(1, k) + text(2, v)) for k, v in [*entries, *more]] + [integer(14, 1)])


def external_weight(location, offset=None, length=None, more=()):
    return with_weight(tensor("w", 1, [3], None, external(location, offset, length, more)))


def external_data():
    yield "external-runs", external_weight("data")
    yield "external-hardlink-runs", external_weight("hardlink")
    yield "external-parent", external_weight("../secret")
    yield "external-parent-behind-folder", external_weight("inner/../../secret")
    yield "external-backslashes", external_weight("..\\secret")
    yield "external-percent", external_weight("%2e%2e/secret")
    yield "external-absolute", external_weight("/etc/passwd")
    yield "external-drive", external_weight("C:\\secret")
    yield "external-host", external_weight("//host/share/secret")
    yield "external-url", external_weight("file:///etc/passwd")
    yield "external-empty-location", external_weight("")
    yield "external-folder-itself", external_weight(".")
    yield "external-folder", external_weight("inner")
    yield "external-nul", external_weight(b"data\0.txt")
    yield "external-not-utf8", external_weight(b"\xff\xfe")
    yield "external-location-of-5000", external_weight("d" * 5000)
    yield "external-memory-marker", external_weight("*/_ORT_MEM_ADDR_/*", offset=4096, length=12)
    yield "external-no-location", with_weight(tensor("w", 1, [3], None, integer(14, 1)))
    yield "external-symlink", external_weight("link")
    yield "external-symlinked-folder", external_weight("outside/secret")
    yield "external-device", external_weight("zero")
    yield "external-fifo", external_weight("pipe")
    yield "external-missing", external_weight("missing")
    yield "external-offset", external_weight("data", offset=1 << 50)
    yield "external-offset-overflows", external_weight("data", offset=(1 << 64) - 4, length=12)
    yield "external-offset-of-65-bits", external_weight("data", offset=1 << 64)
    yield "external-negative-offset", external_weight("data", offset=-4)
    yield "external-offset-with-sign", external_weight("data", offset="+0")
    yield "external-offset-as-float", external_weight("data", offset="1e0")
    yield "external-length", external_weight("data", length=5)
    yield "external-length-zero", external_weight("data", length=0)
    yield "external-length-huge", external_weight("data", length=1 << 62)
    yield "external-unknown-keys-run", external_weight("data", more=[("checksum", "0" * 40), ("__class__", "x")])
    secret = tensor("", 1, [3], None, external("../secret"))
    yield "external-in-constant", model(graph(node("Constant", [], ["y"], attribute("value", 4, text(5, secret)))))
    yield "external-in-sparse", model(graph(node("Add", ["x", "w"], ["y"]), sparse(tensor("w", 1, [1], None, external("../secret")), tensor("", 7, [1], b"\0" * 8), [3])))
    yield "external-in-branch", if_model(branch(node("Add", ["x", "w"], ["r"]), text(5, tensor("w", 1, [3], None, external("../secret")))))
    yield "external-in-function", model(graph(node("F", ["x"], ["y"], domain="own")), opsets=OWN,
                                        more=function("F", node("Constant", [], ["b"], attribute("value", 4, text(5, secret)), field=7)))
