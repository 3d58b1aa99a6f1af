"""The models that dlbench makes itself, and how MODEL is understood."""

import numpy as np
import onnxruntime
import platformdirs
import pytest

from dlbench.proxy.errors import ModelError
from dlbench.proxy.models.demo import DEMOS, demo_path
from dlbench.proxy.models.model import resolve_model


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "row", "out"), [("mlp", (256,), (256,)), ("cnn", (1, 28, 28), (10,))]
)
def test_a_demo_model_is_made_once_and_the_same_each_time(cache, name, row, out):
    found = resolve_model(f"demo:{name}")
    assert found.name == name
    assert found.path.is_relative_to(cache)
    assert found.path.read_bytes() == DEMOS[name]()
    assert list(found.path.parent.iterdir()) == [found.path]
    written = found.path.stat().st_mtime_ns
    assert demo_path(name).stat().st_mtime_ns == written
    session = onnxruntime.InferenceSession(found.path, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"input": np.ones((3, *row), np.float32)})
    assert answer.shape == (3, *out)
    assert np.isfinite(answer).all()
    assert answer.std() > 0


def test_a_file_is_served_under_its_stem(tmp_path):
    path = tmp_path / "resnet.v2.onnx"
    path.touch()
    assert resolve_model(str(path)).name == "resnet.v2"


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("demo:gpt", "unknown model demo:gpt; there are demo:mlp, demo:cnn"),
        ("nowhere.onnx", "nowhere.onnx: no such file"),
        ("/", "/ is not a file"),
    ],
)
def test_what_is_no_model(model, text):
    with pytest.raises(ModelError, match=text):
        resolve_model(model)
