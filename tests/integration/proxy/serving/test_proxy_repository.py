"""Several models in one proxy, loaded and unloaded while it serves."""

import json
import shutil

import httpx
import pytest

from testbed import messages

X = {"inputs": [messages.X]}


@pytest.fixture
def folder(models, tmp_path):
    """A repository in both layouts: one file, and one of two versions."""
    shutil.copy(models.affine(), tmp_path / "flat.onnx")
    for version, model in (("1", models.affine()), ("12", models.scaled())):
        (tmp_path / "deep" / version).mkdir(parents=True)
        shutil.copy(model, tmp_path / "deep" / version / "model.onnx")
    return tmp_path


def states(client):
    return {row["name"]: row["state"] for row in client.post("/v2/repository/index").json()}


def infer(client, name):
    return client.post(f"/v2/models/{name}/infer", json=X)


def test_models_come_and_go(folder, models, start_proxy):
    settings = {"repository": str(folder), "also": [f"second={models.affine()}"]}
    proxy = start_proxy(models.affine(), settings)
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        there = {"affine": "READY", "second": "READY"}
        assert states(client) == {**there, "flat": "UNAVAILABLE", "deep": "UNAVAILABLE"}
        assert infer(client, "second").status_code == 200
        assert infer(client, "flat").status_code == 404
        assert client.post("/v2/repository/models/flat/load").status_code == 200
        assert infer(client, "flat").json()["outputs"][0]["data"] == [3, 5, 7]
        assert client.get("/v2/models/flat/ready").status_code == 200
        assert client.post("/v2/repository/models/flat/unload").status_code == 200
        assert infer(client, "flat").status_code == 404
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert {row["name"] for row in ready} == set(there)


def test_the_highest_version_is_served(folder, models, start_proxy):
    proxy = start_proxy("", {"repository": str(folder)})
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        assert client.post("/v2/repository/models/deep/load").status_code == 200
        assert client.get("/v2/models/deep").json()["versions"] == ["12"]
        assert client.get("/v2/models/deep/versions/12/ready").status_code == 200
        assert client.get("/v2/models/deep/versions/1/ready").status_code == 404


def test_a_model_is_loaded_anew_with_other_knobs(folder, start_proxy):
    proxy = start_proxy("", {"repository": str(folder)})
    knobs = {"parameters": {"config": json.dumps({"max_batch_size": 3})}}
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        client.post("/v2/repository/models/flat/load")
        assert client.get("/v2/models/flat/config").json()["max_batch_size"] == 8
        assert client.post("/v2/repository/models/flat/load", json=knobs).status_code == 200
        assert client.get("/v2/models/flat/config").json()["max_batch_size"] == 3
        assert infer(client, "flat").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("nothing/load", {}, "no model 'nothing'"),
        ("flat/unload", {}, "'flat' is not loaded"),
        ("broken/load", {}, "broken cannot be loaded"),
        ("flat/load", {"parameters": {"config": '{"workers": 0.5}'}}, "workers"),
        ("flat/load", {"parameters": {"config": "["}}, "config"),
    ],
)
def test_what_cannot_be_loaded_says_why(folder, shared_proxies, start_proxy, path, body, text):
    (folder / "broken.onnx").write_bytes(b"no model")
    proxy = start_proxy("", {"repository": str(folder)})
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        reply = client.post(f"/v2/repository/models/{path}", json=body)
        assert reply.status_code == 400
        assert text in reply.json()["error"]


def test_a_file_that_is_gone_is_an_answer(models, tmp_path, start_proxy):
    path = shutil.copy(models.affine(), tmp_path / "m.onnx")
    proxy = start_proxy(path)
    path.unlink()
    with httpx.Client(base_url=proxy.url, timeout=60) as client:
        reply = client.post("/v2/repository/models/m/load")
        assert reply.status_code == 400
        assert f"{path}: No such file" in reply.json()["error"]
        assert infer(client, "m").status_code == 200  # by the workers that are there
