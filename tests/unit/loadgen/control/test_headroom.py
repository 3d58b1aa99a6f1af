import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.machine import facts
from dlbench.loadgen.control.headroom import (
    OPEN_RPS,
    OPEN_SHARE,
    Headroom,
    HeadroomCache,
    calibrate,
    is_quiet,
    key_of,
    request_size,
    size_class,
)
from dlbench.loadgen.control.roles import ALONE, Role
from dlbench.loadgen.errors import GeneratorError
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec
from testbed import made

QUIET = facts().model_copy(update={"load_average": (0.0, 0.0, 0.0)})
BUSY = QUIET.model_copy(update={"load_average": (99.0, 0.0, 0.0)})
FOUND = Headroom(max_rps=50_000, overhead_p50_ms=0.1, overhead_p99_ms=0.3, measured_at="today")
LOADS = [
    {"rate": 9000, "rate_to": 20_000, "pattern": "ramp", "arrivals": "gamma", "connections": 3},
    {"users": 7, "think_s": 2.0},
    {"trace": "arrivals.csv"},
]


def target(**changes):
    given_inputs = TensorSpec(name="x", datatype="FP32", shape=(-1, 16), batch_axis=0)
    known = {"url": "http://10.0.0.2:8000", "model": "m", "path": "/v2/models/m/infer"}
    return Target(**{**known, "inputs": (given_inputs,), "statistics": True, **changes})


class Client:
    """A generator that reaches a fixed rate at once, and keeps what it was asked to do."""

    def __init__(self, max_rps=50_000.0, errors=0.0, complete=True):
        self.asked = []
        self._rate, self._errors, self._complete = max_rps, errors, complete

    def measure(self, target, profile):
        self.asked.append((target, profile))
        failed = {"error_rate": self._errors, "errors": {"refused": 3} if self._errors else {}}
        own = {
            "complete": self._complete,
            "started_at": "today",
            "p50_ms": 0.1,
            "client_cpu": 1,
            **failed,
        }
        measurement = made.measurement(rate=profile.rate or self._rate, p99=0.3, **own)
        return SimpleNamespace(measurement=measurement)


@pytest.fixture
def cache(tmp_path):
    return HeadroomCache(tmp_path / "kept")


@pytest.mark.parametrize("load", LOADS)
def test_it_measures_its_own_loads_whatever_the_runs_is(load, cache):
    client = Client()
    profile = LoadProfile(**load, encoding="json", data="rows.npy", check="expected.npz")
    assert calibrate(client, target(), profile, machine=QUIET, cache=cache) == FOUND
    (_, closed), (_, opened) = client.asked
    assert not closed.is_open_loop
    assert (opened.rate, opened.users) == (OPEN_RPS, None)
    for profile in (closed, opened):
        # A load that a person could ask for, with the requests of the run and no judge of values.
        LoadProfile.model_validate(profile.model_dump())
        assert (profile.encoding, profile.data, profile.check) == ("json", "rows.npy", None)
        assert (profile.think_s, profile.connections) == (0, 0)


def test_it_measures_a_null_server_and_not_the_target(cache):
    client = Client()
    calibrate(client, target(), LoadProfile(rate=1), machine=QUIET, cache=cache)
    asked = {target.url for target, _ in client.asked}
    assert len(asked) == 1
    assert asked.pop().startswith("http://127.0.0.1:")
    assert not any(target.statistics for target, _ in client.asked)


def test_overhead_is_measured_at_a_moderate_rate_of_a_slow_client(cache):
    client = Client(max_rps=400)
    calibrate(client, target(), LoadProfile(rate=1), machine=QUIET, cache=cache)
    assert client.asked[1][1].rate == OPEN_SHARE * 400


def test_it_is_measured_once(cache):
    first, second = Client(), Client(max_rps=1.0)
    for client in (first, second):
        found = calibrate(client, target(), LoadProfile(rate=1), machine=QUIET, cache=cache)
        assert found == FOUND
    assert second.asked == []


def test_it_is_measured_again_when_somebody_wants_that(cache):
    profile = LoadProfile(rate=1)
    calibrate(Client(), target(), profile, machine=QUIET, cache=cache)
    found = calibrate(Client(70_000), target(), profile, machine=QUIET, cache=cache, fresh=True)
    assert found.max_rps == 70_000
    assert calibrate(Client(), target(), profile, machine=QUIET, cache=cache).max_rps == 70_000


def test_what_a_busy_machine_gave_is_not_kept(cache):
    slow = calibrate(Client(90.0), target(), LoadProfile(rate=1), machine=BUSY, cache=cache)
    assert slow.max_rps == 90
    assert calibrate(Client(), target(), LoadProfile(rate=1), machine=QUIET, cache=cache) == FOUND


@pytest.mark.parametrize(
    ("changes", "role", "said"),
    [
        ({"protocol": "grpc", "url": "grpc://10.0.0.2:8001"}, ALONE, "gRPC"),
        ({"url": "https://10.0.0.2"}, ALONE, "TLS"),
        ({}, Role(master="0.0.0.0:5557"), "other machines"),
    ],
)
def test_what_the_null_server_cannot_do_is_said(changes, role, said, cache):
    client = Client()
    found = calibrate(client, target(**changes), LoadProfile(rate=1), role=role, cache=cache)
    assert said in found.missing
    assert (found.max_rps, found.overhead_p50_ms, found.times(100)) == (None, None, None)
    assert client.asked == []


def test_a_calibration_with_errors_is_none(cache):
    profile = LoadProfile(rate=1)
    found = calibrate(Client(errors=0.1), target(), profile, machine=QUIET, cache=cache)
    assert found.max_rps is None
    assert "refused" in found.missing
    assert calibrate(Client(), target(), profile, machine=QUIET, cache=cache) == FOUND


def test_stopped_is_stopped(cache):
    with pytest.raises(KeyboardInterrupt):
        calibrate(Client(complete=False), target(), LoadProfile(rate=1), machine=QUIET, cache=cache)


def test_times():
    assert FOUND.times(5_000) == 10
    assert FOUND.times(0) is None


KEY = key_of(QUIET, target(), LoadProfile(rate=1), ALONE)


@pytest.mark.parametrize(
    ("other", "profile", "role", "machine"),
    [
        (target(protocol="plain"), {}, ALONE, {}),
        (target(supports_binary=True), {}, ALONE, {}),
        (target(inputs=()), {"data": "images"}, ALONE, {}),
        (target(), {"keep_alive": False}, ALONE, {}),
        (target(), {}, Role(processes=2), {}),
        (target(), {}, ALONE, {"cpu": "another"}),
        (target(), {}, ALONE, {"cpu_limit": 0.5}),
        (target(), {}, ALONE, {"versions": {"gevent": "1"}}),
    ],
)
def test_what_it_depends_on_is_in_the_key(other, profile, role, machine):
    known = QUIET.model_copy(update=machine)
    assert key_of(known, other, LoadProfile(rate=1, **profile), role) != KEY


def test_what_it_does_not_depend_on_is_not():
    other = target(url="http://elsewhere:1", model="another", path="/v2/models/another/infer")
    assert key_of(BUSY, other, LoadProfile(users=99, seed=4), ALONE) == KEY


def test_the_size_of_a_request_is_that_of_its_tensors():
    specs = [("a", "FP32", (-1, 3, 10)), ("b", "UINT8", (-1, 5))]
    inputs = tuple(
        TensorSpec(name=name, datatype=datatype, shape=shape, batch_axis=0)
        for name, datatype, shape in specs
    )
    assert request_size(target(inputs=inputs)) == 4 * 30 + 5


@given(st.integers(0, 10**9))
def test_size_classes_grow_by_the_factor(size):
    assert size_class(size) >= 0
    assert size_class(4 * max(size, 1024)) == size_class(max(size, 1024)) + 1
    assert size_class(size) <= size_class(size + 1)


def test_quiet():
    assert is_quiet(QUIET)
    assert not is_quiet(BUSY)


def test_the_cache_keeps_what_was_put(cache):
    assert cache.get(KEY) is None
    cache.put(KEY, FOUND)
    assert cache.get(KEY) == FOUND
    assert cache.get({**KEY, "processes": 9}) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace("max_rps", "min_rps"),
        lambda _: "[]",
        lambda _: json.dumps({"version": 1}),
    ],
    ids=["cut off", "another version", "another field", "no object", "nothing in it"],
)
def test_a_file_that_cannot_be_read_is_measured_anew(cache, tmp_path, spoil):
    cache.put(KEY, FOUND)
    (file,) = (tmp_path / "kept").iterdir()
    file.write_text(spoil(file.read_text()))
    assert cache.get(KEY) is None
    cache.put(KEY, FOUND)
    assert cache.get(KEY) == FOUND


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path):
    (tmp_path / "file").write_text("")
    cache = HeadroomCache(tmp_path / "file" / "folder")
    cache.put(KEY, FOUND)
    assert cache.get(KEY) is None


def test_a_null_server_that_does_not_start_is_said(cache):
    strange = TensorSpec(name="x", datatype="COMPLEX64", shape=(-1, 2), batch_axis=0)
    with pytest.raises(GeneratorError, match="did not start"):
        calibrate(
            Client(), target(outputs=(strange,)), LoadProfile(rate=1), machine=QUIET, cache=cache
        )
