"""Workers that die, hang or are poisoned: what is answered, and what is not lost."""

import contextlib
import os
import signal
import threading

import httpx
import numpy as np
import psutil
import pytest

from dlbench.proxy.dispatch.admission import GIVEN_UP, HELD_OFF
from testbed import messages
from testbed.messages import post
from testbed.patience import eventually

X = {"inputs": [messages.X]}


def test_a_hung_worker_is_replaced_and_its_request_answered(models, start_proxy):
    proxy = start_proxy(models.affine(), workers=2, worker_timeout_s=5)
    hung = proxy.workers()[0]
    os.kill(hung, signal.SIGSTOP)
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        for _ in range(4):  # the stopped one gets one of them
            assert client.post("/v2/models/affine/infer", json=X).status_code == 200
    eventually(lambda: hung not in proxy.workers() and len(proxy.workers()) == 2)
    assert not psutil.pid_exists(hung) or psutil.Process(hung).status() == "zombie"


def test_a_request_that_kills_two_workers_is_not_tried_again(models, start_proxy):
    proxy = start_proxy(models.slow(1400), workers=1)
    killed = []

    def kill_whoever_runs():
        while len(killed) < 2:
            for pid in proxy.workers():
                if pid not in killed and proxy.ask("counters")["batches"] > len(killed):
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)

    with proxy.client() as client:
        request = post(X, "/v2/models/slow/infer")
        client.send(request)
        kill_whoever_runs()
        status, answer = client.answer()
        assert status == 500
        assert "two workers died" in answer["error"]
        eventually(proxy.workers)
        client.send(request)
        assert client.answer()[0] == 200
    assert proxy.ask("counters")["batches"] == 3


def test_without_a_worker_the_proxy_is_not_ready(models, start_proxy):
    proxy = start_proxy(models.affine(), workers=1)
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        assert client.get("/v2/health/ready").status_code == 200
        paths = ("/v2/health/ready", "/v2/models/affine/ready", "/v2/health/live")

        def without_a_worker():
            """The first replacement may come before anybody asks; the next ones take their time."""
            for pid in proxy.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return [client.get(path).status_code for path in paths] == [503, 503, 200]

        eventually(without_a_worker)
        eventually(lambda: client.get("/v2/health/ready").status_code == 200)


def spoil_and_kill(path, proxy):
    """No worker can be started from now on, and none is left."""
    workers = proxy.workers()
    path.write_bytes(b"no model")
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def test_those_who_wait_for_a_model_that_is_given_up_hear_it_at_once(
    models, start_proxy, raw_client, tmp_path
):
    """Nobody waits for the drain to end, which here would take an hour."""
    path = tmp_path / "slow.onnx"
    path.write_bytes(models.slow().read_bytes())
    proxy = start_proxy(path, {"drain_timeout_s": 3600}, workers=2, max_batch_size=1)
    clients = [proxy.client() for _ in range(8)]
    try:
        for client in clients:
            client.send(post(X, "/v2/models/slow/infer"))
        eventually(lambda: proxy.ask("counters")["batches"] >= 2)
        spoil_and_kill(path, proxy)
        answers = [client.answer() for client in clients]
    finally:
        for client in clients:
            client.__exit__()
    assert {status for status, _ in answers} <= {200, 503}
    refused = [answer["error"] for status, answer in answers if status == 503]
    assert len(refused) >= 4
    assert set(refused) == {GIVEN_UP}
    assert proxy.process.wait(60) == 1


def test_while_a_start_is_retried_new_requests_are_told_when_to_come_back(
    models, start_proxy, tmp_path
):
    path = tmp_path / "affine.onnx"
    path.write_bytes(models.affine().read_bytes())
    proxy = start_proxy(path, workers=1)
    spoil_and_kill(path, proxy)
    found = set()
    with httpx.Client(base_url=proxy.url, timeout=0.1) as client:
        while proxy.process.poll() is None:
            # Who came before the first start has failed waits, and this client does not.
            with contextlib.suppress(httpx.TransportError):
                reply = client.post("/v2/models/affine/infer", json=X)
                found.add((reply.status_code, reply.json().get("error")))
                assert 1 <= int(reply.headers.get("retry-after", 1)) <= 10
    assert {status for status, _ in found} <= {200, 503}
    assert (503, HELD_OFF) in found
    assert proxy.process.wait(60) == 1


def test_a_model_that_is_given_up_takes_no_other_with_it(models, start_proxy, tmp_path):
    """Both of its workers fail, which is one end and not two."""
    path = tmp_path / "doomed.onnx"
    path.write_bytes(models.affine().read_bytes())
    proxy = start_proxy(models.scaled(), {"also": [str(path)]}, workers=2)
    path.write_bytes(b"no model")
    for pid in proxy.workers()[-2:]:
        os.kill(pid, signal.SIGKILL)
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        eventually(lambda: client.get("/v2/models/doomed").status_code == 404)
        (row,) = [
            row for row in client.post("/v2/repository/index").json() if row["name"] == "doomed"
        ]
        assert "doomed.onnx" in row["reason"]
        assert client.get("/v2/models/scaled/ready").status_code == 200
        scale = {"name": "scale", "datatype": "FP32", "shape": [], "data": [2]}
        asked = {"inputs": [*X["inputs"], scale]}
        assert client.post("/v2/models/scaled/infer", json=asked).status_code == 200


@pytest.mark.parametrize("policy", ["shared_queue", "round_robin", "consistent_hash"])
def test_behind_a_hung_worker_only_what_has_begun_waits(models, start_proxy, policy):
    """The worker's time-out is an hour: what is answered before was run elsewhere."""
    proxy = start_proxy(
        models.affine(), workers=2, max_batch_size=2, worker_timeout_s=3600,
        scheduling_policy=policy,
    )  # fmt: skip
    done, answered = threading.Event(), [0] * 12
    hung = proxy.workers()[0]

    def ask(client, asker):
        x = {**X["inputs"][0], "data": [answered[asker], asker, 3]}
        reply = client.post("/v2/models/affine/infer", json={"inputs": [x]})
        assert reply.json()["outputs"][0]["data"] == [2 * v + 1 for v in x["data"]]
        answered[asker] += 1

    def ask_on(asker):
        with httpx.Client(base_url=proxy.url, timeout=600) as client:
            while not done.is_set():
                ask(client, asker)

    askers = [threading.Thread(target=ask_on, args=(number,)) for number in range(12)]
    try:
        for asker in askers:
            asker.start()
        eventually(lambda: min(answered) > 10)
        os.kill(hung, signal.SIGSTOP)
        before = list(answered)
        # A batch of two at most has begun there; whoever else waits is answered again and again.
        eventually(
            lambda: sum(now > then + 20 for now, then in zip(answered, before, strict=True)) >= 10
        )
        os.kill(hung, signal.SIGCONT)
        eventually(lambda: all(now > then + 20 for now, then in zip(answered, before, strict=True)))
    finally:
        os.kill(hung, signal.SIGCONT)
        done.set()
        for asker in askers:
            asker.join()
    assert hung in proxy.workers()


@pytest.mark.parametrize("policy", ["shared_queue", "power_of_two_choices", "consistent_hash"])
def test_workers_killed_under_load_lose_no_request(models, start_proxy, policy):
    proxy = start_proxy(models.affine(), workers=2, scheduling_policy=policy)
    done = threading.Event()
    statuses = []

    def ask():
        with httpx.Client(base_url=proxy.url, timeout=60) as client:
            number = 0
            while not done.is_set():
                number += 1
                x = {**X["inputs"][0], "data": [number, 2, 3]}
                reply = client.post("/v2/models/affine/infer", json={"inputs": [x]})
                statuses.append(reply.status_code)
                assert np.allclose(reply.json()["outputs"][0]["data"], [2 * number + 1, 5, 7])

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(3):
            eventually(lambda: len(proxy.workers()) == 2)
            before = len(statuses)
            os.kill(proxy.workers()[0], signal.SIGKILL)
            eventually(lambda before=before: len(statuses) > before + 20)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert set(statuses) == {200}
