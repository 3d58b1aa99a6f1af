"""The null server's replies are those of a real server, and the client is measured against it."""

import json

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from dlbench.loadgen.analysis.machine import facts
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.control.headroom import HeadroomCache, calibrate, null_server
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.protocols.judge import judge_of
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec


def spec(name, datatype, *shape):
    return TensorSpec(name=name, datatype=datatype, shape=shape, batch_axis=0)


INPUTS = (spec("x", "FP32", -1, 3),)
OUTPUTS = (
    spec("scores", "FP32", -1, 2, 4),
    spec("label", "BYTES", -1),
    spec("is_it", "BOOL", -1, 1),
    spec("half", "FP16", -1, 3),
    spec("count", "UINT64", -1, 2),
)
ONE = (spec("y", "INT64", -1, 5),)
PROFILE = LoadProfile(rate=1)


@pytest.fixture(scope="module")
def url():
    with null_server(INPUTS, OUTPUTS) as url:
        yield url


@pytest.fixture(scope="module")
def http(url):
    with httpx.Client(base_url=url, trust_env=False) as http:
        yield http


def target(url, protocol, path, outputs):
    return Target(url=url, protocol=protocol, model="m", path=path, inputs=INPUTS, outputs=outputs)


def ask(http, target, profile=PROFILE):
    """Send the first request of a load as the generator would; its reply."""
    head, _, body = bytes(requests_of(target, profile, 0).at(0)).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    headers = dict(line.split(": ", 1) for line in lines)
    answer = http.post(target.path, content=body, headers=headers)
    assert answer.status_code == 200
    return answer


@pytest.mark.parametrize("encoding", ["binary", "json"])
def test_v2_replies_are_right_to_our_judge(url, http, encoding):
    there = discover(url, PROFILE)
    assert [(o.name, o.shape) for o in there.outputs] == [(o.name, o.shape) for o in OUTPUTS]
    profile = LoadProfile(rate=1, encoding=encoding)
    answer = ask(http, there, profile)
    assert ("inference-header-content-length" in answer.headers) == (encoding == "binary")
    assert judge_of(there, profile, requests_of(there, profile, 0))(answer.content, 0) == ""


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_reads_the_replies(url, binary_in, binary_out):
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    given = triton.InferInput("x", [1, 3], "FP32")
    given.set_data_from_numpy(np.ones((1, 3), np.float32), binary_data=binary_in)
    wanted = [
        triton.InferRequestedOutput(output.name, binary_data=binary_out) for output in OUTPUTS
    ]
    found = client.infer("any", [given], outputs=wanted)
    for output in OUTPUTS:
        assert found.as_numpy(output.name).shape == output.row_shape
        assert found.as_numpy(output.name).dtype == output.dtype
        asked_for = "data" not in found.get_output(output.name)
        assert asked_for == binary_out
    client.close()


def test_a_long_json_request_that_says_nothing_of_binary_gets_json(http):
    row = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.5] * 3}
    parameters = {"padding": "x" * 300_000, "binary_data_output": False}
    document = {"inputs": [row], "parameters": parameters}
    answer = http.post("/v2/models/m/infer", content=json.dumps(document))
    assert [output["name"] for output in answer.json()["outputs"]] == [o.name for o in OUTPUTS]


@pytest.mark.parametrize("outputs", [ONE, OUTPUTS], ids=["one output", "several"])
@pytest.mark.parametrize(
    ("protocol", "path"),
    [
        ("tfserving", "/v1/models/m:predict"),
        ("tfserving", "/v1/models/m/versions/3:predict"),
        ("torchserve", "/predictions/m"),
        ("plain", "/invocations?a=b"),
    ],
)
def test_other_protocols_replies_are_right_to_our_judge(protocol, path, outputs):
    known = outputs if protocol == "tfserving" else ()
    with null_server(INPUTS, outputs) as url, httpx.Client(base_url=url, trust_env=False) as http:
        there = target(url, protocol, path, known)
        answer = ask(http, there)
    judge = judge_of(there, PROFILE, requests_of(there, PROFILE, 0))
    assert judge(answer.content, 0) == ""


def test_tf_serving_in_columns(http):
    whole = (TensorSpec(name="x", datatype="FP32", shape=(2, 3)),)
    there = target(str(http.base_url), "tfserving", "/v1/models/m:predict", OUTPUTS)
    there = there.model_copy(update={"inputs": whole})
    judge = judge_of(there, PROFILE, requests_of(there, PROFILE, 0))
    assert judge(ask(http, there).content, 0) == ""


@pytest.mark.parametrize("path", ["/v2/models", "/v2/models/m/stats", "/metrics"])
def test_what_is_not_there_is_not_found(http, path):
    assert http.get(path).status_code == 404


def test_the_client_is_measured_and_its_figures_are_kept(tmp_path):
    cache = HeadroomCache(tmp_path)
    quiet = facts().model_copy(update={"load_average": (0.0, 0.0, 0.0)})
    there = target("http://192.0.2.1:8000", "v2", "/v2/models/m/infer", OUTPUTS)
    profile = LoadProfile(users=3, think_s=1.0, duration_s=60)
    with Generator() as generator:
        found = calibrate(generator, there, profile, machine=quiet, cache=cache)
    assert found.missing == ""
    assert found.max_rps > 0
    assert 0 < found.overhead_p50_ms <= found.overhead_p99_ms
    assert found.times(found.max_rps / 4) == pytest.approx(4)
    # A generator that is not running could not measure it again.
    assert calibrate(Generator(), there, profile, machine=quiet, cache=cache) == found
