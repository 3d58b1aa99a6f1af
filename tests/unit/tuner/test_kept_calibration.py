"""A kept calibration is taken for its own model and machine, and refused for any other."""

import json

import pytest

from dlbench.tuner.calibration import Calibration, ServiceTime
from dlbench.tuner.errors import TuneError
from dlbench.tuner.kept_calibration import KeptCalibration, read_calibration

CALIBRATION = Calibration(services=(ServiceTime(batch=1, seconds=0.001),), front_s=1e-5, cores=2)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def kept(model, tmp_path):
    path = tmp_path / "calibration.json"
    KeptCalibration.of(str(model), CALIBRATION).write(path)
    return path


def test_what_was_written_is_read(kept, model):
    assert read_calibration(kept, str(model)) == CALIBRATION


def test_another_model_is_refused(kept, model):
    model.write_bytes(b"other weights")
    with pytest.raises(TuneError, match="another model"):
        read_calibration(kept, str(model))


@pytest.mark.parametrize(("field", "value"), [("machine", "an abacus"), ("version", 2)])
def test_another_machine_or_version_is_refused(kept, model, field, value):
    kept.write_text(json.dumps({**json.loads(kept.read_text()), field: value}))
    with pytest.raises(TuneError, match=f"another {field}"):
        read_calibration(kept, str(model))


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"model": "x"}'])
def test_anything_else_is_refused_in_one_line(kept, model, text):
    kept.write_text(text)
    with pytest.raises(TuneError, match="is no calibration") as error:
        read_calibration(kept, str(model))
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_or_written(model, tmp_path):
    with pytest.raises(TuneError, match="cannot read"):
        read_calibration(tmp_path / "missing.json", str(model))
    with pytest.raises(TuneError, match="cannot write"):
        KeptCalibration.of(str(model), CALIBRATION).write(tmp_path / "no" / "folder.json")
