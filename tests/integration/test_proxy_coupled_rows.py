"""A model whose rows depend on each other is served one request at a time, and says so."""

import os
import signal
import time

import httpx
import pytest
from onnx import TensorProto, helper


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
