"""The pure parts of the benchmarks that run in pieces: what is kept, chosen and concluded."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import tuned
from benchmarks.harness.in_pieces import Kept, OutOfTime
from benchmarks.tuning import exhaustive
from benchmarks.tuning.cases import Ratio, ceiling_rps, ratio, standing
from benchmarks.tuning.exhaustive import Chosen, settled, shares
from dlbench.loadgen.measurement import Measurement
from dlbench.proxy.config import ServingConfig
from dlbench.results.records import write_csv
from dlbench.tuner.front import Outcome
from dlbench.tuner.point import Point
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from testbed import made


@pytest.fixture
def kept_in(tmp_path):
    return lambda for_s=60.0: Kept(tmp_path / "kept.jsonl", for_s)


def test_what_was_measured_is_not_measured_again(kept_in):
    assert kept_in().once("a", lambda: {"rate": 1.5}) == {"rate": 1.5}
    assert kept_in().once("a", lambda: pytest.fail("measured twice")) == {"rate": 1.5}


def test_out_of_time_gives_what_is_kept_and_makes_nothing(kept_in):
    kept_in().once("a", lambda: 1)
    late = kept_in(for_s=-1.0)
    assert late.once("a", lambda: pytest.fail("made")) == 1
    with pytest.raises(OutOfTime):
        late.once("b", lambda: pytest.fail("made"))


def test_a_record_cut_short_by_a_kill_is_made_again(kept_in, tmp_path):
    kept_in().once("a", lambda: 1)
    with (tmp_path / "kept.jsonl").open("a") as file:
        file.write('{"name": "b", "val')
    assert kept_in().once("b", lambda: 2) == 2
    assert kept_in().beginning("") == [1, 2]


def test_a_csv_row_is_the_configuration_that_was_written():
    config = ServingConfig(workers=3, max_batch_size=24, max_queue_delay_ms=0.5)
    figures = {"offered_rps": 812.5, "rate": 800.0, "p99": 3.0}
    point = made.point("c01", "verify", config=config, **figures)
    seen = point.model_copy(update={"configuration": "c02", "phase": "screen"})
    best = point.model_copy(update={"on_front": True, "recommended": True})
    stream = io.StringIO()
    write_csv([seen, best], stream)
    answer = tuned.Answer(tuned.read(stream.getvalue()), "", 1.0)
    assert answer.front == [tuned.Winner(config, 812.5, recommended=True)]
    assert answer.measured == [(config, (800.0, 3.0))]


def test_the_grid_is_the_space_that_tune_makes_of_its_file():
    default = exhaustive.space(exhaustive.space_file(exhaustive.GRID))
    configs = list(default.configurations())
    assert len(configs) == len(set(configs))
    for knob, values in exhaustive.space_file(exhaustive.GRID).items():
        assert {getattr(config, knob) for config in configs} <= set(values)


def test_most_repeats_have_to_hold():
    good, bad = point(100.0, 5.0), point(100.0, 5.0, "saturated")
    assert settled([good, bad]) is None
    assert settled([good, point(110.0, 7.0), point(120.0, 9.0), bad]) == (110.0, 7.0)


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(0.1, 900)), min_size=1, max_size=6))
def test_fewer_of_the_same_points_never_have_the_larger_share(pairs):
    chosen = [Chosen(ServingConfig(workers=1), float(n)) for n in range(len(pairs))]
    outcomes = {c: Outcome(*pair) for c, pair in zip(chosen, pairs, strict=True)}
    sides = {"exhaustive": chosen, "tune": chosen[:1]}
    found = shares(sides, outcomes)
    assert found["exhaustive"] == pytest.approx(1)
    assert 0 <= found["tune"] <= 1 + 1e-9


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8), st.floats(0.01, 100))
def test_equal_ratios_are_their_mean_and_lie_in_its_interval(under, factor):
    found = ratio([factor * value for value in under], under)
    assert found == pytest.approx((factor, factor, factor))


def test_one_round_has_a_ratio_and_no_interval_and_decides_nothing():
    found = ratio([3.0, None], [2.0, 5.0])
    assert found.middle == pytest.approx(1.5)
    assert math.isnan(found.low)
    assert standing(found, 1.3) == "undecided"
    assert ratio([0.0], [2.0]) is None


@pytest.mark.parametrize(
    ("low", "high", "factor", "stands"),
    [
        (1.4, 1.6, 1.3, "reached"),
        (1.2, 1.6, 1.3, "undecided"),
        (1.0, 1.2, 1.3, "not reached"),
        (0.3, 0.5, 0.6, "reached"),
        (0.5, 0.7, 0.6, "undecided"),
        (0.7, 0.9, 0.6, "not reached"),
    ],
)
def test_a_claim_stands_by_the_whole_interval(low, high, factor, stands):
    assert standing(Ratio((low + high) / 2, low, high), factor) == stands


def test_the_ceiling_is_what_all_workers_computed_together():
    times = (
        ServiceTime(batch=1, busy=1, seconds=0.01),
        ServiceTime(batch=8, busy=1, seconds=0.02),
        ServiceTime(batch=8, busy=2, seconds=0.03),
    )
    assert ceiling_rps(Calibration(services=times, cores=2)) == pytest.approx(2 * 8 / 0.03)


def point(rate, p99_ms, verdict="ok"):
    measured = Measurement(
        verdict=verdict, latency_from="scheduled", offered_rps=rate, throughput_rps=rate,
        p99_ms=p99_ms, error_rate=0.0, requests=500, duration_s=1.0, client_cpu=0.1, net_mbps=1.0,
        started_at="",
    )  # fmt: skip
    config = ServingConfig(workers=1)
    return Point(configuration="a", phase="verify", config=config, share=0.5, measurement=measured)
