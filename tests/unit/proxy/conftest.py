"""A served model without processes: NumPy computes at once. Handlers are asked without sockets."""

import json
import pickle
from concurrent.futures import Future

import numpy as np
import pytest

from dlbench.proxy.errors import NotFound, RequestError
from dlbench.proxy.http.connection import HttpRequest
from dlbench.proxy.http.head import RequestHead
from dlbench.proxy.http.reply import error_reply
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec


class AsideAtOnce:
    """The process for large requests: what goes there and back is pickled, but nobody waits."""

    def call(self, function, *arguments):
        function, *arguments = pickle.loads(pickle.dumps((function, *arguments), 5))
        done = Future()
        try:
            done.set_result(pickle.loads(pickle.dumps(function(*arguments), 5)))
        except RequestError as error:
            done.set_exception(pickle.loads(pickle.dumps(error)))
        return done


class NumpyModel:
    """What handlers see of a served model; `compute` takes and gives arrays."""

    aside = AsideAtOnce()

    def refused(self, error):
        """Nobody counts here."""

    def __init__(self, signature, compute, name="m", version="1"):
        self.name, self.version, self.signature = name, version, signature
        self._compute = compute

    def submit(self, request, reply):
        arrays = [
            np.frombuffer(data, spec.numpy_type).reshape(shape)
            for spec, data, shape in zip(
                self.signature.inputs, request.data, request.layout.shapes, strict=True
            )
        ]
        try:
            reply(tuple(Tensor(a.shape, a.tobytes()) for a in self._compute(*arrays)))
        except RequestError as error:
            reply(error)

    def abandon(self, job):
        """Everything is answered at once."""


class NumpyModels:
    """Models by name, as a server has them."""

    aside = AsideAtOnce()

    def refused(self, error):
        """Nobody counts here."""

    def __init__(self, *models):
        self._models = {model.name: model for model in models}

    @property
    def models(self):
        return list(self._models.values())

    def get(self, name="", version=""):
        name = name or next(iter(self._models))
        if name not in self._models or version not in ("", self._models[name].version):
            raise NotFound(f"unknown model {name!r}")
        return self._models[name]


@pytest.fixture(scope="session")
def numpy_models():
    return NumpyModels


@pytest.fixture(scope="session")
def numpy_model():
    """A model of one line: inputs and outputs as (name, datatype, dims, batch axis)."""

    def make(inputs, outputs, compute, name="m"):
        batchable = all(axis >= 0 for *_, axis in outputs)
        specs = (tuple(TensorSpec(*spec) for spec in side) for side in (inputs, outputs))
        return NumpyModel(Signature(*specs, batchable=batchable), compute, name)

    return make


@pytest.fixture(scope="session")
def affine(numpy_model):
    """y = 2x + 1 on rows of three."""
    row = ("FP32", ("batch", 3), 0)
    return numpy_model([("x", *row)], [("y", *row)], lambda x: [2 * x + 1])


@pytest.fixture(scope="session")
def recurrent(numpy_model):
    """Two inputs and outputs; the batch is axis 1 of the state, and `scale` has none."""
    return numpy_model(
        [("x", "FP32", ("n", 3), 0), ("state", "FP32", (2, "n", 1), 1), ("scale", "INT64", (), -1)],
        [("y", "FP32", ("n",), 0), ("next", "FP32", (2, "n", 1), 1)],
        lambda x, state, scale: [x.sum(axis=1) * np.float32(scale), state + x.sum(axis=1)[:, None]],
    )


@pytest.fixture(scope="session")
def total(numpy_model):
    """One number for the whole batch."""
    return numpy_model([("x", "FP32", ("n", 3), -1)], [("y", "FP32", (), -1)], lambda x: [x.sum()])


@pytest.fixture(scope="session")
def ask():
    """Call a handler; gives its reply's status, headers and JSON, an error's like any other's."""

    def call(handler, subject, body=b"", **headers):
        if isinstance(handler, type):  # one that keeps something for its model
            handler = handler(subject)
        replies = []

        def respond(status, lines, pieces):
            fields = dict(line.split(b": ", 1) for line in lines.splitlines())
            replies.append((status, fields, json.loads(b"".join(pieces) or b"null")))

        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kept = {name.replace("_", "-").encode(): value for name, value in headers.items()}
        try:
            handler(subject, HttpRequest(RequestHead(b"POST", b"/", kept), data), respond)
        except RequestError as error:
            respond(error.status, *error_reply(error))
        (reply,) = replies
        return reply

    return call
