"""What needs Locust imported, which patches the process that does it: asked of a child process."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json
import numpy as np
from locust import task
from locust.stats import RequestStats
from dlbench.loadgen.locust.bulk_stats import feed
from dlbench.loadgen.errors import DataError
from dlbench.loadgen.locust.locustfile import profile_of
from dlbench.loadgen.locust.tab import progress_rows, result_rows, standing
from dlbench.loadgen.messages import Progress
from dlbench.loadgen.engine.progress import EndedRequests
from dlbench.loadgen.locust.user import InferenceUser, in_words
from dlbench.loadgen.measurement import Measurement

def entry(stats):
    return {**stats.total.to_dict(), "fail_ratio": stats.total.fail_ratio,
            "response_times": stats.total.response_times}

def batch(times_ms, **errors):
    times = np.array(times_ms, np.int64) * 1_000_000
    return EndedRequests(times, np.zeros(len(times), np.int64), errors, times / 1e6, 0.0)

# Locust's own way, one call for each request, is what ours is held against.
ours, locusts = RequestStats(), RequestStats()
for times in ([1, 2, 2, 147], [3432, 5]):
    feed(ours, "/infer", batch(times, timeout=2), 1000.0)
    for time_ms in times:
        locusts.log_request("POST", "/infer", time_ms, 0)
    for _ in range(2):
        locusts.log_request("POST", "/infer", None, 0)
        locusts.log_error("POST", "/infer", "timeout")
feed(ours, "/infer", batch([]), 1001.0)

class Loaded(InferenceUser):
    load = {"rate": 10}
    @task
    def never(self): ...

class OwnTasks(InferenceUser):
    load = {"encoding": "json"}
    @task
    def mine(self): ...

def refused(load):
    try:
        profile_of(load)
    except DataError as error:
        return str(error)

def progress(**changes):
    return Progress(**{**dict(elapsed_s=1, requests=1, rate_rps=1, p50_ms=1, p99_ms=2, errors=0,
                              lateness_p99_ms=0.1, in_flight=0, warming_up=False), **changes})

FAILED = {"p99_ms": float("inf"), "longest_ms": 1000.4}
measured = Measurement(verdict="ok", latency_from="scheduled", throughput_rps=9, error_rate=0.02,
                       requests=9, duration_s=1, client_cpu=0.1, net_mbps=1, started_at="",
                       p50_ms=9, p99_low_ms=820, p99_high_ms=float("inf"), **FAILED)

print(json.dumps({
    "ours": entry(ours),
    "locusts": entry(locusts),
    "errors": [error.to_dict() for error in ours.errors.values()],
    "tasks": {cls.__name__: [t.__name__ for t in cls.tasks] for cls in (Loaded, OwnTasks)},
    "refused": [refused({"rate": 1, "users": 1}), refused({"rat": 1})],
    "duration_s": [profile_of(load, duration_s=3).duration_s
                   for load in ({"rate": 1}, {"rate": 1, "duration_s": 7})],
    "standing": [standing(progress(**changes)) for changes in (
        {}, {"warming_up": True}, {"lateness_p99_ms": 5}, {"errors": 1},
        {"lateness_p99_ms": None, "p99_ms": None})],
    "closed": dict(row[:2] for row in progress_rows(progress(lateness_p99_ms=None))),
    "failing": [dict(row[:2] for row in progress_rows(progress(**FAILED)))["p99"],
                *next(row[1:] for row in result_rows(measured) if row[0] == "p99"),
                in_words(measured)],
}))
"""


@pytest.fixture(scope="module")
def found():
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_bulk_statistics_are_those_of_one_call_for_each_request(found):
    timed = ("current_rps", "total_rps", "current_fail_per_sec", "total_fail_per_sec")
    ours, locusts = (
        {key: value for key, value in found[whose].items() if key not in timed}
        for whose in ("ours", "locusts")
    )
    assert ours == locusts
    assert ours["num_requests"] == 10
    assert ours["fail_ratio"] == 0.4


def test_errors_are_counted_by_kind_with_their_times(found):
    (error,) = found["errors"]
    assert (error["error"], error["occurrences"]) == ("timeout", 4)
    assert error["first_seen"] == error["last_seen"] == 1000.0


def test_a_load_replaces_the_tasks_and_options_alone_do_not(found):
    assert found["tasks"] == {"Loaded": ["offer"], "OwnTasks": ["mine"]}


def test_a_load_that_makes_no_sense_is_refused_in_one_line(found):
    both, unknown = found["refused"]
    assert "rate and users cannot be combined" in both
    assert unknown.startswith("rat: ")
    assert "\n" not in both + unknown


def test_a_loads_own_duration_comes_before_locusts_run_time(found):
    assert found["duration_s"] == [3, 7]


def test_the_page_says_how_a_run_stands(found):
    assert found["standing"] == [
        "ok",
        "warming up",
        "invalid: the client sends late",
        "errors",
        "ok",
    ]
    assert found["closed"]["Lateness p99"] == "not measured"


def test_a_quantile_among_failed_requests_is_longer_than_anything_seen(found):
    on_page, value, interval, words = found["failing"]
    assert on_page == value == "> 1,000 ms"
    assert "[820, > 1,000]" in interval
    assert "p99 > 1,000 ms" in words
