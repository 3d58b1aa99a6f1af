"""How the cache is made from the configuration, and how it looks after memory."""

import tracemalloc

import pytest

from dlbench.proxy.cache.cache import CACHES, ENTRY_BYTES, Bounds, NoCache, make_cache
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.tensors import Tensor

OUTPUTS = (Tensor((1,), b"x"),)


def kept_of(cache, count):
    """How many of `count` small answers stay."""
    for number in range(count):
        cache.put(number.to_bytes(16, "little"), OUTPUTS, 0)
    return len(cache)


def test_every_policy_that_can_be_asked_for_is_there():
    annotation = ServingConfig.model_fields["cache_policy"].annotation
    assert set(CACHES) == set(annotation.__args__)


@pytest.mark.parametrize("config", [{"cache_size": 0}, {"cache_size": 9, "cache_policy": "none"}])
def test_no_size_or_no_policy_is_no_cache(config):
    assert isinstance(make_cache(ServingConfig(**config)), NoCache)


def test_the_size_is_that_of_the_configuration():
    assert kept_of(make_cache(ServingConfig(cache_size=256)), 300) == 256


def test_workers_share_the_entries_and_the_bytes():
    config = ServingConfig(cache_size=10, cache_max_mb=0.01)
    assert kept_of(make_cache(config, share=4), 100) == 3
    bytes_only = ServingConfig(cache_size=1000, cache_max_mb=0.01)
    whole, part = (kept_of(make_cache(bytes_only, share), 100) for share in (1, 4))
    assert whole == int(0.01 * 2**20 / (ENTRY_BYTES + 1))
    assert part == int(0.01 * 2**20 / 4 / (ENTRY_BYTES + 1))


def test_a_time_to_live_is_in_seconds_and_none_is_for_ever():
    brief, lasting = (
        make_cache(ServingConfig(cache_size=1, cache_ttl_s=ttl_s)) for ttl_s in (0.5, 0)
    )
    for cache in (brief, lasting):
        cache.put(b"k", OUTPUTS, 7)
    assert brief.get(b"k", 7 + 499_999_999) == OUTPUTS
    assert brief.get(b"k", 7 + 500_000_000) is None
    assert lasting.get(b"k", 10**18) == OUTPUTS


@pytest.mark.parametrize("policy", sorted(set(CACHES) - {"none"}))
def test_an_entry_takes_about_the_memory_that_is_counted(policy):
    """Within a quarter, batch-sized buffers that the answers are cut from not among it."""
    cache = CACHES[policy](Bounds(1000, 2**30))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1000):
            batch = memoryview(bytes(20_000))
            shape = (1, number)
            cache.put(number.to_bytes(16, "little"), (Tensor(shape, batch[:400]),), 0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.75 * taken <= cache.size_bytes <= 1.25 * taken
