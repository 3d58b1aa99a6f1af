"""The result cache of a real proxy: what is a hit, what is none, and who keeps results for whom."""

import contextlib
import json
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pymemcache
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dlbench.proxy.cache.cache_value import encode
from dlbench.proxy.tensors import Tensor
from testbed.messages import post

KINDS = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
POLICIES = ["lru", "lfu", "fifo", "two_level"]
A, B, C = ([[i, i, i]] for i in range(3))


class Client:
    """V2 in JSON; `hits` and `misses` are counted from here on."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.http = httpx.Client(base_url=proxy.url, timeout=60)
        self._before = proxy.ask("counters")

    def count(self, name):
        return self.proxy.ask("counters")[name] - self._before[name]

    def infer(self, model="", outputs=(), **inputs):
        """Status and, by name, the outputs."""
        return self.post({"inputs": tensors(**inputs), "outputs": outputs}, model)

    def post(self, body, model=""):
        reply = self.http.post(f"/v2/models/{model or self.proxy.name}/infer", json=body)
        found = reply.json()
        return reply.status_code, {o["name"]: o["data"] for o in found.get("outputs", ())}

    def y(self, x):
        status, outputs = self.infer(x=np.array(x, np.float32))
        assert status == 200
        return outputs["y"]

    @property
    def hits(self):
        return self.count("cache_hits")

    @property
    def misses(self):
        return self.count("cache_misses")

    def gauge(self, name):
        text = self.http.get("/metrics").text
        (family,) = (f for f in text_string_to_metric_families(text) if f.name == name)
        (sample,) = family.samples
        return sample.value


def tensors(**inputs):
    return [
        {
            "name": name,
            "datatype": KINDS[str(array.dtype)],
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
        for name, array in inputs.items()
    ]


@pytest.fixture
def serve(start_proxy):
    """A function that starts a proxy with a cache and gives a client of it."""
    with contextlib.ExitStack() as clients:

        def start(model, settings=None, **config):
            config = {"cache_size": 64, **config}
            client = Client(start_proxy(model, settings, **config))
            clients.enter_context(client.http)
            return client

        yield start


@pytest.fixture
def affine(shared_proxies, models):
    """A function that gives a client of one proxy with three workers, configured anew."""
    proxy = shared_proxies(models.affine(), workers=3, cache_size=64)
    with contextlib.ExitStack() as clients:

        def configure(**knobs):
            proxy.configure(**knobs)
            client = Client(proxy)
            clients.enter_context(client.http)
            return client

        yield configure


@contextlib.contextmanager
def held_workers(proxy):
    """No worker runs meanwhile: what is answered all the same was answered without them."""
    workers = [psutil.Process(pid) for pid in proxy.workers()]
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scope", ["shared", "worker"])
def test_a_hit_wakes_no_worker(affine, policy, scope):
    client = affine(cache_policy=policy, cache_scope=scope, scheduling_policy="consistent_hash")
    first = [client.y(x) for x in (A, B, C)]
    assert first == [[1] * 3, [3] * 3, [5] * 3]
    with held_workers(client.proxy):
        for _ in range(3):
            assert [client.y(x) for x in (A, B, C)] == first
    assert (client.misses, client.hits) == (3, 9)


@pytest.mark.parametrize("off", [{"cache_policy": "none"}, {"cache_size": 0}])
def test_without_a_cache_everything_is_computed(affine, off):
    client = affine(**off)
    assert [client.y(A) for _ in range(3)] == [[1] * 3] * 3
    assert client.count("batches") == 3
    assert (client.misses, client.hits) == (0, 0)


@pytest.mark.parametrize(
    ("policy", "stays"), [("lru", A), ("lfu", A), ("fifo", B), ("two_level", A)]
)
def test_who_is_forgotten_is_the_policys_business(affine, policy, stays):
    client = affine(cache_policy=policy, cache_size=2)
    for x in (A, B, A, C):
        client.y(x)
    assert client.misses == 3
    client.y(stays)
    assert client.misses == 3
    client.y(A if stays is B else B)
    assert client.misses == 4
    assert client.gauge("dlbench_cache_entries") == 2


def test_the_same_bytes_in_another_shape(serve, models):
    client = serve(models.affine("open", ("batch", "n")))
    x = np.arange(6, dtype=np.float32)
    for shape in ((2, 3), (3, 2), (1, 6), (6, 1)):
        reply = client.http.post(
            "/v2/models/open/infer", json={"inputs": tensors(x=x.reshape(shape))}
        )
        (y,) = reply.json()["outputs"]
        assert (tuple(y["shape"]), y["data"]) == (shape, (2 * x + 1).tolist())
    assert (client.misses, client.hits) == (4, 0)


def test_the_same_bytes_under_another_tensors_name(serve, models):
    client = serve(models.difference())
    large, small = np.array([[7, 8]], np.int32), np.array([[1, 2]], np.int32)
    assert client.infer(a=large, b=small) == (200, {"d": [6, 6]})
    assert client.infer(a=small, b=large) == (200, {"d": [-6, -6]})
    assert client.hits == 0
    assert client.infer(b=small, a=large) == (200, {"d": [6, 6]})  # only the order is another
    assert client.hits == 1


def test_the_same_bytes_as_another_datatype(affine):
    client = affine()
    client.y(A)
    assert client.infer(x=np.array(A, np.int32))[0] == 400
    assert client.hits == 0


def test_other_wanted_outputs(serve, models):
    client = serve(models.second_axis())
    inputs = {"x": np.array(B, np.float32), "state": np.ones((2, 1, 4), np.float32)}
    every = client.infer(**inputs)[1]
    for names in (["y"], ["next"], ["next", "y"], ["y", "next"]):
        found = client.infer(outputs=[{"name": name} for name in names], **inputs)[1]
        assert found == {name: every[name] for name in names}
        assert list(found) == names
    status, _ = client.infer(outputs=[{"name": "other"}], **inputs)
    assert status == 400


def test_a_hit_has_the_form_that_its_request_asks_for(affine):
    """As numbers or as bytes, with its own id or with none."""
    client = affine()
    assert client.y(B) == [3] * 3
    body = {"id": "7", "inputs": tensors(x=np.array(B, np.float32))}
    body["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    with held_workers(client.proxy):
        reply = client.http.post("/v2/models/affine/infer", json=body)
        size = int(reply.headers["inference-header-content-length"])
        assert json.loads(reply.content[:size])["id"] == "7"
        assert np.frombuffer(reply.content[size:], np.float32).tolist() == [3] * 3
        again = client.http.post("/v2/models/affine/infer", json={"inputs": body["inputs"]})
        assert "id" not in again.json()
        plain = client.http.post("/predict", json={"input": B})
        assert plain.json() == {"output": [[3.0] * 3]}
        later = client.http.post("/predict", json={"input": B}, headers={"prefer": "respond-async"})
        assert client.http.get(later.headers["location"]).content == plain.content
    assert (client.misses, client.hits) == (1, 4)


def test_errors_are_not_kept(serve, models):
    client = serve(models.picky())
    for _ in range(2):
        assert client.infer(i=np.array([77]))[0] == 400
    assert (client.misses, client.hits) == (2, 0)
    assert client.gauge("dlbench_cache_entries") == 0


def test_a_request_that_was_spread_over_workers_is_kept_whole(affine):
    client = affine(max_batch_size=2, split_batch_over=2)
    x = np.arange(15).reshape(5, 3)
    expected = (2 * x + 1).ravel().tolist()
    assert client.y(x) == expected
    with held_workers(client.proxy):
        assert client.y(x) == expected
    assert client.gauge("dlbench_cache_entries") == 1


def test_identical_requests_in_flight_are_computed_once(affine):
    client = affine()
    inputs = tensors(x=np.array(B, np.float32))
    path = "/v2/models/affine/infer"

    def one(i):
        return client.http.post(path, json={"id": str(i), "inputs": inputs}).json()

    with ThreadPoolExecutor(8) as pool:
        with held_workers(client.proxy):
            replies = [pool.submit(one, i) for i in range(8)]
            while client.count("requests") < 8:
                pass
        found = [reply.result() for reply in replies]
    assert [reply["id"] for reply in found] == [str(i) for i in range(8)]
    assert all(reply["outputs"][0]["data"] == [3] * 3 for reply in found)
    assert client.count("rows") == 1
    assert (client.misses, client.hits) == (1, 7)


def test_those_who_joined_are_answered_though_the_first_has_hung_up(affine):
    client = affine()
    request = post({"inputs": tensors(x=np.array(B, np.float32))})
    with client.proxy.client() as second:
        with held_workers(client.proxy):
            with client.proxy.client() as first:
                first.send(request)
                while client.misses < 1:
                    pass
            second.send(request)
            while client.hits < 1:
                pass
        assert second.answer()[1]["outputs"][0]["data"] == [3] * 3


def test_a_missed_deadline_is_not_that_of_those_who_joined(serve, models):
    client = serve(models.affine(), queue_order="priority")  # which commits nothing to the busy
    hurried = {"inputs": tensors(x=np.array(B, np.float32)), "parameters": {"timeout": 1_000_000}}
    with ThreadPoolExecutor(3) as pool:
        with held_workers(client.proxy):
            pool.submit(client.y, A)  # which holds the worker
            while client.misses < 1:
                pass
            first = pool.submit(client.post, hurried)
            while client.misses < 2:
                pass
            second = pool.submit(client.y, B)
            while client.hits < 1:
                pass
            assert first.result()[0] == 504
        assert second.result() == [3] * 3


def test_a_result_is_forgotten_when_its_time_is_over(affine):
    client = affine(cache_ttl_s=0.05)
    while client.misses < 3:
        assert client.y(B) == [3] * 3
    assert client.gauge("dlbench_cache_entries") == 1


def test_bytes_are_bounded(affine):
    client = affine(cache_max_mb=0.002)  # three small results with their keys
    for i in range(20):
        assert client.y([[i] * 3]) == [2 * i + 1] * 3
        assert client.gauge("dlbench_cache_bytes") <= 0.002 * 2**20
    assert client.gauge("dlbench_cache_entries") == 3
    large = np.ones((200, 3))
    assert client.y(large) == client.y(large) == [3] * 600
    assert client.misses == 22
    assert client.gauge("dlbench_cache_entries") == 3  # what is too large pushes nobody out


def test_one_cache_per_worker_finds_as_much_as_a_shared_one_by_consistent_hash(affine):
    by_hash = {"scheduling_policy": "consistent_hash"}
    found = []
    for scope in ("shared", "worker"):
        client = affine(cache_scope=scope, cache_size=90, **by_hash)
        for i in [*range(30)] * 3:
            assert client.y([[i] * 3]) == [2 * i + 1] * 3
        found.append((client.misses, client.hits))
    assert found == [(30, 60)] * 2


def test_in_turn_each_worker_has_to_find_out_for_itself(affine):
    client = affine(cache_scope="worker", scheduling_policy="round_robin")
    assert [client.y(B) for _ in range(9)] == [[3] * 3] * 9
    assert (client.misses, client.hits) == (3, 6)
    assert client.gauge("dlbench_cache_entries") == 3


def test_a_changed_knob_empties_it(affine):
    client = affine()
    client.y(A)
    assert client.proxy.ask("configure", knobs={"max_batch_size": 4}) == {"ok": True}
    assert client.gauge("dlbench_cache_entries") == client.gauge("dlbench_cache_bytes") == 0
    client.y(A)
    assert (client.misses, client.hits) == (2, 0)


@pytest.fixture
def replaced(models, tmp_path):
    """A repository with one model, and a function that puts another one under its name."""

    def put(factor):
        shutil.copy(models.affine(f"of{factor}", factor=factor), tmp_path / "new")
        os.replace(tmp_path / "new", tmp_path / "m.onnx")

    put(2)
    return str(tmp_path), put


def load(client):
    reply = client.http.post("/v2/repository/models/m/load")
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    "kind", ["none", "redis", pytest.param("memcached", marks=pytest.mark.slow)]
)
def test_a_model_file_that_was_replaced_never_gives_old_answers(
    serve, start_server, replaced, kind
):
    folder, put = replaced
    backend = {} if kind == "none" else {"cache_backend": start_server(kind).url}
    client = serve("", {"repository": folder, **backend})
    load(client)
    x = np.array(B, np.float32)
    for factor in (2, 3, 2):
        for _ in range(2):
            assert client.infer("m", x=x) == (200, {"y": [factor + 1] * 3})
        put(5 - factor)
        load(client)


def test_while_a_model_is_replaced_under_load_each_answer_is_of_one_file(serve, replaced):
    folder, put = replaced
    client = serve("", {"repository": folder})
    load(client)
    done, loaded = threading.Event(), threading.Event()
    x = np.array(B, np.float32)

    def ask():
        found = []
        while not done.is_set():
            after = loaded.is_set()
            found.append((after, client.infer("m", x=x)))
        return found

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            put(3)
            load(client)
            loaded.set()
            assert client.infer("m", x=x) == (200, {"y": [4] * 3})
        finally:
            done.set()
        found = [one for answers in asking for one in answers.result()]
    for after, (status, outputs) in found:
        assert status == 200
        assert outputs["y"] in ([[4] * 3] if after else [[3] * 3, [4] * 3])


def items(server):
    """How many values a server keeps."""
    if server.url.startswith("redis"):
        return int(server.ask(b"DBSIZE").removeprefix(b":"))
    client = pymemcache.Client(("127.0.0.1", server.port))
    try:
        return client.stats()[b"curr_items"]
    finally:
        client.close()


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("redis", "write_through"),
        ("memcached", "write_back"),
        ("redis", "write_combining"),
        *(
            pytest.param(kind, write, marks=pytest.mark.slow)
            for kind, write in (
                ("redis", "write_back"),
                ("memcached", "write_through"),
                ("memcached", "write_combining"),
            )
        ),
    ],
)
def test_two_proxies_share_results(serve, start_server, models, kind, write):
    server = start_server(kind)
    settings = {"cache_backend": server.url}
    config = {"cache_write": write, "cache_size": 1}
    one, other = (serve(models.affine(), settings, **config) for _ in range(2))
    first = [one.y(x) for x in (A, B, C)]
    kept = 2 if write == "write_back" else 3  # the last one is still in the first level
    while items(server) < kept:
        pass
    with held_workers(other.proxy):
        assert [other.y(x) for x in (A, B)] == first[:2]
    assert (other.misses, other.hits) == (0, 2)
    one.proxy.stop()  # which writes what only it knew
    assert items(server) == 3
    with held_workers(other.proxy):
        assert other.y(C) == first[2]


@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_a_server_that_dies_under_load_costs_no_request(serve, start_server, models, capfd, kind):
    server = start_server(kind)
    client = serve(models.affine(), {"cache_backend": server.url}, cache_size=4)
    done = threading.Event()
    log = []

    def read():
        log.extend(capfd.readouterr().err.splitlines())
        return log

    def ask(seed):
        numbers = np.random.default_rng(seed)
        count = 0
        while not done.is_set():
            i = int(numbers.integers(0, 1000))
            assert client.y([[i] * 3]) == [2 * i + 1] * 3
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, seed) for seed in range(4)]
        try:
            for move, said in ((server.kill, "is unreachable"), (server.start, "is back")) * 2:
                move()
                while not (read() and said in log[-1]):
                    pass
            while not items(server):
                pass
        finally:
            done.set()
        assert all(one.result() for one in asking)
    # One line each time: a busy machine's server may be too slow now and then, too.
    for number, line in enumerate(read()):
        assert ("is unreachable", "is back")[number % 2] in line, log
    assert client.count("errors") == 0


def test_a_server_that_hangs_costs_its_time_once(serve, start_server, models, capfd):
    server = start_server("redis")
    client = serve(models.affine(), {"cache_backend": server.url}, cache_size=1)
    server.hold()
    try:
        for i in range(10):
            assert client.y([[i] * 3]) == [2 * i + 1] * 3
    finally:
        server.go_on()
    log = ""
    while "is back" not in log:
        log += capfd.readouterr().err
    assert log.count("is unreachable") == 1


def test_a_worker_started_again_answers_as_the_others_do(serve, replaced):
    """The file was replaced, nobody loaded it anew, and the worker died: now it is loaded anew."""
    folder, put = replaced
    client = serve("", {"repository": folder})
    load(client)
    x, other = np.array(B, np.float32), np.array(C, np.float32)
    assert client.infer("m", x=x) == (200, {"y": [3] * 3})
    put(3)
    (pid,) = client.proxy.workers()
    os.kill(pid, signal.SIGKILL)
    for _ in range(1000):  # what waits for a worker of the old file is sent away to come again
        status, outputs = client.infer("m", x=other)
        if status != 503:
            break
    found = [outputs["y"][0], client.infer("m", x=x)[1]["y"][0]]
    assert found in ([5, 3], [7, 4])  # not one by the new file and one by the old


def test_a_value_that_is_not_the_models_answer_is_a_miss(serve, start_server, models, capfd):
    """Whole values under the right key, each of which would be an answer to something else."""
    server = start_server("redis")
    client = serve(models.affine(), {"cache_backend": server.url}, cache_size=0)
    unfit = [
        (),
        (Tensor((1, 3), bytes(12)), Tensor((1,), bytes(4))),
        (Tensor((2, 3), bytes(24)),),
        (Tensor((1, 4), bytes(16)),),
        (Tensor((3,), bytes(12)),),
        (Tensor((1, 3), bytes(8)),),
        (Tensor((2**31, 2**31), bytes(12)),),
    ]
    another = encode(b"another key", (Tensor((1, 3), bytes(12)),))
    known = set()
    for number, outputs in enumerate([*unfit, another]):
        x = [[number] * 3]  # each under a name of its own: what was spoiled is soon written again
        right = client.y(x)
        while not (new := _names(server) - known):
            pass
        known |= new
        (name,) = new
        key = bytes.fromhex(name.removeprefix(b"dlbench:").decode())
        server.spoil(name, another if outputs is another else encode(key, outputs))
        assert client.y(x) == right
    assert client.hits == 0
    assert client.count("errors") == 0
    assert capfd.readouterr().err.count("do not fit the model") == 1


def _names(server):
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(b"KEYS *\r\n")
        count = int(answer.readline().removeprefix(b"*"))
        return {(answer.readline(), answer.readline().strip())[1] for _ in range(count)}
