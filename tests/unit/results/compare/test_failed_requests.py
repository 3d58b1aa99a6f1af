"""What every output says of a quantile that falls among requests that failed within a second."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from dlbench.cli.terminal.live import _line, point_line
from dlbench.cli.terminal.output import print_json
from dlbench.cli.terminal.tables import result_table
from dlbench.loadgen.analysis.differences import Runs
from dlbench.loadgen.measurement import ClassFigures
from dlbench.loadgen.messages import Progress, Update, parse_answer, to_line
from dlbench.results.compare.comparison import loads
from dlbench.results.compare.comparison import rerun as compare_again
from dlbench.results.compare.junit import junit
from dlbench.results.compare.regression import judge
from dlbench.results.compare.renderings import document, markdown, rows
from dlbench.results.formats import FORMATS, Content
from dlbench.results.page.point_rows import page_rows
from dlbench.tuner.verify.pool import pool
from dlbench.tuner.verify.verification import Verified
from testbed import made

# 2.4 % of the requests got no reply within a second.
FAILED = {
    "p99_ms": math.inf,
    "p99_low_ms": 820.0,
    "p99_high_ms": math.inf,
    "longest_ms": 1000.4,
    "error_rate": 0.024,
}
TAIL, INTERVAL = "> 1,000", "[820, > 1,000]"


def printed(what):
    console = Console(file=io.StringIO(), width=80)
    console.print(what)
    return " ".join(console.file.getvalue().split())


@pytest.fixture
def load():
    figures = ClassFigures(
        requests=9, throughput_rps=1.0, error_rate=0.5, p50_ms=math.inf, longest_ms=2000.0
    )
    return made.load(**FAILED, classes={"slow": figures})


def test_the_table_of_a_load(load):
    text = printed(result_table(load))
    assert f"p99 {TAIL} {INTERVAL}" in text
    assert "slow 9 1.0 > 2,000" in text


def test_the_live_line():
    seen = Progress(
        elapsed_s=1.0,
        requests=9,
        rate_rps=9.0,
        p50_ms=12.0,
        p99_ms=math.inf,
        errors=1,
        lateness_p99_ms=0.1,
        in_flight=0,
        warming_up=False,
        longest_ms=1000.4,
    )
    update = Update(progress=seen)
    assert parse_answer(to_line(update)) == update
    assert f"p50 12 ms  p99 {TAIL} ms" in _line(seen)


def test_json_has_a_text_that_no_comparison_takes_for_small(load, capsys):
    print_json(load.model_dump(mode="json"))
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (found["p99_ms"], found["p99_high_ms"]) == ("Infinity", "Infinity")
    assert type(load).model_validate(found) == load


@pytest.fixture
def content():
    front = made.verified("c01", p99_high_ms=math.inf, longest_ms=1000.4)
    lost = made.verified("default", **FAILED).model_copy(update={"on_front": False})
    about = {"model": "m.onnx", "device": "cpu", "machine": "EPYC"}
    return Content([front, lost], Verified((front, lost), "none"), {}, about)


def test_every_format_of_a_study(content):
    (_, row) = csv.DictReader(io.StringIO(FORMATS["csv"](content).decode()))
    assert (row["p99_ms"], row["p99_high_ms"], row["longest_ms"]) == ("inf", "inf", "1000.4")
    (_, row) = json.loads(FORMATS["json"](content), parse_constant=pytest.fail)["points"]
    assert (row["p99_ms"], row["longest_ms"]) == ("Infinity", 1000.4)
    (_, row) = pq.read_table(io.BytesIO(FORMATS["parquet"](content))).to_pylist()
    assert row["p99_ms"] == math.inf
    text = FORMATS["md"](content).decode()
    assert r"| \> 1,000 | 820, \> 1,000 |" in text
    assert r"| 10 | 9.52, \> 1,000 |" in text
    assert b"nan" not in FORMATS["svg"](content)
    assert b"inf" not in FORMATS["svg"](content)
    assert page_rows(content.recorded, content.result)[1]["p99_ms"] == math.inf


def test_the_line_of_a_point(content):
    assert f"p99 {TAIL} ms" in point_line(content.recorded[1])


def test_a_point_that_fails_often_has_no_place_on_a_front():
    assert made.verified("c01", **{**FAILED, "error_rate": 0.0}).outcome is None


def test_a_comparison_says_by_how_much_at_least():
    judged = judge(loads(made.load(), made.load(**FAILED)))
    by_figure = {row.figure: row for row in rows(judged)}
    row = by_figure["p99_ms"]
    assert (row.second, row.change) == (TAIL, "> 100 times slower")
    assert row.interval.startswith("at least 78")
    assert row.verdict == "regression"
    text = json.dumps(document(judged)["changes"])
    assert "1000.4" in text
    for written in (markdown(judged, "x"), junit(judged, "x")):
        assert "1,000" in written
        assert "inf" not in written
        assert "nan" not in written


def test_the_other_way_round_is_better_and_two_that_fail_cannot_be_told_apart():
    better = judge(loads(made.load(**FAILED), made.load()))
    assert next(v for c, v in better.judged if c.figure == "p99_ms") == "better"
    alike = judge(loads(made.load(**FAILED), made.load(**FAILED)))
    (row,) = (row for row in rows(alike) if row.figure == "p99_ms")
    assert (row.change, row.interval, row.verdict) == ("", "undetermined", "cannot tell")


def test_a_study_measured_again_that_now_fails_is_a_regression():
    before, now = made.verified("c01"), made.verified("c01", **FAILED)
    found = judge(compare_again({"c01@0.5": before}, {"c01@0.5": now}, []))
    assert found.outcome == "regression"


def test_by_their_samples_failed_requests_count_as_well():
    rng = np.random.default_rng(0)
    sound = [rng.exponential(10, 4000)]
    failing = [np.where(rng.random(4000) < 0.024, np.inf, sound[0])]
    found = Runs(failing, longest_ms=1000.4).figures()["p99_ms"]
    assert found.value == found.interval[1] == math.inf
    assert Runs(failing).figures()["mean_ms"].value == pytest.approx(10, rel=0.1)


def test_repeats_of_which_some_fail_are_pooled_with_their_failures():
    rng = np.random.default_rng(0)
    took = [rng.exponential(10, 2000) for _ in range(3)]
    took[1][rng.choice(2000, 80, replace=False)] = np.inf
    points = [made.verified("c01", longest_ms=longest) for longest in (90.0, 1000.4, 80.0)]
    found = pool(list(zip(points, took, strict=True))).measurement
    assert (found.p99_ms, found.p99_high_ms, found.longest_ms) == (math.inf, math.inf, 1000.4)
    assert math.isfinite(found.p95_ms)
    assert math.isfinite(found.mean_ms)


def test_the_result_of_a_study_gives_infinity_back(content):
    result = replace(content.result)
    assert Verified.of(json.loads(json.dumps(result.document))) == result
