"""A change of models is answered, whatever becomes of it."""

import asyncio

import pytest

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.http.connection import HttpRequest
from dlbench.proxy.http.head import RequestHead
from dlbench.proxy.protocols.routes import Api


class Repository:
    """One without models, whose loads end in a given way."""

    models = ()

    def __init__(self, error):
        self._error = error

    async def load(self, name, knobs):
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (None, 200, b""),
        (BadRequest("no model"), 400, b'{"error":"no model"}'),
        (KeyError("m"), 500, b'{"error":"internal error; see the proxy log"}'),
    ],
)
def test_a_load_is_answered_however_it_ends(error, status, body):
    async def load():
        replied = asyncio.get_running_loop().create_future()
        api = Api(Repository(error), None, None)
        request = HttpRequest(RequestHead(b"POST", b"/v2/repository/models/m/load"), b"")
        api.handle(request, lambda *reply: replied.set_result(reply))
        return await replied

    found, _, pieces = asyncio.run(load())
    assert (found, b"".join(pieces)) == (status, body)
