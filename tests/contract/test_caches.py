"""What every cache keeps to, the one that keeps nothing included."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache import make_cache
from dlbench.proxy.tensors import Tensor
from dlbench.proxy.wire import InferRequest, WantedOutput

SIZES = [0, 1, 3, 100]
STEPS = st.lists(st.tuples(st.sampled_from(["get", "put"]), st.integers(0, 9)), max_size=60)


def request(number):
    return InferRequest((Tensor((1,), bytes([number])),), 1, None, (WantedOutput(0, True),))


@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_what_comes_back_is_what_was_put_and_never_more_than_fits(size, steps):
    cache, used = make_cache(size, b"m/1"), []
    for step, number in steps:
        key = cache.key(request(number))
        if key is None:
            assert size == 0
            continue
        if step == "put":
            cache.put(key, (Tensor((1,), bytes([number, 1])),))
        else:
            found = cache.get(key)
            assert (found is not None) == (number in used[-size:])
            if found is None:
                continue
            assert found == (Tensor((1,), bytes([number, 1])),)
        used = [n for n in used if n != number] + [number]


@pytest.mark.parametrize("size", SIZES)
def test_a_key_never_changes(size):
    cache = make_cache(size, b"m/1")
    assert cache.key(request(1)) == cache.key(request(1))
