import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.server_times import (
    NoClock,
    ServerTimes,
    Totals,
    V2Clock,
    server_clock,
    totals,
)
from dlbench.loadgen.target import Target

COUNTS = st.integers(0, 10**15)


def statistics(*rows):
    names = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    models = [
        {
            "name": "m",
            "version": str(version),
            "inference_stats": {
                name: {"count": row[0], "ns": ns} for name, ns in zip(names, row[1:], strict=True)
            },
        }
        for version, row in enumerate(rows)
    ]
    return json.dumps({"model_stats": models}).encode()


def test_versions_are_added_up():
    found = totals(statistics((2, 900, 10, 1, 2, 3), (5, 900, 20, 4, 5, 6)))
    assert found == Totals(requests=7, queue_ns=30, compute_ns=21)


def test_parts_that_a_server_does_not_list_took_no_time():
    text = b'{"model_stats": [{"inference_stats": {"success": {"count": 3, "ns": 7}}}]}'
    assert totals(text) == Totals(3, 0, 0)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"model_stats": [{}]}', b"<html>"])
def test_what_is_no_statistics(text):
    with pytest.raises(ValidationError):
        totals(text)


def test_means_are_those_of_the_requests_in_between():
    before, after = Totals(100, 5_000_000, 70_000_000), Totals(110, 25_000_000, 90_000_000)
    assert after.since(before) == ServerTimes(queue_ms=2.0, compute_ms=2.0, requests=10)


@given(COUNTS, COUNTS, COUNTS, st.integers(1, 10**9), COUNTS, COUNTS)
def test_what_was_before_does_not_matter(a, b, c, requests, queue_ns, compute_ns):
    found = Totals(a + requests, b + queue_ns, c + compute_ns).since(Totals(a, b, c))
    assert found == Totals(requests, queue_ns, compute_ns).since(Totals(0, 0, 0))
    assert found.queue_ms * requests * 1e6 == pytest.approx(queue_ns)


@pytest.mark.parametrize(
    "after",
    [Totals(100, 5, 7), Totals(3, 5, 7), Totals(101, 4, 7), Totals(101, 5, 6)],
    ids=["no request", "restarted", "queue restarted", "compute restarted"],
)
def test_nothing_is_said_of_no_requests_or_of_another_server(after):
    assert after.since(Totals(100, 5, 7)) is None


def target(**changes):
    known = {"url": "http://127.0.0.1:1", "model": "m", "path": "/v2/models/m/infer"}
    return Target(**known, **{"statistics": True, **changes})


@pytest.mark.parametrize(
    "changes", [{"statistics": False}, {"protocol": "grpc"}, {"protocol": "tfserving"}]
)
def test_a_server_that_publishes_nothing_has_no_clock(changes):
    clock = server_clock(target(**changes), LoadProfile(rate=1))
    assert isinstance(clock, NoClock)
    assert clock.read() is None
    assert clock.since(None) is None


def test_a_server_that_is_gone_has_no_clock_any_more():
    clock = V2Clock(target(), LoadProfile(rate=1))
    assert clock.read() is None
    assert clock.since(Totals(1, 2, 3)) is None


def test_a_token_that_cannot_be_read_is_said(tmp_path):
    profile = LoadProfile(rate=1, token_file=str(tmp_path / "none"))
    with pytest.raises(TargetError, match="--token-file"):
        server_clock(target(), profile)
