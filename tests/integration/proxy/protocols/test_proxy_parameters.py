"""What the reply would mean otherwise is refused by name, as tritonclient asks for it."""

import json

import httpx
import numpy as np
import pytest

grpc_client = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
http_client = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


@pytest.fixture(scope="module")
def proxy(module_proxy, models):
    return module_proxy(models.affine(), {"grpc_port": 0})


@pytest.fixture(params=["http", "grpc"])
def triton(request, proxy):
    """A client and its module."""
    module = {"http": http_client, "grpc": grpc_client}[request.param]
    address = {"http": proxy.url.removeprefix("http://"), "grpc": proxy.first["grpc"]}
    client = module.InferenceServerClient(address[request.param])
    yield module, client
    client.close()


def tensor(module):
    found = module.InferInput("x", ROWS.shape, "FP32")
    found.set_data_from_numpy(ROWS)
    return found


def test_a_sequence_is_refused_and_no_sequence_is_not(triton):
    module, client = triton
    for sequence in ({"sequence_id": 5, "sequence_start": True}, {"sequence_id": "five"}):
        with pytest.raises(Exception, match=r"parameter 'sequence_(id|start)' is not supported"):
            client.infer("affine", [tensor(module)], **sequence)
    reply = client.infer("affine", [tensor(module)], sequence_id=0, parameters={"mine": "x"})
    np.testing.assert_array_equal(reply.as_numpy("y"), 2 * ROWS + 1)


def test_classes_are_refused(triton):
    module, client = triton
    wanted = module.InferRequestedOutput("y", class_count=2)
    with pytest.raises(Exception, match="parameter 'classification' is not supported"):
        client.infer("affine", [tensor(module)], outputs=[wanted])


def test_shared_memory_is_refused(triton):
    module, client = triton
    elsewhere = module.InferInput("x", ROWS.shape, "FP32")
    elsewhere.set_shared_memory("region", ROWS.nbytes)
    with pytest.raises(Exception, match="parameter 'shared_memory_"):
        client.infer("affine", [elsewhere])
    wanted = module.InferRequestedOutput("y")
    wanted.set_shared_memory("region", ROWS.nbytes)
    with pytest.raises(Exception, match="parameter 'shared_memory_"):
        client.infer("affine", [tensor(module)], outputs=[wanted])


def test_another_version_is_refused(triton):
    module, client = triton
    with pytest.raises(Exception, match=r"version 2|versions/2"):
        client.infer("affine", [tensor(module)], model_version="2")
    with pytest.raises(Exception, match=r"unknown model"):
        client.infer("", [tensor(module)], model_version="2")


def test_other_protocols_refuse_what_they_do_not_have(proxy):
    rows = ROWS.tolist()
    with httpx.Client(base_url=proxy.url, timeout=30) as client:
        named = {"instances": rows, "signature_name": "classify"}
        reply = client.post("/v1/models/affine:predict", json=named)
        assert (reply.status_code, "'classify'" in reply.text) == (400, True)
        for path in (
            "/v1/models/affine/versions/2:predict",
            "/v1/models/affine/labels/stable:predict",
            "/v1/models/affine:classify",
            "/v2/models/affine/versions/2/infer",
            "/predictions/affine/2",
            "/explanations/affine",
        ):
            reply = client.post(path, json={"instances": rows})
            assert (reply.status_code, "error" in reply.json()) == (404, True), path


def test_a_load_does_not_take_a_file_of_the_client(proxy):
    parameters = {"file:1/model.onnx": "AAAA", "config": json.dumps({"workers": 1})}
    with httpx.Client(base_url=proxy.url, timeout=30) as client:
        for given in (parameters, None, [], 7):
            reply = client.post("/v2/repository/models/affine/load", json={"parameters": given})
            assert reply.status_code == 400
        assert (
            "file:1/model.onnx"
            in client.post(
                "/v2/repository/models/affine/load", json={"parameters": parameters}
            ).json()["error"]
        )
