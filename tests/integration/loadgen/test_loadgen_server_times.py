"""Where time went on a real server: our proxy's V2 statistics, read as any server's are."""

import httpx
import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.server_times import server_clock
from dlbench.loadgen.target import Target
from testbed.messages import tensor

TOKEN = "a-token-of-some-length"


def target_of(proxy):
    path = f"/v2/models/{proxy.name}/infer"
    return Target(url=proxy.url, model=proxy.name, path=path, statistics=True)


def infer(proxy, value, **headers):
    url = f"{proxy.url}/v2/models/{proxy.name}/infer"
    answer = httpx.post(
        url, json={"inputs": [tensor(*[value] * 3)]}, headers=headers, trust_env=False, timeout=60
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def slow_proxy(module_proxy, models):
    return module_proxy(models.slow(), cache_size=8)


def test_only_the_requests_in_between_count(slow_proxy):
    clock = server_clock(target_of(slow_proxy), LoadProfile(users=1))
    infer(slow_proxy, 1.0)
    before = clock.read()
    assert clock.since(before) is None
    for value in (2.0, 3.0):
        infer(slow_proxy, value)
    found = clock.since(before)
    assert found.requests == 2
    # What a row costs is what the model computes: its time in the queue is next to nothing.
    assert found.compute_ms > found.queue_ms >= 0


def test_cache_hits_compute_nothing(slow_proxy):
    clock = server_clock(target_of(slow_proxy), LoadProfile(users=1))
    infer(slow_proxy, 7.0)
    before = clock.read()
    infer(slow_proxy, 7.0)
    found = clock.since(before)
    assert (found.requests, found.queue_ms, found.compute_ms) == (1, 0, 0)


def test_a_server_that_was_started_anew_has_no_figures(start_proxy, models):
    first = start_proxy(models.affine())
    infer(first, 1.0)
    before = server_clock(target_of(first), LoadProfile(users=1)).read()
    assert before.requests == 1
    second = start_proxy(models.affine())
    assert server_clock(target_of(second), LoadProfile(users=1)).since(before) is None


def test_the_token_is_shown(start_proxy, models, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    proxy = start_proxy(models.affine(), {"token_file": str(file)})
    profile = LoadProfile(users=1, token_file=str(file))
    clock = server_clock(target_of(proxy), profile)
    infer(proxy, 1.0, authorization=f"Bearer {TOKEN}")
    assert clock.read().requests == 1
    assert server_clock(target_of(proxy), LoadProfile(users=1)).read() is None


def test_a_model_that_is_not_there_has_no_figures(slow_proxy):
    missing = target_of(slow_proxy).model_copy(update={"model": "other"})
    assert server_clock(missing, LoadProfile(users=1)).read() is None
