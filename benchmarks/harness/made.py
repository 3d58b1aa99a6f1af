"""Models made for a benchmark, so that their cost is known: one that costs nothing, one that is all cost."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import NodeProto

WIDTH = 16
SIDE = 256  # of the matrices that `costly` multiplies: some 0.3 ms each


@contextmanager
def affine() -> Iterator[Path]:
    """y = 2x + 1 for rows of 16 numbers."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["m"]),
        helper.make_node("Add", ["m", "one"], ["y"]),
    ]
    constants = {"two": np.array(2, np.float32), "one": np.array(1, np.float32)}
    with saved("affine", nodes, constants, [WIDTH]) as path:
        yield path


@contextmanager
def costly(products: int) -> Iterator[Path]:
    """Every row of a batch costs as much as the next: `products` products of matrices of its own."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=1),
        helper.make_node("Reshape", ["sum", "column"], ["scale"]),
        helper.make_node("Mul", ["scale", "matrix"], ["m0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"m{number}", "matrix"], [f"m{number + 1}"])
        for number in range(products)
    ]
    nodes.append(helper.make_node("ReduceMean", [f"m{products}"], ["y"], axes=[1, 2], keepdims=0))
    constants = {
        "axes": np.array([1], np.int64),
        "column": np.array([-1, 1, 1], np.int64),
        "matrix": np.full((SIDE, SIDE), 1 / SIDE, np.float32),
    }
    with saved("costly", nodes, constants, []) as path:
        yield path


@contextmanager
def saved(
    name: str, nodes: list[NodeProto], constants: dict[str, np.ndarray], row: list[int]
) -> Iterator[Path]:
    """The model's file; gone with the block."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *row])
    initial = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, [x], [y], initial)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        yield path


def rows(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Distinct seeded inputs of one row for these models."""
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal((1, WIDTH), np.float32)} for _ in range(count)]
