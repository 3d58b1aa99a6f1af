"""A kept calibration is taken for its own model and machine, and refused for any other."""

import json

import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.errors import TuneError
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.kept_calibration import KeptCalibration, read_calibration

LOAD = LoadProfile()
CALIBRATION = Calibration(services=(ServiceTime(batch=1, seconds=0.001),), front_s=1e-5, cores=2)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


def settings(model, **changes):
    return ServerSettings(model=str(model), **changes)


@pytest.fixture
def kept(model, tmp_path):
    path = tmp_path / "calibration.json"
    KeptCalibration.of(settings(model), LOAD, CALIBRATION).write(path)
    return path


def test_what_was_written_is_read(kept, model):
    assert read_calibration(kept, settings(model), LOAD) == CALIBRATION


def test_another_model_is_refused(kept, model):
    model.write_bytes(b"other weights")
    with pytest.raises(TuneError, match="another model"):
        read_calibration(kept, settings(model), LOAD)


@pytest.mark.parametrize(("field", "value"), [("machine", "an abacus"), ("version", 1)])
def test_another_machine_or_version_is_refused(kept, model, field, value):
    kept.write_text(json.dumps({**json.loads(kept.read_text()), field: value}))
    with pytest.raises(TuneError, match=f"another {field}"):
        read_calibration(kept, settings(model), LOAD)


@pytest.mark.parametrize(
    ("server", "load", "option"),
    [
        ({"device": "cuda"}, {}, "--device"),
        ({"provider_option": {"a": "b"}}, {}, "--provider-option"),
        ({}, {"shape": {"x": (3, 224)}}, "--shape"),
        ({}, {"encoding": "json"}, "--encoding"),
    ],
)
def test_what_was_made_with_other_options_is_refused(kept, model, server, load, option):
    other = LOAD.model_copy(update=load)
    with pytest.raises(TuneError, match=f"another {option};"):
        read_calibration(kept, settings(model, **server), other)


def test_how_much_load_comes_does_not_matter(kept, model):
    other = LOAD.model_copy(update={"rate": 7.0, "distinct": 5, "zipf": 1.0, "seed": 3})
    assert read_calibration(kept, settings(model, port=1), other) == CALIBRATION


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"model": "x"}'])
def test_anything_else_is_refused_in_one_line(kept, model, text):
    kept.write_text(text)
    with pytest.raises(TuneError, match="is not a calibration") as error:
        read_calibration(kept, settings(model), LOAD)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_or_written(model, tmp_path):
    with pytest.raises(TuneError, match="cannot read"):
        read_calibration(tmp_path / "missing.json", settings(model), LOAD)
    with pytest.raises(TuneError, match="cannot write"):
        KeptCalibration.of(settings(model), LOAD, CALIBRATION).write(
            tmp_path / "no" / "folder.json"
        )
