"""What of a study is measured again, at which rate, and for how long."""

import itertools

import pytest

from dlbench.loadgen.analysis.machine import versions
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import ModelError
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.settings import ServerSettings
from dlbench.results.compare.rerun import Rerun, candidates, notes, rounds_within
from dlbench.tuner.errors import NothingMeasured
from dlbench.tuner.storage.study import Identity, Study
from dlbench.tuner.verify.verification import Verified
from testbed import made


@pytest.fixture(scope="module")
def pick():
    return made.verified("c01", rate=390, recommended=True, config=ServingConfig(max_batch_size=16))


@pytest.fixture(scope="module")
def study(pick, tmp_path_factory):
    """A study whose recommendation was verified at 390/s and 410/s."""
    path = tmp_path_factory.mktemp("studies") / "s.db"
    load = {"rate": None, "distinct": 500, "shape": {"x": (3,)}}
    about = {"model": "gone.onnx", "device": "cpu", "load": load, "machine": "Elbrus, 8 cores"}
    found = Study.create_or_resume(path, Identity(about))
    for repeat, rate in enumerate((390, 410), 1):
        again = made.measurement(rate=rate, sure=0.05)
        found.record(pick.model_copy(update={"repeat": repeat, "measurement": again}))
    return found


def test_the_recommendation_is_measured_at_its_mean_rate_and_the_default_beside_it(study, pick):
    default = made.verified("default", 0.3, rate=100, config=ServingConfig())
    first, second = candidates(study, Verified((default, pick), "none"))
    assert (first.name, first.config, first.rate) == ("c01@0.5", pick.config, pytest.approx(400))
    assert (second.name, second.rate) == ("default@0.3", 100)


@pytest.mark.parametrize("kind", ["the same", "failed", "none"])
def test_a_default_that_says_nothing_is_left_out(study, pick, kind):
    config = {"the same": pick.config}.get(kind, ServingConfig())
    verdict = "saturated" if kind == "failed" else "ok"
    default = made.verified("default", config=config, verdict=verdict)
    points = (pick,) if kind == "none" else (default, pick)
    assert [c.name for c in candidates(study, Verified(points, "none"))] == ["c01@0.5"]


def test_nothing_to_verify_is_said(study):
    with pytest.raises(NothingMeasured, match="recommends nothing"):
        candidates(study, Verified((made.verified(),), "none"))
    with pytest.raises(NothingMeasured, match="is unfinished; resume it with"):
        candidates(study, Verified((), "none"))


def test_the_server_and_the_load_are_the_study_s(study, pick):
    settings = ServerSettings(**{**study.settings, "model": "m.onnx"})
    assert (settings.model, settings.device, settings.shape) == ("m.onnx", "cpu", {"x": (3,)})
    task = Rerun.of(study, Verified((pick,), "none"), settings, 3)
    assert (task.profile.distinct, task.pin, task.rounds) == (500, "auto", 3)


@pytest.mark.parametrize(("budget_s", "rounds"), [(None, 5), (100, 5), (10, 3), (1, 1), (0, 1)])
def test_rounds_are_measured_while_one_more_fits(study, pick, budget_s, rounds):
    """Each takes 3 s."""
    task = Rerun.of(study, Verified((pick,), "none"), ServerSettings(), 5, budget_s)
    clock = itertools.count(0, 1.5)
    assert list(rounds_within(task, lambda: next(clock))) == list(range(1, rounds + 1))


def test_what_changed_since_is_said_and_a_model_that_is_gone_is_an_error(study, models):
    found = notes(study, ServerSettings(model=str(models.affine())), "off")
    assert [note.partition(":")[0] for note in found] == ["another machine"]
    assert found[0].endswith("not Elbrus, 8 cores")
    study.calibration = {"versions": {**versions(), "numpy": "1.0"}}
    assert "numpy 1.0 and" in notes(study, ServerSettings(model=str(models.affine())), "off")[1]
    with pytest.raises(ModelError, match="no such file"):
        notes(study, ServerSettings(model="gone.onnx"), "off")


def test_weights_beside_the_model_are_part_of_what_a_study_is_about(tmp_path, weighted):
    """The file itself stays as it is: exporters keep large weights in others."""
    model = weighted("m", 2)
    about = {"model": str(model), "model_hash": resolve_model(str(model)).fingerprint().hex()}
    study = Study.create_or_resume(tmp_path / "w.db", Identity(about))
    assert notes(study, ServerSettings(model=str(model)), "off") == []
    weighted("m", 3)
    assert notes(study, ServerSettings(model=str(model)), "off") == ["the model file has changed"]
