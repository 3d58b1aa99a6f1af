"""What MODEL may be, and when a model counts as another one."""

import os

import pytest

from dlbench.proxy.errors import ModelError
from dlbench.proxy.model import ModelFile, find_models, resolve_model


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"graph")
    return ModelFile(path, "m")


def test_a_name_before_the_path(model):
    assert resolve_model(str(model.path)) == model
    assert resolve_model(f"other={model.path}") == ModelFile(model.path, "other")
    with pytest.raises(ModelError, match="no such file"):
        resolve_model("other=missing.onnx")


def test_a_repository_holds_files_and_versions(tmp_path, model):
    for version in ("1", "10", "9", "latest"):
        (tmp_path / "deep" / version).mkdir(parents=True)
        (tmp_path / "deep" / version / "model.onnx").touch()
    found = find_models(str(tmp_path))
    assert {name: source.version for name, source in found.items()} == {"m": "1", "deep": "10"}
    with pytest.raises(ModelError, match="--repository"):
        find_models(str(tmp_path / "missing"))


def test_a_fingerprint_is_of_contents_alone(model):
    before = model.fingerprint()
    os.utime(model.path, (0, 0))
    (model.path.parent / "m.onnx.bak").touch()
    (model.path.parent / "more.data").touch()
    assert model.fingerprint() == before
    weights = model.path.parent / "m.onnx.data"
    weights.write_bytes(b"1")
    with_weights = model.fingerprint()
    weights.write_bytes(b"2")
    assert len({before, with_weights, model.fingerprint()}) == 3
    model.path.write_bytes(b"other")
    weights.unlink()
    assert model.fingerprint() != before
