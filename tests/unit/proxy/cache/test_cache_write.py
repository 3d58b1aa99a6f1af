"""When a backend learns of a result, with the cache that the results go through."""

import pytest

from dlbench.proxy.cache.backend import NoBackend
from dlbench.proxy.cache.cache import make_cache
from dlbench.proxy.cache.cache_write import WRITERS, make_writer
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.tensors import Tensor

OUTPUTS = (Tensor((1,), b"x"),)


class ListBackend(NoBackend):
    """Lists what it is told to store."""

    def __init__(self):
        self.stored = []

    def store(self, key, outputs, ttl_s, *, combined=False):
        self.stored.append((key, outputs, ttl_s, combined))


def serve(config, backend, keys, now_ns=0):
    """What a proxy does with new results; returns its cache."""
    cache, writer = make_cache(config), make_writer(config, backend)
    cache.on_evicted = writer.evicted
    for key in keys:
        cache.put(key, OUTPUTS, now_ns, dirty=True)
        writer.kept(key, OUTPUTS)
    return cache


def config_of(mode, size=2, **knobs):
    return ServingConfig(cache_write=mode, cache_size=size, **knobs)


def test_every_way_that_can_be_asked_for_is_there():
    assert set(WRITERS) == set(ServingConfig.model_fields["cache_write"].annotation.__args__)


@pytest.mark.parametrize(("mode", "combined"), [("write_through", 0), ("write_combining", 1)])
def test_every_result_is_stored_once_and_at_once(mode, combined):
    backend = ListBackend()
    cache = serve(config_of(mode, cache_ttl_s=3), backend, [b"a", b"b", b"c"])
    expected = [(key, OUTPUTS, 3, combined) for key in (b"a", b"b", b"c")]
    assert backend.stored == expected
    cache.clear(0)
    assert backend.stored == expected


def test_written_back_is_what_leaves_and_the_rest_at_the_end():
    backend = ListBackend()
    cache = serve(config_of("write_back", cache_ttl_s=3), backend, [b"a", b"b", b"c"])
    assert backend.stored == [(b"a", OUTPUTS, 3, False)]
    cache.clear(0)
    assert [key for key, *_ in backend.stored] == [b"a", b"b", b"c"]


def test_what_came_from_the_backend_is_not_written_back_to_it():
    backend = ListBackend()
    cache = serve(config_of("write_back"), backend, [])
    cache.put(b"a", OUTPUTS, 0)
    cache.clear(0)
    assert backend.stored == []


@pytest.mark.parametrize("mode", sorted(WRITERS))
def test_without_a_first_level_every_result_is_stored_once(mode):
    backend = ListBackend()
    serve(config_of(mode, size=0), backend, [b"a", b"b"]).clear(0)
    assert [key for key, *_ in backend.stored] == [b"a", b"b"]
