"""The other protocols on a real proxy, over real sockets: what their clients send is answered."""

import json
import shutil
import subprocess

import httpx
import numpy as np
import psutil
import pytest

ROWS = [[1, 2, 3], [4, 5, 6]]
DOUBLED = [[3.0, 5.0, 7.0], [9.0, 11.0, 13.0]]


@pytest.fixture
def client(shared_proxies, models):
    with httpx.Client(base_url=shared_proxies(models.affine()).url, timeout=60) as found:
        yield found


@pytest.mark.parametrize("path", ["affine", "affine/versions/1"])
def test_tensorflow_serving(client, path):
    for body, reply in (
        ({"instances": ROWS}, {"predictions": DOUBLED}),
        ({"instances": [{"x": row} for row in ROWS]}, {"predictions": DOUBLED}),
        ({"inputs": ROWS}, {"outputs": DOUBLED}),
        ({"signature_name": "serving_default", "inputs": {"x": ROWS}}, {"outputs": DOUBLED}),
    ):
        assert client.post(f"/v1/models/{path}:predict", json=body).json() == reply
    (served,) = client.get(f"/v1/models/{path}").json()["model_version_status"]
    assert (served["version"], served["state"]) == ("1", "AVAILABLE")
    document = client.get(f"/v1/models/{path}/metadata").json()
    assert document["model_spec"]["name"] == "affine"


def test_tensorflow_serving_says_what_is_wrong(client):
    predict = "/v1/models/affine:predict"
    refused = client.post(predict, json={"instances": [[1, 2]]})
    assert (refused.status_code, "'x'" in refused.json()["error"]) == (400, True)
    assert client.post("/v1/models/other:predict", json={"instances": ROWS}).status_code == 404
    missing = client.post("/v1/models/affine/versions/2:predict", json={"instances": ROWS})
    assert missing.status_code == 404
    assert client.get(predict).status_code == 405


@pytest.mark.parametrize("path", ["/predictions/affine", "/predictions/affine/1"])
def test_torchserve(client, path):
    assert client.post(path, json=ROWS).json() == DOUBLED
    assert client.post(path, json={"data": ROWS}).json() == DOUBLED
    assert client.post(path, json={"instances": ROWS}).json() == {"predictions": DOUBLED}
    raw = client.post(
        path,
        content=np.array(ROWS, np.float32).tobytes(),
        headers={"content-type": "application/octet-stream"},
    )
    assert raw.json() == DOUBLED


def test_torchserve_says_how_it_is(client):
    assert client.get("/ping").json() == {"status": "Healthy"}
    assert client.get("/models").json() == {
        "models": [{"modelName": "affine", "modelUrl": "affine"}]
    }


def test_the_predict_of_tutorials(client):
    assert client.post("/predict", json={"input": ROWS}).json() == {"output": DOUBLED}
    assert client.post("/predict", json={"input": ROWS[0]}).json() == {"output": DOUBLED[0]}
    refused = client.post("/predict", json={"input": "a cat"})
    assert (refused.status_code, "'x'" in refused.json()["error"]) == (400, True)


def test_curl(client):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    command = ["curl", "--silent", "--fail", "-d", json.dumps({"input": ROWS[0]})]
    done = subprocess.run(
        [*command, f"{client.base_url}/predict"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"output": DOUBLED[0]}


def test_the_quick_start_of_torchserve(client, tmp_path):
    """`curl URL -T FILE` and `curl -F data=@FILE URL`, with a tensor's bytes for the kitten."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    (tmp_path / "rows.bin").write_bytes(np.array(ROWS, np.float32).tobytes())
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    (tmp_path / "large.json").write_text(json.dumps(ROWS) + " " * 100_000)  # asks for 100 Continue
    url = f"{client.base_url}/predictions/affine"
    for name in ("rows.bin", "rows.json", "large.json"):
        for command in (
            ["-T", name, url],
            ["-F", f"data=@{name}", url],
            ["-F", f"body=@{name}", url],
        ):
            done = subprocess.run(
                ["curl", "--silent", *command],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(done.stdout) == DOUBLED, command
    submitted = client.put("/predictions/affine/1", json=ROWS, headers={"prefer": "respond-async"})
    assert submitted.status_code == 202
    assert fetched(client, submitted.headers["location"]).json() == DOUBLED
    assert client.put("/predict", json={"input": ROWS}).status_code == 405
    assert client.put("/v2/models/affine/infer", json={}).status_code == 405


def test_a_batch_on_another_axis_and_several_tensors(shared_proxies, models):
    proxy = shared_proxies(models.second_axis())
    rows = [{"x": row, "state": np.full((2, 4), i).tolist()} for i, row in enumerate(ROWS)]
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        reply = client.post("/v1/models/second_axis:predict", json={"instances": rows}).json()
        assert reply["predictions"] == [
            {"y": [2.0, 4.0, 6.0], "next": [[6.0] * 4] * 2},
            {"y": [8.0, 10.0, 12.0], "next": [[16.0] * 4] * 2},
        ]
        assert client.post("/predictions/second_axis", json=rows).json() == reply["predictions"]
        lone = client.post("/predict", json={"inputs": rows[1]}).json()
        assert lone == {"outputs": reply["predictions"][1]}


def test_a_model_nailed_to_one_row(shared_proxies, models):
    with httpx.Client(base_url=shared_proxies(models.fixed()).url, timeout=60) as client:
        assert client.post("/predict", json={"input": ROWS[0]}).json() == {"output": DOUBLED[0]}
        one = client.post("/v1/models/fixed:predict", json={"instances": ROWS[:1]})
        assert one.json() == {"predictions": DOUBLED[:1]}
        two = client.post("/v1/models/fixed:predict", json={"instances": ROWS})
        assert two.status_code == 400


def fetched(client, location):
    """The reply once it is there; every poll in between says to come again."""
    while (reply := client.get(location)).status_code == 202:
        assert reply.headers["retry-after"] == "1"
    return reply


V2 = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": ROWS}]}


def test_submit_and_poll_give_the_reply_of_a_waiting_client(client):
    for path, body in (
        ("/v2/models/affine/infer", V2),
        ("/v1/models/affine:predict", {"instances": ROWS}),
        ("/predictions/affine", ROWS),
        ("/predict", {"input": ROWS}),
    ):
        direct = client.post(path, json=body)
        submitted = client.post(path, json=body, headers={"prefer": "respond-async, wait=5"})
        assert submitted.status_code == 202
        assert submitted.headers["preference-applied"] == "respond-async"
        location = submitted.headers["location"]
        reply = fetched(client, location)
        assert (reply.status_code, reply.content) == (direct.status_code, direct.content)
        assert reply.headers["content-type"] == direct.headers["content-type"]
        assert client.delete(location).status_code == 200
        assert client.get(location).status_code == 404


def test_what_cannot_be_read_is_refused_at_once(client):
    headers = {"prefer": "respond-async"}
    assert client.post("/v2/models/affine/infer", json={}, headers=headers).status_code == 400
    assert client.get("/v2/async/nothing").status_code == 404


def test_results_are_bounded_while_a_model_is_busy(start_proxy, models):
    """The worker is stopped, so that nothing finishes meanwhile."""
    proxy = start_proxy(models.affine(), {"async_results": 2})
    (pid,) = proxy.workers()
    headers = {"prefer": "respond-async"}
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        psutil.Process(pid).suspend()
        locations = []
        try:
            for _ in range(2):
                reply = client.post("/predict", json={"input": ROWS}, headers=headers)
                locations.append(reply.headers["location"])
            assert [client.get(location).status_code for location in locations] == [202, 202]
            full = client.post("/predict", json={"input": ROWS}, headers=headers)
            assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        finally:
            psutil.Process(pid).resume()
        for location in locations:
            assert fetched(client, location).json() == {"output": DOUBLED}
        again = client.post("/predict", json={"input": ROWS}, headers=headers)
        assert again.status_code == 202
        assert client.get(locations[0]).status_code == 404  # made room
        assert fetched(client, again.headers["location"]).status_code == 200
