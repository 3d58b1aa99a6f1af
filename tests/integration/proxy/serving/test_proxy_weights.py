"""Weights in files of their own: no answers by old and by new ones in turns."""

import asyncio
import os
import signal
from itertools import groupby

import httpx
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import ModelError
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers.link import ProcessLink
from dlbench.proxy.workers.start import arguments, started

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 1, 1]}]}


@pytest.fixture
def client():
    with httpx.Client(timeout=60) as found:
        yield found


def weight(client, proxy):
    """By which weights it answers; 0 while it has no worker for new requests."""
    reply = client.post(f"{proxy.url}/v2/models/weighted/infer", json=BODY)
    if reply.status_code == 503:
        return 0
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"][0]["data"][0]


def test_a_replacement_makes_all_workers_load_the_new_weights(weighted, start_proxy, client):
    path = weighted("m", 2)
    proxy = start_proxy(path, workers=2, scheduling_policy="round_robin")
    assert {weight(client, proxy) for _ in range(4)} == {2}
    weighted("m", 3)
    assert {weight(client, proxy) for _ in range(4)} == {2}  # loaded is loaded
    os.kill(proxy.workers()[0], signal.SIGKILL)
    seen = []
    while seen[-4:] != [3] * 4:
        seen.append(weight(client, proxy))
    order = [value for value, _ in groupby(filter(None, seen))]
    assert order in ([2, 3], [3])


def test_a_model_loaded_again_has_its_new_weights_and_no_results_of_the_old(
    weighted, start_proxy, client
):
    path = weighted("m", 2)
    proxy = start_proxy("", {"repository": str(path.parent)}, cache_size=64)
    for value in (2, 3):
        weighted("m", value)
        load = client.post(f"{proxy.url}/v2/repository/models/weighted/load")
        assert load.status_code == 200, load.text
        assert [weight(client, proxy) for _ in range(2)] == [value] * 2


def test_missing_weights_are_named(weighted, start_proxy):
    path = weighted("m", 2)
    (path.parent / "encoder.layer.0").unlink()
    error = start_proxy(path).first["error"]
    assert (
        error == f"{path}: its weights in {path.parent}/encoder.layer.0: No such file or directory"
    )


def test_a_worker_told_what_to_load_refuses_anything_else(weighted):
    path = str(weighted("m", 2))
    told = arguments(path, ServerSettings(model=path, device="cpu"), ServingConfig())

    async def scenario():
        with pytest.raises(ModelError, match="changed while they were loaded"):
            await started(ProcessLink({**told, "fingerprint": "00"}))

    asyncio.run(scenario())
