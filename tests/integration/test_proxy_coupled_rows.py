"""A model whose rows depend on each other is served one request at a time, and says so."""

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


def test_a_named_batch_axis_overrules_it(start_proxy, centred):
    proxy = start_proxy(centred, {"batch_axis": {"x": 0}})
    assert proxy.first["batchable"] is True
