"""`POST /predict` as tutorials have it: `{"input": …}` gives `{"output": …}`."""

from __future__ import annotations

from functools import partial
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench.proxy.errors import BadRequest, NotFound
from dlbench.proxy.http.encoding import AT_ONCE
from dlbench.proxy.protocols.columns import read_columns, request_of
from dlbench.proxy.protocols.handler import answer_json, read_aside
from dlbench.proxy.protocols.json_reply import json_value
from dlbench.proxy.protocols.json_tensors import write_nested
from dlbench.proxy.protocols.v2_json import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.proxy.http.connection import HttpRequest, Respond
    from dlbench.proxy.protocols.handler import Asked
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.tensors import Buffer, Signature, TensorSpec


def predict(models: Repository, request: HttpRequest, respond: Respond) -> None:
    """Run the model that the body names, or the only one, on `input` or several `inputs`.

    Without the batch axis (one axis less) an input is one row, and is answered without it.
    """
    served = {model.name: model for model in models.models}
    signatures = {name: model.signature for name, model in served.items()}

    def run(found: tuple[str, Asked]) -> None:
        name, (asked, write) = found
        model = served[name]
        answer_json(model, asked, request.client, respond, partial(write, model.signature))

    if len(request.body) <= AT_ONCE:
        run(read(signatures, request.body))
    else:
        body = PickleBuffer(request.body)
        read_aside(models, request.client, respond, run, read, signatures, body)


def read(signatures: dict[str, Signature], body: Buffer) -> tuple[str, Asked]:
    """Which model is asked, for what, and how that is answered.

    Raises:
        BadRequest: with a text that says what is wrong.
        NotFound: no such model.
    """
    document = load(body)
    name = _model(list(signatures), document)
    signature = signatures[name]
    given = [key for key in ("input", "inputs") if key in document]
    if len(given) != 1:
        raise BadRequest("""the body must contain "input": values or "inputs": {name: values}""")
    arrays = read_columns(signature, document[given[0]])
    alone = _is_one_row(signature, arrays)
    if alone:
        arrays = [_with_row_axis(*pair) for pair in zip(signature.inputs, arrays, strict=True)]
    write = partial(_write, alone, given == ["input"])
    return name, (request_of(signature, arrays), write)


def _write(alone: bool, unnamed: bool, signature: Signature, outputs: Outputs) -> object:
    arrays = [write_nested(*pair) for pair in zip(signature.outputs, outputs, strict=True)]
    if alone:
        pairs = zip(signature.outputs, arrays, strict=True)
        arrays = [_without_row_axis(signature, *pair) for pair in pairs]
    columns = dict(zip([s.name for s in signature.outputs], map(json_value, arrays), strict=True))
    if unnamed and len(columns) == 1:
        return {"output": columns[signature.outputs[0].name]}
    return {"outputs": columns}


def _model(names: list[str], document: dict[str, Any]) -> str:
    name = document.get("model", "")
    if not isinstance(name, str) or (not name and len(names) != 1):
        raise BadRequest(f"""the body must name the "model": {", ".join(names)}""")
    if name and name not in names:
        raise NotFound(f"unknown model {name!r}; served here: {', '.join(names)}")
    return name or names[0]


def _is_one_row(signature: Signature, arrays: list[NDArray[Any]]) -> bool:
    """Whether the inputs that have rows came without that axis."""
    pairs = list(zip(signature.inputs, arrays, strict=True))
    rowed = [pair for pair in pairs if pair[0].batch_axis >= 0] or pairs
    return all(array.ndim == len(spec.dims) - 1 for spec, array in rowed)


def _with_row_axis(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != len(spec.dims) - 1:
        return array
    return np.expand_dims(array, max(spec.batch_axis, 0))


def _without_row_axis(signature: Signature, spec: TensorSpec, values: NDArray[Any]) -> NDArray[Any]:
    """One row's values without the row axis, which a model of batch 1 has first, if at all."""
    axis = spec.batch_axis
    if axis < 0 and spec.dims[:1] in ((1,), signature.inputs[0].dims[:1]):
        axis = 0
    return values.squeeze(axis) if axis >= 0 and values.shape[axis] == 1 else values


SERVER_ROUTES = {"/predict": (b"POST", predict)}
