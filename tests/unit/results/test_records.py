"""What leaves a study: the CSV's columns and the recommended TOML."""

import csv
import io
import json
import tomllib

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.results.records import (
    COLUMNS,
    document,
    recommended_toml,
    row,
    study_points,
    write_csv,
)
from dlbench.tuner.point import Resources
from dlbench.tuner.search.correction import Estimate
from dlbench.tuner.search.importance import Importances
from dlbench.tuner.search.insight import Insight
from dlbench.tuner.search.twin_error import Off, TwinError
from dlbench.tuner.verify.verification import Verified
from testbed import made

# The knobs stand in between.
BEFORE = ["point", "phase", "verdict", "reason", "on_front", "recommended"]
AFTER = [
    "offered_rps",
    "throughput_rps",
    "throughput_low_rps",
    "throughput_high_rps",
    "throughput_est_rps",
    "p50_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
    "p99_low_ms",
    "p99_high_ms",
    "p99_est_ms",
    "p999_ms",
    "mean_ms",
    "error_rate",
    "requests",
    "duration_s",
    "lateness_p99_ms",
    "client_cpu",
    "server_cpu",
    "server_rss_mb",
    "net_mbps",
    "gpu_util",
    "gpu_mem_mb",
    "cache_hit_ratio",
    "mean_batch_size",
    "started_at",
    "longest_ms",
]  # fmt: skip


def parsed(points):
    stream = io.StringIO()
    write_csv(points, stream)
    return list(csv.DictReader(io.StringIO(stream.getvalue())))


def test_columns_are_in_the_documented_order():
    assert list(COLUMNS) == [*BEFORE, *ServingConfig.model_fields, *AFTER]


def test_a_row_holds_what_was_measured_and_nothing_for_what_was_not():
    point = made.point(rate=123.456789, resources=Resources(server_cpu=1.5))
    (found,) = parsed([point])
    assert found["throughput_rps"] == "123.457"
    assert found["server_cpu"] == "1.5"
    assert found["gpu_util"] == found["cache_hit_ratio"] == found["p50_ms"] == ""
    assert (found["on_front"], found["max_batch_size"]) == ("false", "8")


def test_a_failed_configuration_is_a_row_with_its_reason():
    (found,) = parsed([made.point(measurement=None, failure="out of memory")])
    assert (found["verdict"], found["reason"]) == ("failed", "out of memory")
    assert found["throughput_rps"] == found["error_rate"] == ""


def test_a_saturated_point_keeps_its_own_reason():
    assert row(made.point(verdict="saturated", reason="fell behind"))["reason"] == "fell behind"


def test_repeats_of_a_verified_point_are_one_row():
    repeats = [made.point("c01", "verify", repeat=n) for n in range(1, 7)]
    screened = made.point()
    pooled = repeats[0].model_copy(update={"on_front": True, "recommended": True, "repeat": 0})
    result = Verified((pooled,), "none")
    points = study_points([screened, *repeats], result)
    assert [p.phase for p in points] == ["screen", "verify"]
    assert parsed(points)[1]["recommended"] == "true"
    assert study_points([screened, *repeats], Verified((), "none")) == [screened, *repeats]


def test_the_toml_is_what_serve_takes():
    settings = ServerSettings(
        model="a.onnx", device="cpu", batch_axis={"state": 1}, shape={"x": (1, 3)}
    )
    point = made.point()
    text = recommended_toml(point.config, settings, {"answer": "100/s", "doubts": "- a\n- b"})
    assert text.startswith("# answer: 100/s\n# doubts: - a\n# doubts: - b\n")
    values = tomllib.loads(text)
    knobs = {name: values.pop(name) for name in ServingConfig.model_fields}
    assert ServingConfig(**knobs) == point.config
    served = ServerSettings(**values)
    assert (served.model, served.batch_axis, served.shape) == (
        "a.onnx",
        {"state": 1},
        {"x": (1, 3)},
    )


def test_smoothed_values_stand_beside_the_measured_ones_of_what_was_verified():
    screened, verified = made.point(), made.point(phase="verify")
    stream = io.StringIO()
    write_csv([screened, verified], stream, {verified.name: Estimate(99, 98, 99, 11, 9, 13)})
    first, second = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (first["throughput_est_rps"], first["p99_est_ms"]) == ("", "")
    assert (second["throughput_est_rps"], second["p99_est_ms"]) == ("99", "11")
    assert second["p99_ms"] == "10.0"


def test_the_document_holds_all_that_is_known():
    pick = made.point(phase="verify").model_copy(update={"recommended": True})
    error = TwinError(Off(0.1, 0.2, 9), Off(0.3, 0.6, 30))
    learnt = Insight(error, 0.3, True, Importances({"workers": 0.7}, {}))
    row = made.bound_row()
    whole = Verified(
        (pick,),
        "met",
        bounds=(row,),
        answer=row,
        rule="slo",
        compared=True,
        estimates={pick.name: Estimate(99, 98, 99, 11, 9, 13)},
        insight=learnt,
        drift="drifted",
    )
    said = {"answer": "it", "doubts": "- one\n- two"}
    found = json.loads(json.dumps(document(whole, said, 90.0, "best.toml")))
    assert found["bounds"] == [
        {
            "configuration": "c01",
            "knobs": found["recommended"]["knobs"],
            "p99_ms": 20.0,
            "rate_rps": 4100.0,
            "low_rps": 3895.0,
            "high_rps": 4305.0,
            "default_rps": 3796.3,
            "default_low_rps": 3606.48,
            "default_high_rps": 3986.11,
            "ratio": 1.08,
            "ratio_low": 1.0368,
            "ratio_high": 1.1232,
            "decided": True,
        }
    ]
    best = found["recommended"]
    assert (best["configuration"], best["rule"], best["proved"]) == ("c01", "slo", True)
    assert (best["file"], best["rate_rps"], best["ratio_low"]) == ("best.toml", 4100.0, 1.0368)
    assert best["knobs"]["workers"] == 2
    assert found["doubts"] == ["one", "two"]
    assert found["wall_s"] == 90.0
    assert found["points"][0]["p99_est_ms"] == 11
    assert found["twin_error"]["p99"] == {"median": 0.3, "p90": 0.6, "compared": 30}
    assert found["twin_wrong"] is True
    assert found["importances"] == {"capacity": {"workers": 0.7}, "p99": {}}
    assert found["findings"] == said
    empty = json.loads(json.dumps(document(Verified((), "none"), {}, 1.0)))
    assert empty["twin_error"] is empty["recommended"] is empty["importances"] is None
    assert empty["bounds"] == empty["doubts"] == []
