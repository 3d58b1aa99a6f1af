"""The study file: what goes in comes out, and Optuna can read it as it is."""

import optuna
import pytest

from dlbench.tuner.errors import StudyMismatch, StudyUnreadable
from dlbench.tuner.study import Identity, Study


@pytest.fixture
def identity():
    return Identity({"model_hash": "abc", "seed": 0})


def test_points_come_back_as_they_were_in_their_order(build, tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    points = [
        build.point("naive", "probe", None),
        build.point("naive", "baseline", 0.3, verdict="saturated"),
        build.point("c01", measurement=None, failure="out of memory", log_tail="a\nb", cost_s=3.0),
        build.point("c01", "verify", 0.5, repeat=2),
    ]
    for point in points:
        study.record(point)
    assert Study.create_or_resume(path, identity).points() == points
    assert Study.open(path).points() == points


def test_optuna_reads_the_front_from_the_file(build, tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    study.record(build.point(throughput=100, p99=10))
    study.record(build.point(throughput=90, p99=11))
    study.record(build.point(throughput=900, p99=1, verdict="saturated"))
    study.record(build.point("c02", "probe", None, throughput=5000, p99=1))
    study.record(build.point("c03", measurement=None, failure="died"))
    loaded = optuna.load_study(study_name="dlbench", storage=f"sqlite:///{path}")
    assert loaded.directions == [
        optuna.study.StudyDirection.MAXIMIZE,
        optuna.study.StudyDirection.MINIMIZE,
    ]
    assert [t.values for t in loaded.best_trials] == [[100.0, 10.0]]
    assert loaded.best_trials[0].params["max_batch_size"] == 8
    assert loaded.best_trials[0].params["load_share"] == 0.5
    assert [t.state.name for t in loaded.trials].count("FAIL") == 1


def test_another_model_is_refused_by_name(tmp_path, identity):
    path = tmp_path / "a.db"
    Study.create_or_resume(path, identity)
    with pytest.raises(StudyMismatch, match=r"model_hash 'abc', not 'other'.*--fresh"):
        Study.create_or_resume(path, Identity({"model_hash": "other", "seed": 0}))


def test_fresh_starts_over_and_takes_the_samples_along(build, tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    study.record(build.point())
    study.samples_path(build.point()).write_bytes(b"samples")
    other = Identity({"model_hash": "other"})
    assert Study.create_or_resume(path, other, fresh=True).points() == []
    assert not list(path.with_suffix(".samples").glob("*"))


def test_what_is_no_study_says_so(tmp_path, identity):
    with pytest.raises(StudyUnreadable, match="no such study"):
        Study.open(tmp_path / "missing.db")
    text = tmp_path / "text.db"
    text.write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(StudyUnreadable, match="not a study file"):
        Study.open(text)
    with pytest.raises(StudyUnreadable, match="not a study file"):
        Study.create_or_resume(text, identity)


def test_calibration_and_result_are_kept(tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    assert study.calibration == {}
    study.calibration = {"client_rps": 5000.0}
    study.verified = {"points": [], "slo": "none"}
    again = Study.open(path)
    assert again.calibration == {"client_rps": 5000.0}
    assert again.verified == {"points": [], "slo": "none"}
