"""A writer of ONNX's wire format that is able to lie."""
import struct


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


# --- Attributes -----------------------------------------------------------------------------------------------

def attribute(name, kind, *fields):
    return text(5, text(1, name) + b"".join(fields) + (integer(20, kind) if kind is not None else b""))


def ints(name, values):
    return attribute(name, 7, *[integer(8, v) for v in values])


def number(name, value):
    return attribute(name, 2, integer(3, value))


def real(name, value):
    return attribute(name, 1, floating(2, value))


def words(name, value):
    return attribute(name, 3, text(4, value))


def subgraph(name, graph):
    return attribute(name, 5, text(6, graph))


def reference(name, kind, argument):
    return attribute(name, kind, text(21, argument))


# --- Nodes and tensors ----------------------------------------------------------------------------------------

def node(op, inputs, outputs, *attributes, name="", domain="", field=1):
    """field: 1 in graphs, 7 in functions"""
    return text(field, b"".join([text(1, i) for i in inputs] + [text(2, o) for o in outputs] +
                                ([text(3, name)] if name else []) + [text(4, op)] + list(attributes) +
                                ([text(7, domain)] if domain else [])))


def tensor(name, kind, dims, raw=None, *more):
    return b"".join([integer(1, d) for d in dims] + [integer(2, kind), text(8, name)] +
                    ([text(9, raw)] if raw is not None else []) + list(more))


def int64s(name, values, dims=None):
    return text(5, tensor(name, 7, [len(values)] if dims is None else dims, struct.pack(f"<{len(values)}q", *values)))


def int32s(name, values, dims=None):
    return text(5, tensor(name, 6, [len(values)] if dims is None else dims, struct.pack(f"<{len(values)}i", *values)))


def floats(name, values, dims=None):
    return text(5, tensor(name, 1, [len(values)] if dims is None else dims, struct.pack(f"<{len(values)}f", *values)))


def bools(name, values, dims=None):
    return text(5, tensor(name, 9, [len(values)] if dims is None else dims, bytes(values)))


def zeros(name, dims):
    count = 1
    for d in dims:
        count *= d
    return floats(name, [0.0] * count, dims)


def sparse(values, indices, dims):
    return text(15, text(1, values) + text(2, indices) + b"".join(integer(3, d) for d in dims))


def value(field, name, kind=1, dims=()):
    shape = b"".join(text(1, integer(1, d) if isinstance(d, int) else text(2, d)) for d in dims)
    return text(field, text(1, name) + text(2, text(1, integer(1, kind) + text(2, shape))))


# --- Models ---------------------------------------------------------------------------------------------------

def graph(*parts, inputs=None, outputs=None):
    inputs = value(11, "x", 1, [2, 3]) if inputs is None else inputs
    outputs = value(12, "y", 1, ["N"]) if outputs is None else outputs
    return b"".join(parts) + text(2, "g") + inputs + outputs


def model(g, ir=8, opsets=(("", 17),), more=b""):
    imports = b"".join(text(8, (text(1, d) if d else b"") + integer(2, v)) for d, v in opsets)
    return (integer(1, ir) if ir is not None else b"") + text(7, g) + imports + more


def one(op, inputs, *attributes_and_initializers, outputs=("y",), dims=(2, 3), kind=1, opset=17, domain=""):
    """A model of one node; its input x is kind[dims]. An initializer is field 5 of a graph, as an attribute is of a node:
    tensors come in lists."""
    attributes = [a for a in attributes_and_initializers if isinstance(a, bytes)]
    initializers = [t for a in attributes_and_initializers if isinstance(a, list) for t in a]
    opsets = (("", opset), *([(domain, 1)] if domain else []))
    return model(graph(node(op, inputs, outputs, *attributes, domain=domain), *initializers, inputs=value(11, "x", kind, dims)), opsets=opsets)


def function(name, *nodes, attributes=()):
    """nodes with field=7"""
    return text(25, text(1, name) + text(4, "a") + text(5, "b") + b"".join(text(6, a) for a in attributes) + b"".join(nodes) +
                text(9, integer(2, 17)) + text(9, text(1, "own") + integer(2, 1)) + text(10, "own"))


OWN = (("", 17), ("own", 1))


def call(function_name, inputs=("a",), outputs=("b",), *attributes, field=7):
    return node(function_name, inputs, outputs, *attributes, domain="own", field=field)
