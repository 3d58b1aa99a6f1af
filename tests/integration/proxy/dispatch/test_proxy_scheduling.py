"""Policies, orders, batch sizes and spreading end to end: exact answers from a real proxy."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from dlbench.proxy.dispatch.policy import POLICIES
from testbed import messages
from testbed.messages import post
from testbed.patience import PATIENCE_S, eventually


def tensor(name, array, datatype="FP32"):
    return messages.tensor(
        *array.ravel().tolist(), name=name, shape=list(array.shape), datatype=datatype
    )


def infer(client, proxy, *tensors, **parameters):
    """The reply's status and its outputs as arrays, or the error."""
    body = {"inputs": list(tensors), "parameters": parameters}
    reply = client.post(f"/v2/models/{proxy.name}/infer", json=body)
    document = reply.json()
    if reply.status_code != 200:
        return reply.status_code, document["error"]
    outputs = document["outputs"]
    return 200, {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in outputs}


def connect(proxy):
    return httpx.Client(base_url=proxy.url, timeout=PATIENCE_S)


def rows_of(seed, rows):
    return np.random.default_rng(seed).integers(-99, 99, (rows, 3)).astype(np.float32)


def together(proxy, one, count, threads=6):
    """Ask from many connections at once; each `one(client, number)` checks its own answer."""
    local = threading.local()
    clients = []

    def ask(number):
        if not hasattr(local, "client"):
            local.client = connect(proxy)
            clients.append(local.client)
        one(local.client, number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(ask, range(count)))
    for client in clients:
        client.close()


def batch_sizes(proxy):
    """Rows of a batch -> how many there were."""
    with connect(proxy) as client:
        stats = client.get(f"/v2/models/{proxy.name}/stats").json()["model_stats"][0]
    return {row["batch_size"]: row["compute_infer"]["count"] for row in stats["batch_stats"]}


def served_by_worker(proxy):
    """Worker's name -> requests that it got."""
    with connect(proxy) as client:
        lines = client.get("/metrics").text.splitlines()
    found = {}
    for line in lines:
        if line.startswith("dlbench_worker_requests_total{"):
            labels, _, value = line.partition("}")
            name = labels.partition('worker="')[2].partition('"')[0]
            found[name] = int(float(value))
    return found


def check_affine(proxy, number, client, rows=2):
    x = rows_of(number, rows)
    status, outputs = infer(client, proxy, tensor("x", x))
    assert status == 200, outputs
    np.testing.assert_array_equal(outputs["y"], 2 * x + 1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("order", ["fifo", "priority", "edf"])
def test_every_policy_and_order_gives_everybody_their_own_answer(
    models, shared_proxies, policy, order
):
    proxy = shared_proxies(models.affine(), workers=2, max_batch_size=4)
    proxy.configure(scheduling_policy=policy, queue_order=order, max_queue_delay_ms=0.5)
    together(proxy, lambda client, number: check_affine(proxy, number, client, 1 + number % 5), 24)
    assert proxy.ask("counters")["in_flight"] == 0


@pytest.mark.parametrize("policy", ["round_robin", "weighted_round_robin"])
def test_shares_are_exact(models, start_proxy, policy):
    proxy = start_proxy(
        models.affine(), workers=3, scheduling_policy=policy, worker_weights=[2, 1, 1]
    )
    with connect(proxy) as client:
        for number in range(40):
            check_affine(proxy, number, client)
    shares = {"round_robin": [14, 13, 13], "weighted_round_robin": [20, 10, 10]}[policy]
    served = served_by_worker(proxy)
    assert [served[name] for name in sorted(served)] == shares


def test_the_same_input_goes_to_the_same_worker_and_others_spread(models, start_proxy):
    proxy = start_proxy(models.affine(), workers=3, scheduling_policy="consistent_hash")
    with connect(proxy) as client:
        for _ in range(10):
            check_affine(proxy, 7, client)
        assert sorted(served_by_worker(proxy).values()) == [0, 0, 10]
        for number in range(60):
            check_affine(proxy, number, client)
    assert min(served_by_worker(proxy).values()) > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_is_dead_gets_nothing(models, start_proxy, policy):
    """Its replacement cannot start: the model has gone."""
    proxy = start_proxy(models.affine(f"gone_{policy}"), workers=2, scheduling_policy=policy)
    models.affine(f"gone_{policy}").unlink()
    dead, alive = proxy.workers()
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: proxy.workers() == [alive])
    before = served_by_worker(proxy)
    with connect(proxy) as client:
        for number in range(20):
            check_affine(proxy, number, client)
    after = served_by_worker(proxy)
    assert sorted(after[name] - before[name] for name in after) == [0, 20]


def test_preferred_batch_sizes_are_what_is_run(models, start_proxy):
    proxy = start_proxy(
        models.affine(), max_batch_size=8, max_queue_delay_ms=1000, preferred_batch_sizes=[4]
    )
    started = batch_sizes(proxy)
    together(proxy, lambda client, number: check_affine(proxy, number, client, 1), 16, threads=4)
    assert batch_sizes(proxy) == {**started, 4: 4}


@pytest.mark.slow
def test_an_adaptive_limit_grows_while_the_objective_holds_and_no_further(models, start_proxy):
    """Of ten who wait, half or more fit into a batch; nothing holds an objective of 0.1 ms."""
    proxy = start_proxy(models.slow(), max_batch_size=16, batching="adaptive", slo_ms=60_000)
    x = np.ones((1, 3), np.float32)

    def one(client, number):
        assert infer(client, proxy, tensor("x", x))[0] == 200

    together(proxy, one, 60, threads=10)
    assert max(batch_sizes(proxy)) >= 5
    assert proxy.ask("configure", knobs={"slo_ms": 0.1}) == {"ok": True}
    before = batch_sizes(proxy)
    together(proxy, one, 10, threads=10)
    after = batch_sizes(proxy)
    assert after[1] - before[1] == 10


# One large request over several workers


SPREAD = {"workers": 3, "split_batch_over": 3, "max_batch_size": 8}


def test_64_rows_are_spread_over_the_workers(models, start_proxy):
    proxy = start_proxy(models.affine(), **SPREAD)
    with connect(proxy) as client:
        check_affine(proxy, 1, client, rows=64)
        assert sorted(served_by_worker(proxy).values()) == [1, 1, 1]
        assert {21: 2, 22: 1}.items() <= batch_sizes(proxy).items()
        for rows in (8, 9, 16, 17, 65):
            check_affine(proxy, rows, client, rows=rows)
        counts = proxy.ask("counters")
    assert (counts["rows"], counts["requests"], counts["in_flight"]) == (64 + 115, 6, 0)


@pytest.mark.parametrize("policy", ["shared_queue", "least_outstanding", "consistent_hash"])
@pytest.mark.parametrize("cache_size", [0, 8])
def test_a_spread_request_is_put_together_along_axis_one(
    models, shared_proxies, policy, cache_size
):
    proxy = shared_proxies(models.second_axis(), **SPREAD)
    knobs = {"scheduling_policy": policy, "cache_size": cache_size}
    assert proxy.ask("configure", knobs=knobs) == {"ok": True}

    def one(client, number):
        rows = 30 + number % 5
        x, state = rows_of(number, rows), np.random.default_rng(number).normal(size=(2, rows, 4))
        state = state.astype(np.float32)
        status, outputs = infer(client, proxy, tensor("x", x), tensor("state", state))
        assert status == 200, outputs
        np.testing.assert_array_equal(outputs["y"], 2 * x)
        expected = state + x.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(outputs["next"], expected, rtol=1e-5)

    together(proxy, lambda client, number: one(client, number % 10), 20)


def test_a_part_whose_worker_is_killed_runs_elsewhere(models, start_proxy):
    proxy = start_proxy(models.affine(), **SPREAD)
    stopped = proxy.workers()[1]
    with ThreadPoolExecutor(1) as pool, connect(proxy) as client:
        os.kill(stopped, signal.SIGSTOP)
        found = pool.submit(check_affine, proxy, 1, client, rows=60)
        eventually(lambda: proxy.ask("counters")["batches"] == 3)
        os.kill(stopped, signal.SIGKILL)
        found.result()
    assert proxy.ask("counters")["batches"] == 4


def test_a_part_that_the_model_refuses_fails_the_whole_once(models, start_proxy):
    proxy = start_proxy(models.picky(), **SPREAD)
    with connect(proxy) as client:
        bad = np.zeros(30, np.int64)
        bad[17] = 99
        status, error = infer(client, proxy, tensor("i", bad, "INT64"))
        assert (status, "refused" in error) == (400, True)
        good = np.arange(30) % 4
        status, outputs = infer(client, proxy, tensor("i", good, "INT64"))
        assert status == 200
        np.testing.assert_array_equal(outputs["y"], good)
    counts = proxy.ask("counters")
    assert (counts["requests"], counts["errors"], counts["in_flight"]) == (2, 1, 0)


def test_the_deadline_is_that_of_the_whole(models, start_proxy):
    proxy = start_proxy(models.slow(), **SPREAD)
    stopped = proxy.workers()
    x = rows_of(1, 30)
    with proxy.client() as first, connect(proxy) as client:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        first.send(post({"inputs": [tensor("x", x)]}, "/v2/models/slow/infer"))
        eventually(lambda: proxy.ask("counters")["batches"] == 3)
        status, error = infer(client, proxy, tensor("x", x), timeout=1000)
        assert (status, "deadline" in error) == (504, True)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        assert first.answer()[0] == 200
    counts = proxy.ask("counters")
    assert (counts["batches"], counts["errors"], counts["in_flight"]) == (3, 1, 0)
