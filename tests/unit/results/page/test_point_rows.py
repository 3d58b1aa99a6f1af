"""The points of a report: what is in its table, what is not counted, what is copied."""

import tomllib

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.results.page.point_rows import configurations, page_rows, uncounted
from dlbench.tuner.verify.verification import Verified
from testbed import made

NOTHING = Verified((), "none")


@pytest.fixture
def point():
    def make(name="c01", phase="screen", **changes):
        return made.verified(name, **changes).model_copy(update={"phase": phase})

    return make


def test_the_repeats_of_a_verified_point_are_shown_as_what_they_make(point):
    screened, repeats = point(), [point(phase="verify", rate=rate) for rate in (90, 110)]
    pooled = point(phase="verify", rate=100)
    rows = page_rows([screened, *repeats], Verified((pooled,), "none"))
    assert [(r["phase"], r["throughput_rps"]) for r in rows] == [("screen", 100), ("verify", 100)]
    assert len(page_rows([screened, *repeats], NOTHING)) == 3


def test_what_was_not_measured_is_not_in_a_row(point):
    [row] = page_rows([point(server_queue_ms=0.0)], NOTHING)
    assert row["server_queue_ms"] == 0.0
    assert "server_compute_ms" not in row
    assert "gpu_util" not in row


def test_a_row_says_whether_it_may_stand_on_a_front(point):
    rows = page_rows([point(), point(verdict="invalid"), point(error_rate=0.01)], NOTHING)
    assert [row["counts"] for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    "config",
    [
        ServingConfig(),
        ServingConfig(max_batch_size=64, max_queue_delay_ms=0.5, workers=4, cache_size=16384),
        ServingConfig(preferred_batch_sizes=(4, 8), worker_weights=(2.0, 1.0)),
    ],
)
def test_what_is_copied_is_what_was_measured(point, config):
    settings = ServerSettings(model='odd "name" [x].onnx', device="cpu")
    [found] = configurations([point(config=config)], NOTHING, settings).values()
    document = tomllib.loads(found["toml"])
    knobs = {name: value for name, value in document.items() if name in ServingConfig.model_fields}
    assert ServingConfig(**knobs) == config
    assert document["model"] == settings.model


def test_a_configuration_is_told_by_what_it_changes(point):
    base = made.verified("default", config=ServingConfig(workers=2))
    other = point(config=ServingConfig(workers=4, cache_size=256))
    settings, result = ServerSettings(model="m.onnx"), Verified((base,), "none")
    found = configurations([base, other], result, settings)
    assert found["c01"]["changes"] == ["workers 4", "cache_size 256"]
    assert found["default"]["changes"] == ["the default configuration"]


def test_what_does_not_count_is_told_with_its_reason(point):
    lost = {"measurement": None, "failure": "killed by signal 9", "log_tail": "out of memory"}
    failed = point("c02").model_copy(update=lost)
    points = [
        point(),
        failed,
        point(verdict="invalid", reason="the client sent late"),
        point(error_rate=0.25),
        point(rate=900).model_copy(update={"disturbances": ("swapping",)}),
        point("c03").model_copy(update={"disturbances": ("swapping",)}),  # and nothing moved
    ]
    found = uncounted(points)
    assert [(e["verdict"], e["reason"]) for e in found] == [
        ("failed", "killed by signal 9"),
        ("invalid", "the client sent late"),
        ("ok", "25.00% of the requests were lost"),
        ("ok", ""),
    ]
    assert found[0]["log_tail"] == "out of memory"
    assert found[-1]["disturbances"] == ["swapping"]
