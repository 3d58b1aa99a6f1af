"""Workers that die, hang or are poisoned: what is answered, and what is not lost."""

import contextlib
import json
import os
import signal
import threading
import time

import httpx
import numpy as np
import psutil
import pytest

X = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}


def wait_until(true, seconds=60):
    """Poll a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_hung_worker_is_replaced_and_its_request_answered(models, start_proxy):
    proxy = start_proxy(models.affine(), workers=2, worker_timeout_s=1)
    hung = proxy.workers()[0]
    os.kill(hung, signal.SIGSTOP)
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        for _ in range(4):  # the stopped one gets one of them
            assert client.post("/v2/models/affine/infer", json=X).status_code == 200
    wait_until(lambda: hung not in proxy.workers() and len(proxy.workers()) == 2)
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
        body = json.dumps(X).encode()
        head = (
            f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.send(head.encode() + body)
        kill_whoever_runs()
        status, answer = client.answer()
        assert status == 500
        assert "two workers died" in answer["error"]
        wait_until(proxy.workers)
        client.send(head.encode() + body)
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

        wait_until(without_a_worker)
        wait_until(lambda: client.get("/v2/health/ready").status_code == 200)


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
            wait_until(lambda: len(proxy.workers()) == 2)
            before = len(statuses)
            os.kill(proxy.workers()[0], signal.SIGKILL)
            wait_until(lambda before=before: len(statuses) > before + 20)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert set(statuses) == {200}
