"""The cache's keys: equal exactly for requests with equal answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache import LruCache, NoCache, make_cache
from dlbench.proxy.tensors import Tensor
from dlbench.proxy.wire import InferRequest, WantedOutput

SHAPES = [(), (1,), (2,), (3,), (4,), (1, 2), (2, 1), (2, 2), (4, 1), (1, 4), (0,), (0, 2)]


@st.composite
def requests(draw):
    """Few bytes and many shapes, so that equal bytes meet under different descriptions."""
    found = []
    for shape in draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)):
        size = int(np.prod(shape))
        found.append(
            Tensor(
                shape, bytes(draw(st.lists(st.sampled_from([0, 1]), min_size=size, max_size=size)))
            )
        )
    wanted = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    binary = draw(st.booleans())
    return InferRequest(tuple(found), 1, None, tuple(WantedOutput(i, binary) for i in wanted))


def meaning(request):
    return (
        tuple((t.shape, bytes(t.data)) for t in request.tensors),
        tuple(w.index for w in request.wanted),
    )


@settings(max_examples=300, deadline=None)
@given(requests(), requests())
def test_keys_are_equal_exactly_when_the_requests_mean_the_same(one, other):
    cache = LruCache(4, b"m/1")
    assert (cache.key(one) == cache.key(other)) == (meaning(one) == meaning(other))
    assert len(cache.key(one)) == 16


def test_another_model_has_other_keys():
    request = InferRequest((Tensor((1,), b"x"),), 1, None, (WantedOutput(0, True),))
    assert LruCache(1, b"m/1").key(request) != LruCache(1, b"n/1").key(request)


def test_bytes_moved_between_tensors_have_another_key():
    def key(*pieces):
        found = tuple(Tensor((len(p),), p) for p in pieces)
        return LruCache(1, b"m").key(InferRequest(found, 1, None, ()))

    assert key(b"ab", b"c") != key(b"a", b"bc")
    assert key(b"ab", b"") != key(b"", b"ab")


def test_what_was_not_used_for_longest_leaves_first():
    cache = LruCache(2, b"m")
    outputs = (Tensor((1,), b"x"),)
    for key in (b"a", b"b"):
        cache.put(key, outputs)
    cache.get(b"a")
    cache.put(b"c", outputs)
    assert [cache.get(k) is not None for k in (b"a", b"b", b"c")] == [True, False, True]


def test_an_entry_does_not_keep_the_batch_that_it_was_cut_from():
    cache = LruCache(2, b"m")
    cache.put(b"a", (Tensor((1,), memoryview(bytes(1000))[:1]),))
    assert isinstance(cache.get(b"a")[0].data, bytes)


@pytest.mark.parametrize(("size", "kind"), [(0, NoCache), (1, LruCache)])
def test_size_zero_is_no_cache(size, kind):
    assert isinstance(make_cache(size, b"m"), kind)
