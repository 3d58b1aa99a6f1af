"""Two models of our own to try things on, seeded and cached.

`mlp` (256-2048-2048-256) gains threefold from batching on a CPU; `cnn` (28x28x1, three
convolutions, two dense layers) hardly at all.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Callable

# Part of the cached file's name: a change to the models below must change it.
VERSION = 1
# Old enough for every onnxruntime that we accept.
OPSET = 17
IR_VERSION = 8
SEED = 20


def demo_path(name: str) -> Path:
    """The cached file of a demo model, made if it is not there."""
    folder = Path(platformdirs.user_cache_dir("dlbench")) / "models"
    path = folder / f"{name}-{VERSION}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, DEMOS[name]())
    return path


def _write_atomically(path: Path, content: bytes) -> None:
    """Write so that of two processes creating the model neither reads half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def _mlp() -> bytes:
    from onnx import helper

    sizes = (256, 2048, 2048, 256)
    graph = _Graph()
    last = "input"
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        final = layer == len(sizes) - 2
        last = graph.dense(last, inputs, outputs, "output" if final else f"dense{layer}")
        last = last if final else graph.add("Relu", [last], f"relu{layer}")
    return graph.model("mlp", ["batch", 256], ["batch", 256], helper)


def _cnn() -> bytes:
    from onnx import helper

    graph = _Graph()
    last = "input"
    for layer, (inputs, outputs, stride) in enumerate(((1, 32, 1), (32, 64, 2), (64, 64, 2))):
        weights = graph.weights((outputs, inputs, 3, 3), inputs * 9)
        conv = graph.add(
            "Conv", [last, weights], f"conv{layer}", strides=[stride, stride], pads=[1, 1, 1, 1]
        )
        last = graph.add("Relu", [conv], f"relu{layer}")
    last = graph.add("Flatten", [last], "flat", axis=1)
    last = graph.add("Relu", [graph.dense(last, 64 * 7 * 7, 64, "dense0")], "relu3")
    last = graph.add("Softmax", [graph.dense(last, 64, 10, "dense1")], "output", axis=1)
    return graph.model("cnn", ["batch", 1, 28, 28], ["batch", 10], helper)


class _Graph:
    """Nodes and seeded weights of a model being put together."""

    def __init__(self) -> None:
        import numpy as np

        self._rng = np.random.default_rng(SEED)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weights(self, shape: tuple[int, ...], fan_in: int) -> str:
        """He initialisation, so that activations neither die nor explode."""
        import numpy as np
        from onnx import numpy_helper

        name = f"w{len(self._weights)}"
        values = self._rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def dense(self, source: str, inputs: int, outputs: int, output: str) -> str:
        weights = self.weights((inputs, outputs), inputs)
        bias = self.weights((outputs,), inputs)
        return self.add("Gemm", [source, weights, bias], output)

    def model(self, name: str, inputs: list[Any], outputs: list[Any], helper: Any) -> bytes:  # noqa: ANN401 - onnx.helper
        from onnx import TensorProto

        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, outputs)],
            self._weights,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())


# Imports of onnx stay inside: it takes 0.3 s that a start with a cached model need not pay.
DEMOS: dict[str, Callable[[], bytes]] = {"mlp": _mlp, "cnn": _cnn}
