"""What is demanded of a point, by its estimates and by its intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.constraint import FIGURES, Constraints, parse_memory, parse_slo, wilson
from dlbench.tuner.point import Resources
from testbed import made


@pytest.mark.parametrize(
    ("text", "field", "bound", "sign"),
    [
        ("error_rate<0.1%", "error_rate", 0.001, "<"),
        ("error_rate<=0.001", "error_rate", 0.001, "<"),
        ("p95 < 20ms", "p95_ms", 20, "<"),
        ("p999<0.5s", "p999_ms", 500, "<"),
        ("P50<300us", "p50_ms", 0.3, "<"),
        ("throughput>500/s", "throughput_rps", 500, ">"),
    ],
)
def test_a_bound_is_read_with_its_unit(text, field, bound, sign):
    found = parse_slo(text)
    assert (found.field, found.sign) == (field, sign)
    assert found.bound == pytest.approx(bound)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("p99", "must be FIGURE<BOUND"),
        ("latency<2ms", "figures are p50, p90"),
        ("p95>20ms", "use < for"),
        ("throughput<20", "use > for"),
        ("error_rate<1ms", "ms is not a unit of error_rate; use %"),
        ("p95<-1", "must be FIGURE<BOUND"),
        ("p95<nan", "must be FIGURE<BOUND"),
    ],
)
def test_a_bound_that_cannot_be_read_says_how(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_slo(text)


def test_what_the_servers_memory_is_bounded_to():
    bounds = [parse_memory(text, "--max-memory", "server_rss_mb") for text in ("2GB", "1GB")]
    gpu = parse_memory("1MB", "--max-gpu-memory", "gpu_mem_mb")
    assert Constraints((*bounds, gpu)).most_server_mb == 1000
    assert Constraints((gpu,)).most_server_mb == math.inf


def test_memory_is_read_in_units_of_ten_and_of_two():
    assert parse_memory("2GB", "--max-memory", "server_rss_mb").bound == 2000
    assert parse_memory("1 MiB", "--max-memory", "server_rss_mb").bound == 1.048576
    for wrong in ("much", "0GB", "-1GB"):
        with pytest.raises(ValueError, match=r"--max-memory .*as 2GB"):
            parse_memory(wrong, "--max-memory", "server_rss_mb")


@given(st.floats(1, 100), st.floats(1, 100), st.floats(1, 100), st.floats(1, 100))
def test_a_bound_is_met_only_by_the_whole_interval(bound, p95, one, other):
    low, high = sorted((one, other))
    point = made.point(p95_ms=p95, p95_low_ms=low, p95_high_ms=high)
    demands = Constraints((parse_slo(f"p95<{bound!r}ms"),))
    wanted = "met" if high <= bound else "missed" if low > bound else "undecided"
    assert demands.standing(point) == wanted
    assert (demands.estimated(point)[0] <= 0) == (p95 <= bound)


def test_more_is_better_for_throughput():
    point = made.point(rate=100, throughput_low_rps=90, throughput_high_rps=110)
    texts = {"met": "throughput>90", "undecided": "throughput>100", "missed": "throughput>111"}
    for standing, text in texts.items():
        assert Constraints((parse_slo(text),)).standing(point) == standing


def test_few_requests_without_an_error_promise_no_low_error_rate():
    demands = Constraints((parse_slo("error_rate<0.1%"),))
    few, many = made.point(requests=459), made.point(requests=10_000)
    assert demands.estimated(few)[0] <= 0
    assert demands.standing(few) == "undecided"
    assert demands.standing(many) == "met"
    assert demands.standing(made.point(requests=459, error_rate=0.1)) == "missed"


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_interval_of_an_error_rate_encloses_it_and_stays_a_share(requests, rate):
    low, high = wilson(made.measurement(requests=requests, error_rate=rate))
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1


def test_the_interval_of_an_error_rate_is_wilsons():
    # Newcombe, Statistics in Medicine 17:857 (1998), table I: 81 of 263.
    low, high = wilson(made.measurement(requests=263, error_rate=81 / 263))
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_memory_that_was_read_off_stands_for_itself():
    demands = Constraints((parse_memory("1GB", "--max-memory", "server_rss_mb"),))
    small, large, unread = (Resources(server_rss_mb=mb) for mb in (900, 1100, None))
    assert demands.standing(made.point(resources=small)) == "met"
    assert demands.standing(made.point(resources=large)) == "missed"
    assert demands.standing(made.point(resources=unread)) == "undecided"
    assert demands.estimated(made.point(resources=large)) == (pytest.approx(0.1),)


@pytest.mark.parametrize("name", FIGURES)
def test_what_failed_holds_nothing(name):
    demand = parse_slo(f"{name}{FIGURES[name].sign}1{next(iter(FIGURES[name].units))}")
    failed = made.point(measurement=None, failure="out of memory")
    assert Constraints((demand,)).standing(failed) != "met"
    assert Constraints((demand,)).estimated(failed)[0] > 0


def test_what_is_no_number_raises():
    point = made.point(p95_ms=1.0, p95_low_ms=1.0, p95_high_ms=math.nan)
    with pytest.raises(ValueError, match="p95_ms is not a number"):
        Constraints((parse_slo("p95<1ms"),)).standing(point)


def test_the_worst_of_several_demands_decides():
    demands = Constraints((parse_slo("p95<20ms"), parse_slo("throughput>1")))
    point = made.point(p95_low_ms=10, p95_high_ms=30, throughput_low_rps=2, throughput_high_rps=3)
    assert demands.standing(point) == "undecided"
    assert Constraints().standing(point) == "met"
    assert Constraints().estimated(point) == ()
