"""Options, environment and files: one declaration, one order of precedence."""

from typing import get_args

import pytest
from typer.testing import CliRunner

from dlbench.cli.commands.load import _objective
from dlbench.cli.commands.tune import LEFT_OUT
from dlbench.cli.failure import UsageError
from dlbench.cli.main import app
from dlbench.cli.options import duration, option_name, read, read_file
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.declaration import declarations
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.recommend import RULES
from dlbench.tuner.study_config import Rule, StudyConfig


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0.0", 0),
        ("1.5s", 1.5),
        ("20ms", 0.02),
        ("20 MS", 0.02),
        ("100us", 1e-4),
        ("5m", 300),
        ("1h30m", 5400),
        ("2 min", 120),
    ],
)
def test_durations(text, value):
    assert duration(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "fast", "10 parsecs", "-5s", "-"])
def test_what_is_no_duration_says_how_to_write_one(text):
    with pytest.raises(UsageError, match="write 10s"):
        duration(text)


@pytest.mark.parametrize(("text", "number"), [("50", "50"), (" 1.5", "1.5"), ("1h30", "30")])
def test_a_number_without_a_unit_is_asked_for_one(text, number):
    with pytest.raises(UsageError, match=rf"--x {text} needs a unit: {number}ms or {number}s$"):
        duration(text, option="--x")


DURATIONS = [
    (model, name)
    for model in (LoadProfile, ServerSettings, StudyConfig)
    for name, field in declarations(model).items()
    if name.endswith(("_s", "_ms")) and field.kind is float
]


@pytest.mark.parametrize(("model", "name"), DURATIONS)
def test_every_option_that_is_a_duration_needs_its_unit_and_every_name_with_one_does_not(
    model, name, monkeypatch
):
    most_s, unit = {"spike_at_s": (0.5, "s")}.get(name, (2, name.rsplit("_", 1)[1]))
    option = option_name(name, model)
    given = {} if model is not ServerSettings else {"model": "m"}
    with pytest.raises(
        UsageError, match=rf"^{option} {most_s} needs a unit: {most_s}ms or {most_s}s"
    ):
        read(model, {**given, name: str(most_s)}, {})
    as_option = read(model, {**given, name: f"{most_s}{unit}"}, {})
    assert read(model, given, {name: most_s}) == as_option
    assert read(model, given, {name: f"{most_s} {unit}"}) == as_option
    monkeypatch.setenv(f"DLBENCH_{name.upper()}", str(most_s))
    assert read(model, given, {}) == as_option


def test_a_wrong_text_in_a_file_names_its_key():
    with pytest.raises(UsageError, match=r"^budget_s 'soon' is not a duration"):
        read(StudyConfig, {}, {"budget_s": "soon"})


@pytest.mark.parametrize("text", ["p95<5", "p50<0.5", "p999 < 20"])
def test_a_bound_on_a_latency_needs_its_unit(text):
    with pytest.raises(UsageError, match=r"--slo p\S+ ?< ?\S+ needs a unit: .*ms or .*s$"):
        read(StudyConfig, {"slo": (text,)}, {})
    with pytest.raises(UsageError, match=r"--max-rps-under-slo: .* needs a unit: "):
        _objective(text)


def test_precedence_is_command_line_environment_file_default(monkeypatch):
    file = {"workers": 3, "max_batch_size": 3, "cache_size": 3}
    monkeypatch.setenv("DLBENCH_WORKERS", "4")
    monkeypatch.setenv("DLBENCH_MAX_BATCH_SIZE", "4")
    config = read(ServingConfig, {"workers": 5}, file)
    assert (config.workers, config.max_batch_size, config.cache_size) == (5, 4, 3)
    assert config.scheduling_policy == "shared_queue"


def test_environment_takes_what_the_option_takes(monkeypatch):
    monkeypatch.setenv("DLBENCH_SLO_P99_MS", "0.02s")
    monkeypatch.setenv("DLBENCH_SHAPE", "x=1,2 y=3")
    assert read(StudyConfig, {}, {}).slo_p99_ms == pytest.approx(20)
    assert read(LoadProfile, {}, {}).shape == {"x": (1, 2), "y": (3,)}


@pytest.mark.parametrize(
    ("model", "given", "text"),
    [
        (ServingConfig, {"max_batch_size": 0}, r"--max-batch-size 0: .*\(from 1 to 4096\)"),
        (ServingConfig, {"workers": 1000}, r"--workers 1000: .*\(from 0 to 256\)"),
        (ServingConfig, {"scheduling_policy": "fair"}, "--scheduling-policy fair: .*round_robin"),
        (StudyConfig, {"slo_p99_ms": "-"}, "not a duration"),
        (StudyConfig, {"fix": ["workers=1000"]}, r"--fix workers=1000: .*from 1 to 256"),
        (StudyConfig, {"fix": ["workers"]}, "--fix workers: must be NAME=VALUE"),
        (StudyConfig, {"range": ["max_batch_size=1..9999"]}, r"--range .*from 1 to 4096"),
        (StudyConfig, {"fix": ["workers=1"], "range": ["workers=1..2"]}, "cannot be combined"),
        (StudyConfig, {"slo": "error<1%"}, r"--slo error<1%: .*error_rate"),
        (StudyConfig, {"slo": "p99<20ms"}, "--slo-p99 20ms"),
        (StudyConfig, {"max_memory": "much"}, "--max-memory much: .*2GB"),
        (StudyConfig, {"max_gpu_memory": "much"}, "--max-gpu-memory much: .*2GB"),
        (StudyConfig, {"recommend": "best"}, "--recommend best: .*'knee', 'slo'"),
        (StudyConfig, {"recommend": "slo"}, "--recommend slo needs .*--slo-p99"),
        (StudyConfig, {"recommend": "cost"}, "--recommend cost needs --price-per-hour"),
        (StudyConfig, {"price_per_hour": 0}, "--price-per-hour 0: must be greater than 0"),
        (LoadProfile, {"zipf": 1.0}, "zipf needs distinct"),
        (LoadProfile, {"rate": 1.0, "users": 1}, "cannot be combined"),
        (ServerSettings, {"model": "m", "shape": ["x"]}, "--shape x: must be NAME=VALUE"),
    ],
)
def test_errors_name_the_option_and_the_bounds(model, given, text):
    with pytest.raises(UsageError, match=text):
        read(model, given, {})


def test_bounds_and_restrictions_come_from_every_source(monkeypatch):
    monkeypatch.setenv("DLBENCH_FIX", "workers=2 cache_policy=fifo")
    monkeypatch.setenv("DLBENCH_SLO", "error_rate<0.1%,p95<5ms")
    file = {"range": {"max_batch_size": "1..4"}, "space": {"workers": 1}, "max_memory": "2GB"}
    config = read(StudyConfig, {"slo_p99_ms": "20ms"}, file)
    assert config.restriction == {
        "workers": (2,), "max_batch_size": (1, 2, 4), "cache_policy": ("fifo",)
    }  # fmt: skip
    bounds = {o.field: o.bound for o in config.constraints.objectives}
    assert bounds == {"p99_ms": 20, "error_rate": 0.001, "p95_ms": 5, "server_rss_mb": 2000}
    assert config.rule == "slo"


def test_there_is_a_rule_for_every_name_and_a_name_for_every_rule():
    assert set(get_args(Rule)) == {*RULES, "balanced"}
    assert read(StudyConfig, {}, {}).rule == "balanced"
    config = read(StudyConfig, {"recommend": "cost", "price_per_hour": 3.6}, {})
    assert (config.rule, config.wish().price_per_hour) == ("cost", 3.6)


def test_a_file_may_not_hold_unknown_keys(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("max_batch_sise = 3\n")
    with pytest.raises(UsageError, match=r"unknown key 'max_batch_sise'.*max_batch_size"):
        read_file(path, (ServingConfig,))
    path.write_text("workers = \n")
    with pytest.raises(UsageError, match="--config"):
        read_file(path, (ServingConfig,))
    path.write_bytes('name = "Bär"\n'.encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8 at byte 9"):
        read_file(path, (ServingConfig,))
    with pytest.raises(UsageError, match="No such file"):
        read_file(tmp_path / "missing.toml", (ServingConfig,))


def shown(default):
    if default == ():
        return ""
    plain = {True: "on", False: "off"}[default] if isinstance(default, bool) else default
    return f"(default {plain:g})" if isinstance(default, float) else f"(default {plain})"


def test_every_field_is_an_option_with_its_default_in_the_help():
    runner = CliRunner()
    text = runner.invoke(
        app, ["serve", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    ).output
    for name, field in ServingConfig.model_fields.items():
        assert option_name(name, ServingConfig) in text
        assert shown(field.default) in text
    tune = runner.invoke(
        app, ["tune", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    ).output
    for option in (
        "--budget",
        "--slo-p99",
        "--seed",
        "--configurations",
        "--zipf",
        "--distinct",
        "--arrivals",
        "--study",
    ):
        assert option in tune
    for decided in ("--rate", "--users", "--duration", "--port"):
        assert f"{decided} " not in tune
    assert "dlbench tune model.onnx --budget 10m" in tune


@pytest.mark.parametrize(
    ("models", "left_out"),
    [
        ((LoadProfile,), ()),
        ((ServingConfig, ServerSettings), ()),
        ((LoadProfile, ServerSettings, StudyConfig), LEFT_OUT),
    ],
)
def test_no_two_fields_are_one_option(models, left_out):
    # A name that two models declare is one option for both.
    fields = {name: model for model in models for name in model.model_fields}
    names = [option_name(*field) for field in fields.items() if field[0] not in left_out]
    assert len(set(names)) == len(names)
