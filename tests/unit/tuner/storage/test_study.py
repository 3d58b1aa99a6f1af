"""The study file: what goes in comes out, and Optuna can read it as it is."""

import math
import shlex
import sqlite3

import optuna
import pytest
import sqlalchemy
from optuna.storages._rdb.models import BaseModel
from optuna.trial import TrialState, create_trial

from dlbench.tuner.constraint import Constraints, parse_memory, parse_slo
from dlbench.tuner.errors import StudyMismatch, StudyUnreadable
from dlbench.tuner.storage.study import Identity, Study
from testbed import made


@pytest.fixture
def identity():
    return Identity({"model_hash": "abc", "seed": 0})


def test_points_come_back_as_they_were_in_their_order(tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    points = [
        made.point("naive", "probe", None),
        made.point("naive", "baseline", 0.3, verdict="saturated"),
        made.point("c01", measurement=None, failure="out of memory", log_tail="a\nb", cost_s=3.0),
        made.point("c01", "verify", 0.5, repeat=2),
    ]
    for point in points:
        study.record(point)
    assert Study.create_or_resume(path, identity).points() == points
    assert Study.open(path).points() == points


def test_optuna_reads_the_front_from_the_file(tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    study.record(made.point(rate=100, p99=10))
    study.record(made.point(rate=90, p99=11))
    study.record(made.point(rate=900, p99=1, verdict="saturated"))
    study.record(made.point("c02", "probe", None, rate=5000, p99=1))
    study.record(made.point("c03", measurement=None, failure="died"))
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


def test_fresh_starts_over_and_takes_the_samples_along(tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    study.record(made.point())
    study.samples_path(made.point()).write_bytes(b"samples")
    other = Identity({"model_hash": "other"})
    assert Study.create_or_resume(path, other, fresh=True).points() == []
    assert not list(path.with_suffix(".samples").glob("*"))


def test_what_is_no_study_says_so(tmp_path, identity):
    with pytest.raises(StudyUnreadable, match="no such study"):
        Study.open(tmp_path / "missing.db")
    text = tmp_path / "text.db"
    text.write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(StudyUnreadable, match="not a usable study file"):
        Study.open(text)
    with pytest.raises(StudyUnreadable, match="not a usable study file"):
        Study.create_or_resume(text, identity)


def test_of_a_load_that_differs_only_the_difference_is_named(tmp_path):
    load = {"distinct": 100, "zipf": 1.0}
    Study.create_or_resume(tmp_path / "s.db", Identity({"load": load}))
    with pytest.raises(StudyMismatch, match=r"a study with load\.zipf 1\.0, not 1\.1;"):
        Study.create_or_resume(tmp_path / "s.db", Identity({"load": {**load, "zipf": 1.1}}))


def test_a_study_that_was_killed_while_it_was_made_is_made_again(tmp_path, identity):
    path = tmp_path / "s.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    tables = BaseModel.metadata.tables
    BaseModel.metadata.create_all(engine, tables=[tables["studies"], tables["version_info"]])
    engine.dispose()
    assert Study.create_or_resume(path, identity).points() == []


def test_every_sitting_is_noted(tmp_path, identity):
    study = Study.create_or_resume(tmp_path / "s.db", identity)
    assert study.sittings == []
    for command in ("dlbench tune a.onnx", "dlbench tune a.onnx --budget 10m"):
        study.sit_down({"command": command})
    again = Study.open(tmp_path / "s.db")
    assert [s["command"] for s in again.sittings] == [
        "dlbench tune a.onnx",
        "dlbench tune a.onnx --budget 10m",
    ]


def test_what_goes_on_with_it_starts_nothing_over_and_is_quoted(tmp_path):
    study = Study.create_or_resume(tmp_path / "a b.db", Identity({"model": "a'b.onnx"}))
    words = ["dlbench", "tune", "a'b.onnx", "--study", str(study.path)]
    assert shlex.split(study.command) == words
    study.sit_down({"command": "dlbench tune 'my m.onnx' --fresh --zipf 1.1"})
    assert study.command == "dlbench tune 'my m.onnx' --zipf 1.1"


def test_calibration_and_result_are_kept(tmp_path, identity):
    path = tmp_path / "a.db"
    study = Study.create_or_resume(path, identity)
    assert study.calibration == {}
    study.calibration = {"client_rps": 5000.0}
    study.verified = {"points": [], "slo": "none"}
    again = Study.open(path)
    assert again.calibration == {"client_rps": 5000.0}
    assert again.verified == {"points": [], "slo": "none"}


DEMANDS = Constraints((parse_slo("p99<20ms"), parse_slo("error_rate<0.1%")))


def loaded(path):
    return optuna.load_study(study_name="dlbench", storage=f"sqlite:///{path}")


def test_bounds_are_constraints_of_the_trial(tmp_path, identity):
    study = Study.create_or_resume(tmp_path / "a.db", identity)
    study.record(made.point(rate=100, p99=10), DEMANDS)
    study.record(made.point(rate=900, p99=30), DEMANDS)
    study.record(made.point(rate=950, p99=15, error_rate=0.0005), DEMANDS)
    held, slow, some_errors = loaded(study.path).trials
    assert held.constraints == pytest.approx(
        {"may_stand_on_a_front": 0, "p99<20ms": -0.5, "error_rate<0.1%": -1}
    )
    assert slow.constraints["p99<20ms"] == pytest.approx(0.5)
    assert some_errors.constraints["error_rate<0.1%"] == pytest.approx(-0.5)
    assert [t.number for t in loaded(study.path).best_trials] == [0, 2]


def test_a_bound_on_what_was_not_measured_is_not_met(tmp_path, identity):
    study = Study.create_or_resume(tmp_path / "a.db", identity)
    memory = parse_memory("1GB", "--max-memory", "server_rss_mb")
    study.record(made.point(), Constraints((memory,)))
    assert loaded(study.path).trials[0].constraints["--max-memory 1GB"] > 0


def test_a_bound_on_what_is_no_number_is_an_error(tmp_path, identity):
    study = Study.create_or_resume(tmp_path / "a.db", identity)
    with pytest.raises(ValueError, match="p99_ms is not a number"):
        study.record(made.point(p99=math.nan), DEMANDS)
    assert study.points() == []


def test_a_knob_out_of_its_bounds_is_not_recorded(tmp_path, identity):
    """Optuna's own queue of trials would take it."""
    study = Study.create_or_resume(tmp_path / "a.db", identity)
    beyond = made.DEFAULT.model_copy(update={"max_batch_size": 1_000_000})
    with pytest.raises(ValueError, match="max_batch_size"):
        study.record(made.point(config=beyond))
    assert study.points() == []


def test_a_failed_configuration_is_a_failed_trial_with_its_knobs(tmp_path, identity):
    study = Study.create_or_resume(tmp_path / "a.db", identity)
    study.record(made.point("c01", measurement=None, failure="out of memory"), DEMANDS)
    (trial,) = loaded(study.path).trials
    assert trial.state.name == "FAIL"
    assert trial.params["max_batch_size"] == 8
    assert trial.user_attrs["point"]["failure"] == "out of memory"


def foreign(path):
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE invoices (number INTEGER, paid REAL)")
    file.close()
    return path


def other_study(path):
    optuna.create_study(study_name="mine", storage=f"sqlite:///{path}")
    return path


@pytest.mark.parametrize("make", [foreign, other_study])
@pytest.mark.parametrize(
    "use",
    [
        Study.open,
        lambda path: Study.create_or_resume(path, Identity({})),
        lambda path: Study.create_or_resume(path, Identity({}), fresh=True),
    ],
)
def test_somebody_elses_database_is_left_as_it_is(tmp_path, make, use):
    path = make(tmp_path / "theirs.db")
    before = path.read_bytes()
    with pytest.raises(StudyUnreadable, match="another program"):
        use(path)
    assert path.read_bytes() == before


def test_a_file_is_not_made_a_study_by_looking(tmp_path):
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(StudyUnreadable, match="no study"):
        Study.open(path)
    assert path.read_bytes() == b""


def test_a_study_that_was_killed_while_it_was_made_is_taken_up(tmp_path, identity):
    path = tmp_path / "a.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")  # its tables, and nothing in them
    with pytest.raises(StudyUnreadable, match="no study"):
        Study.open(path)
    study = Study.create_or_resume(path, identity)
    study.record(made.point())
    assert len(Study.open(path).points()) == 1


def test_a_point_whose_quantiles_fall_among_failed_requests_comes_back(tmp_path, identity):
    study = Study.create_or_resume(tmp_path / "x.db", identity)
    lost = made.point(p99=math.inf, p99_high_ms=math.inf, longest_ms=1000.4, error_rate=0.02)
    study.record(lost, Constraints((parse_slo("p99<20ms"),)))
    assert Study.open(tmp_path / "x.db").points() == [lost]


NAMES = [
    "a#b",
    "a?b",
    "100%",
    "a b",
    "a'b",
    'a"b',
    "a\nb",
    "a{b}",
    "a;b",
    "a&b=c",
    "模型",
    "[red]",
    "-x",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_kept_in_the_file_of_its_name(tmp_path, name):
    """In a URL of SQLAlchemy's, and in Optuna's template of one, some of these mean something."""
    path = tmp_path / f"{name}.db"
    Study.create_or_resume(path, Identity({"model": name})).record(made.point())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(Study.open(path).points()) == 1
    with pytest.raises(StudyMismatch):
        Study.create_or_resume(path, Identity({"model": "another"}))


@pytest.mark.parametrize("name", ["format", "point", "verified"])
def test_another_versions_study_is_one_line(tmp_path, identity, name):
    study = Study.create_or_resume(tmp_path / "s.db", identity)
    study.record(made.point())
    optuna_study = optuna.load_study(study_name="dlbench", storage=f"sqlite:///{study.path}")
    if name == "point":
        trial = optuna_study.trials[0]
        odd = {**trial.user_attrs["point"], "measurement": {"verdict": "fine"}}
        changed = create_trial(state=TrialState.FAIL, user_attrs={"point": odd})
        optuna_study.add_trial(changed)
    else:
        optuna_study.set_user_attr(name, {"format": 99, "verified": {"points": [{}]}}[name])
    for opened in (
        lambda: Study.open(study.path),
        lambda: Study.create_or_resume(study.path, identity),
    ):
        with pytest.raises(StudyUnreadable, match=r"another version|of format") as refused:
            opened()
        assert len(str(refused.value).splitlines()) == 1
