"""Cases of control flow."""
import numpy as np
from onnx import helper, numpy_helper

from arrays import BOOL, F32, I64, f, graph, i, plain, scalar


def if_of(v):
    op = "Shape" if v >= 11 else "Size"  # branches differed in rank from 11 on
    then = graph("then", [helper.make_node(op, ["outer"], ["t"])], [], [("t", I64, None)])
    other = graph("else", [helper.make_node("Constant", [], ["e"], value=numpy_helper.from_array(i(7) if v >= 11 else scalar(7)))], [], [("e", I64, None)])
    for condition in (np.array(True), np.array([False])):
        yield plain(condition, then_branch=then, else_branch=other)


def loop(v):
    nodes = [helper.make_node("Add", ["state", "outer_sum"], ["next"]), helper.make_node("Identity", ["next"], ["scan"]),
             helper.make_node("Identity", ["going"], ["still"])]
    body = graph("body", nodes, [("turn", I64, []), ("going", BOOL, []), ("state", F32, [2])],
                 [("still", BOOL, []), ("next", F32, [2]), ("scan", F32, [2])])
    yield plain(scalar(3), np.array(True), f(2), body=body, outputs=2)
    yield plain(scalar(0), np.array(True), f(2), body=body, outputs=2)
    yield plain(scalar(5), np.array(False), f(2), body=body, outputs=2)


def scan(v):
    nodes = [helper.make_node("Add", ["state", "row"], ["next"]), helper.make_node("Identity", ["next"], ["scanned"])]
    body = graph("body", nodes, [("state", F32, [2]), ("row", F32, [2])], [("next", F32, [2]), ("scanned", F32, [2])])
    if v < 9:
        yield plain(None, f(3, 2), f(3, 4, 2), body=body, num_scan_inputs=1, outputs=2)
        rows, states = np.arange(24, dtype=np.float32).reshape(3, 4, 2), np.ones((3, 2), np.float32)
        for directions in ([0], [1]):
            yield plain(i(4, 2, 1), states, rows, body=body, num_scan_inputs=1, directions=directions, outputs=2)
    else:
        yield plain(f(2), f(4, 2), body=body, num_scan_inputs=1, outputs=2)
        yield plain(f(2), f(4, 2), body=body, num_scan_inputs=1, scan_input_directions=[1], scan_output_directions=[1], outputs=2)
